use std::path::PathBuf;

use protocol::ids::ContainerId;

use super::*;

mod fields;
mod floor;
mod linux;
mod mounts;
mod process;

/// What is below the bundle of the container in these tests.
const BUNDLE: &str = "/run/kata-containers/abc";

fn facts(tee_active: bool) -> Facts {
    Facts::new(ContainerId::parse("abc").unwrap(), PathBuf::from(BUNDLE), tee_active)
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn mount(destination: &str, type_: &str, source: &str, options: &[&str]) -> oci::Mount {
    oci::Mount {
        destination: destination.to_owned(),
        type_: type_.to_owned(),
        source: source.to_owned(),
        options: strings(options),
        ..Default::default()
    }
}

fn namespace(kind: &str, path: &str) -> oci::LinuxNamespace {
    oci::LinuxNamespace { Type: kind.to_owned(), Path: path.to_owned(), ..Default::default() }
}

fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> oci::LinuxDeviceCgroup {
    oci::LinuxDeviceCgroup {
        Allow: allow,
        Type: kind.to_owned(),
        Major: major,
        Minor: minor,
        Access: access.to_owned(),
        ..Default::default()
    }
}

fn node(path: &str, kind: &str, major: i64, minor: i64) -> oci::LinuxDevice {
    oci::LinuxDevice {
        Path: path.to_owned(),
        Type: kind.to_owned(),
        Major: major,
        Minor: minor,
        FileMode: 0o666,
        ..Default::default()
    }
}

/// What containerd and a runtime send for an ordinary container.
fn ordinary() -> oci::Spec {
    let capabilities = strings(&["CAP_CHOWN", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE"]);
    let process = oci::Process {
        Args: strings(&["/bin/serve", "--port", "80"]),
        Env: strings(&["PATH=/bin", "HOME=/root", "EMPTY="]),
        Cwd: "/".to_owned(),
        User: Some(oci::User { UID: 7, GID: 8, AdditionalGids: vec![9], ..Default::default() }).into(),
        Capabilities: Some(oci::LinuxCapabilities {
            Bounding: capabilities.clone(),
            Effective: capabilities.clone(),
            Permitted: capabilities,
            ..Default::default()
        })
        .into(),
        NoNewPrivileges: true,
        OOMScoreAdj: 999,
        ..Default::default()
    };
    let linux = oci::Linux {
        Namespaces: vec![
            namespace("ipc", "/proc/77/ns/ipc"),
            namespace("uts", "/proc/77/ns/uts"),
            namespace("mount", ""),
        ],
        Resources: Some(oci::LinuxResources {
            Devices: vec![rule(false, "", 0, 0, "rwm")],
            ..Default::default()
        })
        .into(),
        CgroupsPath: "/kubepods/podx/abc".to_owned(),
        MaskedPaths: strings(&["/proc/acpi", "/proc/kcore", "/sys/firmware"]),
        ReadonlyPaths: strings(&["/proc/sys"]),
        ..Default::default()
    };
    oci::Spec {
        Version: "1.1.0".to_owned(),
        Process: Some(process).into(),
        Root: Some(oci::Root { Path: format!("{BUNDLE}/rootfs"), Readonly: true, ..Default::default() })
            .into(),
        Hostname: "pod-1".to_owned(),
        Mounts: vec![
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
            mount("/dev/shm", "bind", "/run/kata-containers/sandbox/shm", &["rbind"]),
            mount(
                "/etc/hosts",
                "bind",
                "/run/kata-containers/shared/containers/abc-1-hosts",
                &["rbind", "rprivate", "rw"],
            ),
            mount("/etc/resolv.conf", "bind", "/run/kata-containers/sandbox/resolv.conf", &["bind", "ro"]),
        ],
        Annotations: [("io.kubernetes.cri.container-type".to_owned(), "container".to_owned())].into(),
        Linux: Some(linux).into(),
        ..Default::default()
    }
}

/// Changes an ordinary specification; what the engine would be given, or why not.
fn changed(tee_active: bool, change: impl FnOnce(&mut oci::Spec)) -> Result<Prepared, SpecError> {
    let mut spec = ordinary();
    change(&mut spec);
    prepare(&spec, &facts(tee_active))
}

/// The code of a refusal, inside and outside of a confidential guest.
fn refused(change: impl Fn(&mut oci::Spec)) -> &'static str {
    let code = changed(true, &change).expect_err("refused in a confidential guest").code();
    assert_eq!(changed(false, &change).expect_err("refused elsewhere").code(), code);
    code
}

/// The code of a refusal in a confidential guest of what runs elsewhere.
fn refused_in_a_tee(change: impl Fn(&mut oci::Spec)) -> &'static str {
    changed(false, &change).expect("runs elsewhere");
    changed(true, &change).expect_err("refused in a confidential guest").code()
}

fn linux(spec: &mut oci::Spec) -> &mut oci::Linux {
    spec.Linux.mut_or_insert_default()
}

fn process(spec: &mut oci::Spec) -> &mut oci::Process {
    spec.Process.mut_or_insert_default()
}

fn resources(spec: &mut oci::Spec) -> &mut oci::LinuxResources {
    linux(spec).Resources.mut_or_insert_default()
}

/// The whole of it, so that nothing comes from a library's defaults.
#[test]
fn an_ordinary_container_is_converted_exactly() {
    let prepared = changed(false, |_| ()).unwrap();
    let capabilities = ["CAP_CHOWN", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE"];
    let mut json = serde_json::to_value(&prepared.spec).unwrap();
    for set in ["bounding", "effective", "permitted"] {
        let set = json.pointer_mut(&format!("/process/capabilities/{set}")).unwrap().as_array_mut().unwrap();
        set.sort_by_key(ToString::to_string);
    }
    let expected = serde_json::json!({
        "ociVersion": "1.2.0",
        "root": { "path": "/run/kata-containers/abc/rootfs", "readonly": true },
        "hostname": "pod-1",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
            { "destination": "/dev/shm", "type": "bind", "source": "/run/kata-containers/sandbox/shm", "options": ["rbind"] },
            { "destination": "/etc/hosts", "type": "bind", "source": "/run/kata-containers/shared/containers/abc-1-hosts", "options": ["rbind", "rprivate", "rw"] },
            { "destination": "/etc/resolv.conf", "type": "bind", "source": "/run/kata-containers/sandbox/resolv.conf", "options": ["bind", "ro"] },
        ],
        "process": {
            "terminal": false,
            "user": { "uid": 7, "gid": 8, "additionalGids": [9] },
            "args": ["/bin/serve", "--port", "80"],
            "env": ["PATH=/bin", "HOME=/root", "EMPTY="],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                "inheritable": [], "ambient": [],
            },
            "rlimits": [{ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }],
            "noNewPrivileges": true,
            "oomScoreAdj": 999,
        },
        "annotations": { "io.kubernetes.cri.container-type": "container" },
        "linux": {
            "resources": {},
            "cgroupsPath": "/kubepods/podx/abc",
            "namespaces": [{ "type": "mount" }, { "type": "cgroup" }, { "type": "ipc" }, { "type": "uts" }, { "type": "pid" }],
            "devices": [],
            "maskedPaths": [
                "/proc/acpi", "/proc/kcore", "/sys/firmware", "/sys/kernel/config", "/sys/kernel/security",
                "/sys/kernel/debug", "/sys/devices/virtual/misc/tdx_guest",
            ],
            "readonlyPaths": ["/proc/sys"],
        },
    });
    assert_eq!(json, expected);
    assert_eq!(prepared.seccomp, None);
    assert!(prepared.net_sysctls.is_empty());
    // What is written is what is read.
    let text = serde_json::to_string(&prepared.spec).unwrap();
    assert_eq!(serde_json::from_str::<run::Spec>(&text).unwrap(), prepared.spec);
}

