use super::*;

#[test]
fn evil_host_process_without_a_program() {
    assert_eq!(refused(|spec| process(spec).Args.clear()), "SPEC_MISSING");
    assert_eq!(refused(|spec| process(spec).Args[0].clear()), "SPEC_MISSING");
}

#[test]
fn evil_host_text_with_an_end_inside() {
    assert_eq!(refused(|spec| process(spec).Args[1] = "a\0b".to_owned()), "SPEC_VALUE");
    assert_eq!(refused(|spec| process(spec).Env[1] = "A=a\0b".to_owned()), "SPEC_VALUE");
}

#[test]
fn evil_host_environment_without_names() {
    for entry in ["", "=a", "LD_PRELOAD"] {
        assert_eq!(refused(|spec| process(spec).Env.push(entry.to_owned())), "SPEC_VALUE");
    }
}

#[test]
fn a_process_without_a_path_has_the_usual_one() {
    let prepared = changed(false, |spec| process(spec).Env = strings(&["A=b"])).unwrap();
    let env = prepared.spec.process().as_ref().unwrap().env().clone().unwrap();
    assert_eq!(env, ["A=b", super::super::process::DEFAULT_PATH]);
}

#[test]
fn evil_host_directory_of_an_open_file() {
    for cwd in [
        "/proc/self/fd/7",
        "/proc/self/fd/8/",
        "//proc/1/cwd",
        "/a/../proc/thread-self",
        "/./proc",
        "",
        "a",
        "/a\0",
    ] {
        assert_eq!(refused(|spec| process(spec).Cwd = cwd.to_owned()), "SPEC_VALUE", "{cwd:?}");
    }
    for cwd in ["/", "/srv/proc", "/process", "/proc/../srv"] {
        changed(true, |spec| process(spec).Cwd = cwd.to_owned()).unwrap();
    }
}

#[test]
fn evil_host_profile_that_nobody_enforces() {
    for profile in ["localhost/mine", "runtime/default", "mine"] {
        assert_eq!(refused(|spec| process(spec).ApparmorProfile = profile.to_owned()), "SPEC_NOT_ENFORCED");
    }
    for profile in ["unconfined", "cri-containerd.apparmor.d"] {
        let prepared = changed(true, |spec| process(spec).ApparmorProfile = profile.to_owned()).unwrap();
        assert_eq!(*prepared.spec.process().as_ref().unwrap().apparmor_profile(), None);
    }
}

#[test]
fn evil_host_label_that_nobody_enforces() {
    assert_eq!(refused(|spec| process(spec).SelinuxLabel = "a:b:c".to_owned()), "SPEC_NOT_ENFORCED");
    assert_eq!(refused(|spec| linux(spec).MountLabel = "a:b:c".to_owned()), "SPEC_NOT_ENFORCED");
}

#[test]
fn evil_host_score_that_is_none() {
    for score in [-1001, 1001, i64::MAX] {
        assert_eq!(refused(|spec| process(spec).OOMScoreAdj = score), "SPEC_VALUE");
    }
}

#[test]
fn evil_host_limits_that_do_not_fit() {
    let limit = |kind: &str, soft, hard| oci::POSIXRlimit {
        Type: kind.to_owned(),
        Soft: soft,
        Hard: hard,
        ..Default::default()
    };
    for limits in [
        vec![limit("RLIMIT_NOFILE", 2, 1)],
        vec![limit("RLIMIT_NOFILE", 1, 1), limit("RLIMIT_NOFILE", 1, 2)],
        vec![limit("NOFILE", 1, 1)],
        vec![limit("RLIMIT_X", 1, 1)],
    ] {
        assert_eq!(refused(|spec| process(spec).Rlimits = limits.clone()), "SPEC_VALUE");
    }
    let limits = vec![limit("RLIMIT_CORE", u64::MAX, u64::MAX), limit("RLIMIT_NPROC", 1, u64::MAX)];
    let prepared = changed(false, |spec| process(spec).Rlimits = limits).unwrap();
    let rlimits = prepared.spec.process().as_ref().unwrap().rlimits().clone().unwrap();
    let found: Vec<_> =
        rlimits.iter().map(|limit| (limit.typ().to_string(), limit.soft(), limit.hard())).collect();
    let expected = [("RLIMIT_NPROC".to_owned(), 1, u64::MAX), ("RLIMIT_CORE".to_owned(), 0, 0)];
    assert_eq!(found, expected, "no core dumps");
}

#[test]
fn a_container_without_capabilities_has_five_empty_sets() {
    let prepared = changed(false, |spec| process(spec).Capabilities = None.into()).unwrap();
    let json = serde_json::to_value(prepared.spec.process().as_ref().unwrap().capabilities()).unwrap();
    let expected = serde_json::json!({
        "bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": [],
    });
    assert_eq!(json, expected);
}

#[test]
fn evil_host_capability_sets_that_do_not_fit() {
    let sets = |change: fn(&mut oci::LinuxCapabilities)| {
        refused(|spec| change(process(spec).Capabilities.mut_or_insert_default()))
    };
    assert_eq!(sets(|sets| sets.Effective.push("CAP_SETUID".to_owned())), "SPEC_VALUE");
    assert_eq!(sets(|sets| sets.Ambient.push("CAP_KILL".to_owned())), "SPEC_VALUE");
    assert_eq!(
        sets(|sets| {
            sets.Ambient = strings(&["SETUID"]);
            sets.Inheritable = strings(&["SETUID"])
        }),
        "SPEC_VALUE"
    );
    assert_eq!(sets(|sets| sets.Bounding.push("CAP_EVERYTHING".to_owned())), "SPEC_VALUE");
    changed(false, |spec| {
        let sets = process(spec).Capabilities.mut_or_insert_default();
        sets.Ambient = strings(&["cap_kill"]);
        sets.Inheritable = strings(&["KILL"]);
    })
    .unwrap();
}

#[test]
fn evil_host_capabilities_in_a_tee() {
    for name in [
        "SYS_ADMIN",
        "SYS_PTRACE",
        "SYS_MODULE",
        "SYS_RAWIO",
        "BPF",
        "PERFMON",
        "SYSLOG",
        "CHECKPOINT_RESTORE",
        "SYS_BOOT",
        "MAC_ADMIN",
        "MAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "SYS_TIME",
    ] {
        let change = |spec: &mut oci::Spec, prefix: &str| {
            let sets = process(spec).Capabilities.mut_or_insert_default();
            sets.Bounding.push(format!("{prefix}{name}"));
        };
        assert_eq!(refused_in_a_tee(|spec| change(spec, "CAP_")), "SPEC_FLOOR_TEE", "{name}");
        assert_eq!(refused_in_a_tee(|spec| change(spec, "")), "SPEC_FLOOR_TEE", "{name}");
    }
    // Further processes are held to the same.
    let container = changed(true, |_| ()).unwrap();
    let mut process = ordinary().Process.unwrap();
    process.Capabilities.mut_or_insert_default().Inheritable.push("CAP_SYS_PTRACE".to_owned());
    assert_eq!(prepare_process(&process, &container).unwrap_err().code(), "SPEC_FLOOR_TEE");
}
