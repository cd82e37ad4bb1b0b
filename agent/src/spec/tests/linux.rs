use super::*;

#[test]
fn evil_host_user_namespace() {
    assert_eq!(refused(|spec| linux(spec).Namespaces.push(namespace("user", ""))), "SPEC_NOT_ENFORCED");
    assert_eq!(
        refused(|spec| linux(spec).UIDMappings.push(oci::LinuxIDMapping::default())),
        "SPEC_NOT_ENFORCED"
    );
    assert_eq!(
        refused(|spec| linux(spec).GIDMappings.push(oci::LinuxIDMapping::default())),
        "SPEC_NOT_ENFORCED"
    );
}

#[test]
fn evil_host_no_mount_namespace() {
    let without = |spec: &mut oci::Spec| linux(spec).Namespaces.retain(|namespace| namespace.Type != "mount");
    assert_eq!(refused(without), "SPEC_MISSING");
    assert_eq!(refused(|spec| linux(spec).Namespaces[2].Path = "/proc/1/ns/mnt".to_owned()), "SPEC_MISSING");
}

#[test]
fn evil_host_namespace_that_is_none() {
    assert_eq!(refused(|spec| linux(spec).Namespaces.push(namespace("chroot", ""))), "SPEC_VALUE");
    assert_eq!(refused(|spec| linux(spec).Namespaces.push(namespace("ipc", ""))), "SPEC_VALUE");
}

/// Paths of the host are never joined, and no container is without a namespace of processes.
#[test]
fn evil_host_joins_namespaces_of_the_agent() {
    let hostile = |spec: &mut oci::Spec| {
        linux(spec).Namespaces = ["ipc", "uts", "pid", "network", "cgroup", "time"]
            .iter()
            .map(|kind| namespace(kind, &format!("/proc/1/ns/{kind}")))
            .chain([namespace("mount", "")])
            .collect();
    };
    let found = |prepared: &Prepared| {
        let namespaces = prepared.spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
        namespaces.iter().map(|namespace| (namespace.typ(), namespace.path().clone())).collect::<Vec<_>>()
    };
    use oci_spec::runtime::LinuxNamespaceType as Kind;
    let expected =
        [Kind::Mount, Kind::Cgroup, Kind::Ipc, Kind::Uts, Kind::Pid].map(|kind| (kind, None::<PathBuf>));
    assert_eq!(found(&changed(true, hostile).unwrap()), expected);
    let bare = |spec: &mut oci::Spec| linux(spec).Namespaces = vec![namespace("mount", "")];
    assert_eq!(found(&changed(true, bare).unwrap()), expected);

    let mut facts = facts(true);
    facts.namespaces = SandboxNamespaces {
        ipc: Some("/run/sandbox-ns/ipc".into()),
        uts: Some("/run/sandbox-ns/uts".into()),
        pid: Some("/proc/99/ns/pid".into()),
    };
    let mut spec = ordinary();
    hostile(&mut spec);
    let paths: Vec<_> = found(&prepare(&spec, &facts).unwrap()).into_iter().map(|(_, path)| path).collect();
    let expected = [None, None, facts.namespaces.ipc, facts.namespaces.uts, facts.namespaces.pid];
    assert_eq!(paths, expected);
}

