use std::path::Path;

use super::*;

fn bind(source: &str) -> impl Fn(&mut oci::Spec) {
    move |spec| spec.Mounts.push(mount("/data", "bind", source, &["rbind"]))
}

#[test]
fn evil_host_mounts_our_directories() {
    for source in [
        "/",
        "/run",
        "/var/run",
        "/run/innerkeep",
        "/run/innerkeep/sockets",
        "/var/run/innerkeep",
        "/run//./innerkeep",
        "/run/kata-containers",
        "/run/kata-containers/other/rootfs",
        "/run/kata-containers/abc",
        "/run/kata-containers/shared",
        "/run/kata-containers/shared/containers",
        "/run/kata-containers/sandbox",
        "/run/kata-containers/sandbox/storage",
        "/run/kata-containers/sandbox/shmx",
        "/run/kata-containers/image/layers",
        "/run/confidential-containers/cdh",
        "/run/sandbox-ns/ipc",
        "/proc",
        "/proc/1/root",
        "/proc/self/fd/3",
        "/proc/kcore",
        "/sys",
        "/sys/kernel/config/tsm",
        "/sys/kernel/security",
        "/sys/firmware",
        "/sys/devices/virtual/misc/tdx_guest",
        "/sys/fs/cgroup",
    ] {
        assert_eq!(refused(bind(source)), "SPEC_FLOOR", "{source}");
        // By its options only, whatever the type says.
        let by_option = |spec: &mut oci::Spec| spec.Mounts.push(mount("/data", "ext4", source, &["bind"]));
        assert_eq!(refused(by_option), "SPEC_FLOOR", "{source}");
    }
    for source in [
        "/run/kata-containers/shared/containers/abc-resolv.conf",
        "/run/kata-containers/sandbox/ephemeral/cache",
        "/run/kata-containers/sandbox/storage/YWJj",
        "/dev/hugepages",
        "/opt/tools",
    ] {
        changed(true, bind(source)).unwrap();
    }
    for source in ["run", "", "/a/../run/innerkeep", "/a\0"] {
        assert_eq!(refused(bind(source)), "SPEC_MOUNT", "{source:?}");
    }
}

#[test]
fn a_storage_of_the_container_may_be_mounted() {
    let mut facts = facts(true);
    let mut spec = ordinary();
    bind("/run/kata-containers/abc/volume/a")(&mut spec);
    assert_eq!(prepare(&spec, &facts).unwrap_err().code(), "SPEC_FLOOR");
    facts.storages.push(PathBuf::from("/run/kata-containers/abc/volume"));
    prepare(&spec, &facts).unwrap();
}

#[test]
fn evil_host_mounts_a_link_to_our_directories() {
    for target in ["/run/innerkeep", "/run/kata-containers/other/rootfs", "/proc/1/root", "/", "/dev/tpm0"] {
        let mut facts = facts(false);
        facts.resolve = Box::new(move |path| {
            Ok(if path.ends_with("link") { PathBuf::from(target) } else { path.to_owned() })
        });
        let mut spec = ordinary();
        bind("/srv/link")(&mut spec);
        assert_eq!(prepare(&spec, &facts).unwrap_err().code(), "SPEC_FLOOR", "{target}");
    }
    // What is mounted is what was looked at.
    let mut facts = facts(false);
    facts.resolve = Box::new(|_| Ok(PathBuf::from("/srv/real")));
    let mut spec = ordinary();
    spec.Mounts = vec![mount("/data", "bind", "/srv/link", &[])];
    let prepared = prepare(&spec, &facts).unwrap();
    let mounts = prepared.spec.mounts().as_ref().unwrap();
    assert_eq!(mounts[0].source().as_deref(), Some(Path::new("/srv/real")));
    assert_eq!(mounts[0].options().as_ref().unwrap(), &["rbind"]);
    // Where the written path is ours, it does not help that it leads elsewhere.
    let mut spec = ordinary();
    bind("/proc/self/root/srv")(&mut spec);
    assert_eq!(prepare(&spec, &facts).unwrap_err().code(), "SPEC_FLOOR");
    facts.resolve = Box::new(|_| Err(std::io::ErrorKind::NotFound.into()));
    assert_eq!(prepare(&ordinary(), &facts).unwrap_err().code(), "SPEC_MOUNT_SOURCE");
}