#[test]
fn processes_of_a_container_have_its_filter_and_its_capabilities() {
    let container = changed(true, |spec| {
        linux(spec).Seccomp =
            Some(oci::LinuxSeccomp { DefaultAction: "SCMP_ACT_ERRNO".to_owned(), ..Default::default() })
                .into();
    })
    .unwrap();
    assert!(container.seccomp.is_some());
    let mut process = ordinary().Process.unwrap();
    process.Capabilities = None.into();
    process.Terminal = true;
    process.NoNewPrivileges = false;
    process.ConsoleSize = Some(oci::Box { Height: 24, Width: 80, ..Default::default() }).into();
    let prepared = prepare_process(&process, &container).unwrap();
    let first = container.spec.process().as_ref().unwrap();
    assert_eq!(prepared.process.capabilities(), first.capabilities());
    assert_eq!(prepared.seccomp, container.seccomp);
    assert_eq!(prepared.process.no_new_privileges(), None);
    assert_eq!(prepared.process.terminal(), Some(true));
    assert_eq!(prepared.process.console_size().map(|size| (size.height(), size.width())), Some((24, 80)));
}

#[test]
fn the_admitted_process_has_the_identity_that_configuration_names() {
    let prepared = changed(true, |_| ()).unwrap();
    let expected = initdata::ProcessIdentity {
        args: &[b"/bin/serve", b"--port", b"80"],
        env_names: &[b"PATH", b"HOME", b"EMPTY"],
        cwd: b"/",
        uid: 7,
        gid: 8,
        additional_gids: &[9],
    };
    assert_eq!(process_identity(&prepared).unwrap(), expected.digest());
    let other = changed(true, |spec| process(spec).Args.push("-v".to_owned())).unwrap();
    assert_ne!(process_identity(&other).unwrap(), expected.digest());
    let value = changed(true, |spec| process(spec).Env[1] = "HOME=/tmp".to_owned()).unwrap();
    assert_eq!(process_identity(&value).unwrap(), expected.digest(), "values are no part of it");
}