#[test]
fn evil_host_limits_that_nobody_enforces() {
    let memory = |change: fn(&mut oci::LinuxMemory)| {
        refused(|spec| change(resources(spec).Memory.mut_or_insert_default()))
    };
    assert_eq!(memory(|memory| memory.Kernel = 1), "SPEC_NOT_ENFORCED");
    assert_eq!(memory(|memory| memory.KernelTCP = 1), "SPEC_NOT_ENFORCED");
    assert_eq!(memory(|memory| memory.Swappiness = 1), "SPEC_NOT_ENFORCED");
    assert_eq!(memory(|memory| memory.DisableOOMKiller = true), "SPEC_NOT_ENFORCED");
    let cpu =
        |change: fn(&mut oci::LinuxCPU)| refused(|spec| change(resources(spec).CPU.mut_or_insert_default()));
    assert_eq!(cpu(|cpu| cpu.RealtimeRuntime = 1), "SPEC_NOT_ENFORCED");
    assert_eq!(cpu(|cpu| cpu.RealtimePeriod = 1), "SPEC_NOT_ENFORCED");
    let block = |change: fn(&mut oci::LinuxBlockIO)| {
        refused(|spec| change(resources(spec).BlockIO.mut_or_insert_default()))
    };
    assert_eq!(block(|block| block.LeafWeight = 10), "SPEC_NOT_ENFORCED");
    let leaf = oci::LinuxWeightDevice { LeafWeight: 10, ..Default::default() };
    assert_eq!(
        refused(|spec| resources(spec).BlockIO.mut_or_insert_default().WeightDevice.push(leaf.clone())),
        "SPEC_NOT_ENFORCED"
    );
    assert_eq!(
        refused(|spec| resources(spec).Network.mut_or_insert_default().ClassID = 1),
        "SPEC_NOT_ENFORCED"
    );
    assert_eq!(
        refused(|spec| linux(spec).IntelRdt.mut_or_insert_default().L3CacheSchema = "L3:0=f".to_owned()),
        "SPEC_NOT_ENFORCED"
    );
}

#[test]
fn evil_host_resources_of_another_form() {
    let cpu =
        |change: fn(&mut oci::LinuxCPU)| refused(|spec| change(resources(spec).CPU.mut_or_insert_default()));
    assert_eq!(cpu(|cpu| cpu.Cpus = "0-1\n".to_owned()), "SPEC_VALUE");
    assert_eq!(cpu(|cpu| cpu.Mems = "a".to_owned()), "SPEC_VALUE");
    assert_eq!(cpu(|cpu| cpu.Cpus = "0,".repeat(4096)), "SPEC_VALUE");
    assert_eq!(cpu(|cpu| cpu.Quota = -2), "SPEC_VALUE");
    assert_eq!(refused(|spec| resources(spec).Memory.mut_or_insert_default().Limit = i64::MIN), "SPEC_VALUE");
    assert_eq!(refused(|spec| resources(spec).Pids.mut_or_insert_default().Limit = -5), "SPEC_VALUE");
    for size in ["", "2", "MB", "02MB", "2XB", "../2MB", "2MB/x", "123456789MB"] {
        let limit = oci::LinuxHugepageLimit { Pagesize: size.to_owned(), Limit: 1, ..Default::default() };
        assert_eq!(
            refused(|spec| resources(spec).HugepageLimits.push(limit.clone())),
            "SPEC_VALUE",
            "{size}"
        );
    }
    assert_eq!(refused(|spec| resources(spec).BlockIO.mut_or_insert_default().Weight = 9), "SPEC_VALUE");
    assert_eq!(refused(|spec| resources(spec).BlockIO.mut_or_insert_default().Weight = 70_000), "SPEC_VALUE");
    let device = oci::LinuxThrottleDevice { Major: -1, ..Default::default() };
    assert_eq!(
        refused(|spec| resources(spec)
            .BlockIO
            .mut_or_insert_default()
            .ThrottleReadBpsDevice
            .push(device.clone())),
        "SPEC_VALUE"
    );
}

#[test]
fn parameters_are_sorted_by_whose_they_are() {
    let prepared = changed(true, |spec| {
        linux(spec).Sysctl = [
            ("net.ipv4.ip_forward", "1"),
            ("net/ipv4/conf/eth0.1/forwarding", "0"),
            ("net.ipv4.conf.eth0/1.rp_filter", "2"),
            ("kernel.shmmax", "5"),
            ("fs/mqueue/msg_max", "6"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    })
    .unwrap();
    let network: Vec<_> =
        prepared.net_sysctls.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("net/ipv4/conf/eth0.1/forwarding", "0"),
        ("net/ipv4/conf/eth0.1/rp_filter", "2"),
        ("net/ipv4/ip_forward", "1"),
    ];
    assert_eq!(network, expected);
    let own = prepared.spec.linux().as_ref().unwrap().sysctl().clone().unwrap();
    assert_eq!(own.len(), 2);
    assert_eq!((own["kernel.shmmax"].as_str(), own["fs.mqueue.msg_max"].as_str()), ("5", "6"));
}

fn sysctl(name: &str, value: &str) -> &'static str {
    refused(|spec| linux(spec).Sysctl = [(name.to_owned(), value.to_owned())].into())
}