/// A policy permits places in the shared directory: what the host links to there is not permitted by it.
#[test]
fn evil_host_mounts_a_link_out_of_what_is_shared() {
    let shared = "/run/kata-containers/shared/containers";
    let leads_to = |target: &'static str| {
        let mut facts = facts(false);
        facts.storages.push(PathBuf::from("/run/kata-containers/abc/volume"));
        facts.resolve = Box::new(move |_| Ok(PathBuf::from(target)));
        let mut spec = ordinary();
        spec.Mounts = vec![mount("/data", "bind", &format!("{shared}/abc-data"), &["bind"])];
        prepare(&spec, &facts).map(|_| ()).map_err(|error| error.code())
    };
    for target in ["/etc", "/usr/bin", "/srv", "/dev/vda"] {
        assert_eq!(leads_to(target), Err("SPEC_FLOOR"), "{target}");
    }
    for target in [
        "/run/kata-containers/shared/containers/abc-data",
        "/run/kata-containers/shared/containers/abc-data/..2026/data",
        "/run/kata-containers/abc/volume/a",
    ] {
        assert_eq!(leads_to(target), Ok(()), "{target}");
    }
}

#[test]
fn evil_host_mounts_what_has_landed() {
    let mut facts = facts(false);
    facts.protected.push(PathBuf::from("/mnt/landing/model"));
    for source in ["/mnt/landing/model", "/mnt/landing/model/weights", "/mnt/landing", "/mnt"] {
        let mut spec = ordinary();
        bind(source)(&mut spec);
        assert_eq!(prepare(&spec, &facts).unwrap_err().code(), "SPEC_FLOOR", "{source}");
    }
    // Not even where a storage claims to be.
    facts.storages.push(PathBuf::from("/mnt/landing"));
    let mut spec = ordinary();
    bind("/mnt/landing/model")(&mut spec);
    assert_eq!(prepare(&spec, &facts).unwrap_err().code(), "SPEC_FLOOR");
}

#[test]
fn evil_host_mounts_a_device_of_the_guest() {
    for source in [
        "/dev",
        "/dev/",
        "/dev/mem",
        "/dev/kmsg",
        "/dev/vfio",
        "/dev/vfio/3",
        "/dev/tpmrm0",
        "/dev/sev-guest",
    ] {
        assert_eq!(refused(bind(source)), "SPEC_FLOOR", "{source}");
    }
    changed(true, bind("/dev/fuse")).unwrap();
}

#[test]
fn evil_host_mount_options() {
    for option in ["remount", "idmap", "ridmap", "move", "a\0b"] {
        let change = |spec: &mut oci::Spec| spec.Mounts[1].options.push(option.to_owned());
        assert_eq!(refused(change), "SPEC_MOUNT", "{option:?}");
    }
    assert_eq!(refused(|spec| spec.Mounts[1].source = "a\0b".to_owned()), "SPEC_MOUNT");
}

#[test]
fn evil_host_mount_that_appears_outside() {
    for option in ["shared", "rshared"] {
        let change = |spec: &mut oci::Spec| spec.Mounts[5].options.push(option.to_owned());
        assert_eq!(refused_in_a_tee(change), "SPEC_FLOOR_TEE");
        let root = |spec: &mut oci::Spec| linux(spec).RootfsPropagation = option.to_owned();
        assert_eq!(refused_in_a_tee(root), "SPEC_FLOOR_TEE");
    }
    assert_eq!(refused(|spec| linux(spec).RootfsPropagation = "both".to_owned()), "SPEC_VALUE");
    let prepared = changed(true, |spec| linux(spec).RootfsPropagation = "rslave".to_owned()).unwrap();
    assert_eq!(prepared.spec.linux().as_ref().unwrap().rootfs_propagation().as_deref(), Some("rslave"));
}

#[test]
fn evil_host_mounts_on_proc() {
    for (destination, kind) in [
        ("/proc", "tmpfs"),
        ("/proc", "bind"),
        ("/proc/self/attr", "bind"),
        ("/proc/./sys/kernel", "tmpfs"),
        ("/proc/1/exe", "bind"),
        ("/sys", "tmpfs"),
        ("/mnt/proc", "proc"),
        ("/mnt/sys", "sysfs"),
        ("/", "tmpfs"),
        ("//.", "tmpfs"),
        ("proc", "proc"),
        ("/a/../proc", "tmpfs"),
    ] {
        let change = |spec: &mut oci::Spec| spec.Mounts.push(mount(destination, kind, "/srv", &[]));
        assert_eq!(refused(change), "SPEC_MOUNT", "{kind} on {destination}");
    }
    changed(true, |spec| spec.Mounts.push(mount("/proc/uptime", "bind", "/srv/uptime", &["bind"]))).unwrap();
}

#[test]
fn evil_host_mounts_a_file_system_of_the_guest() {
    for kind in [
        "configfs",
        "securityfs",
        "debugfs",
        "tracefs",
        "efivarfs",
        "pstore",
        "bpf",
        "devtmpfs",
        "binfmt_misc",
        "ext4",
        "overlay",
        "virtiofs",
        "9p",
        "nfs",
        "fuse",
        "ramfs",
        "none",
        "",
    ] {
        let change = |spec: &mut oci::Spec| spec.Mounts.push(mount("/data", kind, "x", &["ro"]));
        assert_eq!(refused(change), "SPEC_FLOOR", "{kind}");
    }
}