#[test]
fn an_update_keeps_what_is_no_limit() {
    let container = changed(false, |_| ()).unwrap();
    let asked = oci::LinuxResources {
        Memory: Some(oci::LinuxMemory { Limit: -1, Swap: 5, ..Default::default() }).into(),
        CPU: Some(oci::LinuxCPU { Quota: -1, Shares: 2, Cpus: "0-1,3".to_owned(), ..Default::default() })
            .into(),
        Pids: Some(oci::LinuxPids { Limit: 9, ..Default::default() }).into(),
        ..Default::default()
    };
    let prepared = prepare_resources(&asked, &container, &ForbiddenDevices::default()).unwrap();
    assert_eq!(
        serde_json::to_value(&prepared.resources).unwrap(),
        serde_json::json!({
            "memory": { "limit": -1, "swap": 5 },
            "cpu": { "quota": -1, "shares": 2, "cpus": "0-1,3" },
            "pids": { "limit": 9 },
        })
    );
    assert_eq!(prepared.device_rules, None);
    let asked = oci::LinuxResources { Devices: vec![rule(true, "b", 8, 1, "rw")], ..Default::default() };
    let rules =
        prepare_resources(&asked, &container, &ForbiddenDevices::default()).unwrap().device_rules.unwrap();
    let access = Access { read: true, write: true, mknod: false };
    assert!(devices::allows(&rules, DeviceKind::Block, 8, 1, access));
}

#[test]
fn what_is_printed_for_developers_has_no_environment() {
    let prepared = changed(false, |spec| process(spec).Env.push("KEY=hush".to_owned())).unwrap();
    let further = prepare_process(&ordinary().Process.unwrap(), &prepared).unwrap();
    let text = format!("{prepared:?}{further:?}");
    assert!(!text.contains("hush") && !text.contains("serve") && text.contains("kubepods"), "{text}");
}

#[test]
fn evil_host_specification_of_another_version() {
    for version in ["0.9", "2.0.0", "1", "one", &format!("1.{}", "0".repeat(40))] {
        assert_eq!(refused(|spec| spec.Version = version.to_owned()), "SPEC_VALUE");
    }
    assert_eq!(changed(true, |spec| spec.Version.clear()).unwrap().spec.version(), VERSION);
}

#[test]
fn evil_host_specification_of_another_system() {
    assert_eq!(refused(|spec| spec.Windows = Some(oci::Windows::default()).into()), "SPEC_NOT_ENFORCED");
    assert_eq!(refused(|spec| spec.Solaris = Some(oci::Solaris::default()).into()), "SPEC_NOT_ENFORCED");
}

#[test]
fn evil_host_specification_without_its_parts() {
    assert_eq!(refused(|spec| spec.Linux = None.into()), "SPEC_MISSING");
    assert_eq!(refused(|spec| spec.Process = None.into()), "SPEC_MISSING");
    assert_eq!(refused(|spec| spec.Root = None.into()), "SPEC_MISSING");
}

#[test]
fn evil_host_name_of_another_form() {
    for name in ["a b", "a/b", "a\n", "é", &"a".repeat(65)] {
        assert_eq!(refused(|spec| spec.Hostname = name.to_owned()), "SPEC_VALUE");
    }
}

#[test]
fn evil_host_sends_more_than_can_be() {
    assert_eq!(refused(|spec| spec.Mounts = vec![spec.Mounts[0].clone(); 1025]), "SPEC_TOO_MANY");
    assert_eq!(refused(|spec| process(spec).Args = strings(&["a"; 8193])), "SPEC_TOO_MANY");
    assert_eq!(refused(|spec| process(spec).Env = strings(&["a=b"; 8193])), "SPEC_TOO_MANY");
    assert_eq!(refused(|spec| linux(spec).MaskedPaths = strings(&["/a"; 257])), "SPEC_TOO_MANY");
    assert_eq!(refused(|spec| linux(spec).Devices = vec![node("/dev/a", "c", 9, 9); 513]), "SPEC_TOO_MANY");
    assert_eq!(
        refused(|spec| resources(spec).Devices = vec![rule(false, "c", 9, 9, "r"); 513]),
        "SPEC_TOO_MANY"
    );
}