#[test]
fn evil_host_parameter_of_the_whole_guest() {
    for name in [
        "kernel.core_pattern",
        "kernel.hostname",
        "kernel.domainname",
        "kernel.modprobe",
        "vm.overcommit_memory",
        "fs.file-max",
        "kernel.sysrq",
        "kernel/core_pattern",
        "fs.mqueue.other",
        "network.x",
    ] {
        assert_eq!(sysctl(name, "1"), "SPEC_SYSCTL", "{name}");
    }
}

#[test]
fn evil_host_parameter_of_another_form() {
    for name in
        ["net", "", "net..x", "net/../kernel/core_pattern", "/net/x", "net.x\0", "net.ipv4.a b", "net/./x"]
    {
        assert_eq!(sysctl(name, "1"), "SPEC_SYSCTL", "{name}");
    }
    for value in ["1\n2", "\0", &"1".repeat(4097)] {
        assert_eq!(sysctl("net.core.somaxconn", value), "SPEC_SYSCTL");
    }
}

fn hook(path: &str) -> oci::Hook {
    oci::Hook { Path: path.to_owned(), Args: strings(&["a", "prestart"]), Timeout: 5, ..Default::default() }
}

fn with_hook(spec: &mut oci::Spec, hook: oci::Hook, which: usize) {
    let hooks = spec.Hooks.mut_or_insert_default();
    let lists = [
        &mut hooks.Prestart,
        &mut hooks.CreateRuntime,
        &mut hooks.CreateContainer,
        &mut hooks.StartContainer,
        &mut hooks.Poststart,
        &mut hooks.Poststop,
    ];
    lists.into_iter().nth(which).unwrap().push(hook);
}

#[test]
fn evil_host_hook_in_a_tee() {
    for which in 0..6 {
        assert_eq!(refused_in_a_tee(|spec| with_hook(spec, hook("/bin/sh"), which)), "SPEC_FLOOR_TEE");
    }
    let mut facts = facts(true);
    facts.allowed_hooks.push("/usr/bin/listed".into());
    let mut spec = ordinary();
    with_hook(&mut spec, hook("/usr/bin/listed"), 1);
    prepare(&spec, &facts).unwrap();
    with_hook(&mut spec, hook("/usr/bin/listed2"), 1);
    assert_eq!(prepare(&spec, &facts).unwrap_err().code(), "SPEC_FLOOR_TEE");
}

#[test]
fn evil_host_hook_of_another_form() {
    for path in ["", "sh", "/bin/../sh", "/bin/s\0h"] {
        assert_eq!(refused(|spec| with_hook(spec, hook(path), 0)), "SPEC_VALUE");
    }
    let text = oci::Hook { Env: strings(&["A=\0"]), ..hook("/bin/sh") };
    assert_eq!(refused(|spec| with_hook(spec, text.clone(), 2)), "SPEC_VALUE");
    let time = oci::Hook { Timeout: -1, ..hook("/bin/sh") };
    assert_eq!(refused(|spec| with_hook(spec, time.clone(), 2)), "SPEC_VALUE");
}

/// Upstream loses the sandbox's where the specification has some.
#[test]
fn hooks_of_the_sandbox_follow_those_of_the_specification() {
    let mut facts = facts(false);
    let mut one = oci_spec::runtime::Hook::default();
    one.set_path("/guest/hook".into());
    let mut hooks = oci_spec::runtime::Hooks::default();
    hooks.set_prestart(Some(vec![one.clone()])).set_poststop(Some(vec![one]));
    facts.hooks = Some(hooks);
    let mut spec = ordinary();
    with_hook(&mut spec, hook("/bin/first"), 0);
    let merged = prepare(&spec, &facts).unwrap().spec.hooks().clone().unwrap();
    let paths = |hooks: &Option<Vec<oci_spec::runtime::Hook>>| {
        hooks.iter().flatten().map(|hook| hook.path().display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(paths(merged.prestart()), ["/bin/first", "/guest/hook"]);
    assert_eq!(paths(merged.poststop()), ["/guest/hook"]);
    assert!(merged.create_runtime().is_none());
}
