use protocol::ids::ContainerId;

use super::*;

const GUEST: &str = "\
1 0 0:1 / / rw - rootfs rootfs rw
2 1 0:2 / /run rw shared:1 - tmpfs tmpfs rw
3 2 0:3 / /run/kata-containers/shared/containers rw - virtiofs kataShared rw
4 2 8:0 / /run/kata-containers/other/rootfs ro - ext4 /dev/sda ro
5 2 8:16 / /run/kata-containers/abc/rootfs ro - ext4 /dev/sdb ro
6 2 0:9 / /run/kata-containers/sandbox/shm rw - tmpfs shm rw
7 1 0:7 / /mnt/landing\\040one ro - tmpfs tmpfs ro
";
const CONTAINER: &str = "\
50 40 8:16 / / ro - ext4 /dev/sdb ro
51 50 0:50 / /proc rw - proc proc rw
52 50 0:51 / /dev rw - tmpfs tmpfs rw
53 50 0:20 / /sys ro - sysfs sysfs ro
54 50 0:9 / /dev/shm rw - tmpfs shm rw
55 50 0:3 /abc-hosts /etc/hosts rw - virtiofs kataShared rw
56 50 0:2 /kata-containers/sandbox/resolv.conf /etc/resolv.conf rw - tmpfs tmpfs rw
57 51 0:5 /null /proc/kcore rw - devtmpfs dev rw
";

fn spec(options: &[&str]) -> run::Spec {
    let spec = serde_json::json!({
        "ociVersion": "1.2.0",
        "root": {"path": "/run/kata-containers/abc/rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/data", "type": "bind", "source": "/run/kata-containers/shared/containers/abc-data", "options": options},
            {"destination": "/dev/shm", "type": "bind", "source": "/run/kata-containers/sandbox/shm", "options": ["rbind"]},
        ],
        "linux": {"maskedPaths": ["/proc/kcore", "/proc/acpi"], "readonlyPaths": ["/proc/sys"]},
    });
    serde_json::from_value(spec).unwrap()
}

fn ordered_with(options: &[&str], guest: &str, more: &str) -> Result<(), &'static str> {
    const MADE: &str = "\
50 40 8:16 / / ro - ext4 /dev/sdb ro
51 50 0:50 / /proc rw - proc proc rw
52 50 0:51 / /dev rw - tmpfs tmpfs rw
53 50 0:20 / /sys ro - sysfs sysfs ro
54 50 0:9 / /dev/shm rw - tmpfs shm rw
55 51 0:51 /null /proc/kcore rw - tmpfs tmpfs rw
56 50 8:16 /etc /etc ro - ext4 /dev/sdb ro
";
    let guest = Mounts::parse(&format!("{GUEST}8 1 0:20 / /sys rw - sysfs sysfs rw\n{guest}")).unwrap();
    let container = Mounts::parse(&format!("{MADE}{more}")).unwrap();
    check_ordered(&guest, &container, &spec(options)).map_err(|error| error.code())
}

#[test]
fn what_was_ordered_is_what_is_there() {
    let data = "60 50 0:3 /abc-data /data rw - virtiofs kataShared rw\n";
    assert_eq!(ordered_with(&["bind"], "", data), Ok(()));
    // Where the image's own links lead is its affair.
    let elsewhere = "60 50 0:3 /abc-data /srv/data rw - virtiofs kataShared rw\n";
    assert_eq!(ordered_with(&["bind"], "", elsewhere), Ok(()));
    let inner = "9 3 8:32 / /run/kata-containers/shared/containers/abc-data/disk rw - ext4 /dev/sdc rw\n";
    let seen = format!("{data}61 60 8:32 / /data/disk rw - ext4 /dev/sdc rw\n");
    assert_eq!(ordered_with(&["rbind"], inner, &seen), Ok(()));
    assert_eq!(ordered_with(&["bind"], inner, &seen), Err("SPEC_FLOOR"));
}

// COMPAT: CreateContainer stricter: what the container sees when it was made is held against what was ordered
#[test]
fn evil_host_swaps_a_source_for_another_part_of_the_guest() {
    for mount in [
        // The guest's own root and its files, another directory that the host shares, another disk, what another container has.
        "0:1 / /data rw - rootfs rootfs rw",
        "0:1 /etc /data rw - rootfs rootfs rw",
        "0:3 / /data rw - virtiofs kataShared rw",
        "0:3 /abc-data2 /data rw - virtiofs kataShared rw",
        "8:0 / /data ro - ext4 /dev/sda ro",
        "0:2 /tmp /data rw - tmpfs tmpfs rw",
        "0:99 / /data rw - overlay overlay rw",
    ] {
        assert_eq!(ordered_with(&["rbind"], "", &format!("60 50 {mount}\n")), Err("SPEC_FLOOR"), "{mount}");
    }
}

/// CVE-2019-16884, CVE-2025-52881: the destination of a mount is a link of the image's.
#[test]
fn evil_image_links_a_mount_onto_proc() {
    for mount in [
        "0:88 / /proc/self/attr rw - tmpfs tmpfs rw",
        "0:3 /abc-data /proc/sysrq-trigger rw - virtiofs kataShared rw",
        "0:3 /abc-data /proc/sys/kernel rw - virtiofs kataShared rw",
        "0:88 / /proc rw - tmpfs tmpfs rw",
    ] {
        assert_eq!(ordered_with(&["bind"], "", &format!("60 50 {mount}\n")), Err("SPEC_FLOOR"), "{mount}");
    }
    for mount in [
        "0:50 /sys /proc/sys ro - proc proc rw",
        "0:88 / /proc/acpi ro - tmpfs tmpfs ro",
        "0:3 /abc-data/uptime /proc/uptime rw - virtiofs kataShared rw",
        "0:88 / /process rw - tmpfs tmpfs rw",
    ] {
        assert_eq!(ordered_with(&["bind"], "", &format!("60 50 {mount}\n")), Ok(()), "{mount}");
    }
}

fn check_with(more: &str) -> Result<(), &'static str> {
    let id = ContainerId::parse("abc").unwrap();
    let mut facts = Facts::new(id, PathBuf::from("/run/kata-containers/abc"), true);
    facts.protected.push(PathBuf::from("/mnt/landing one"));
    let guest = Mounts::parse(GUEST).unwrap();
    let container = Mounts::parse(&format!("{CONTAINER}{more}")).unwrap();
    check(&guest, &container, &facts).map_err(|error| error.code())
}

#[test]
fn an_ordinary_container_sees_what_it_may() {
    assert_eq!(check_with(""), Ok(()));
    assert_eq!(
        check_with("60 50 0:2 /kata-containers/sandbox/ephemeral/x /data rw - tmpfs tmpfs rw\n"),
        Ok(())
    );
}

#[test]
fn evil_host_swaps_a_source_for_a_link() {
    for mount in [
        "0:2 / /data rw - tmpfs tmpfs rw",
        "0:2 /innerkeep/sockets /data rw - tmpfs tmpfs rw",
        "0:2 /kata-containers /data rw - tmpfs tmpfs rw",
        "0:2 /kata-containers/other /data rw - tmpfs tmpfs rw",
        "0:2 /kata-containers/abc/config.json /data rw - tmpfs tmpfs rw",
        "8:0 / /data ro - ext4 /dev/sda ro",
        "8:0 /etc /data ro - ext4 /dev/sda ro",
    ] {
        assert_eq!(check_with(&format!("60 50 {mount}\n")), Err("SPEC_FLOOR"), "{mount}");
    }
}

#[test]
fn evil_host_swaps_a_source_for_what_has_landed() {
    assert_eq!(check_with("60 50 0:7 / /data ro - tmpfs tmpfs ro\n"), Err("SPEC_FLOOR"));
    assert_eq!(check_with("60 50 0:7 /weights /data ro - tmpfs tmpfs ro\n"), Err("SPEC_FLOOR"));
}

#[test]
fn evil_host_brings_a_file_system_of_the_kernel_along() {
    for kind in NEVER {
        assert_eq!(check_with(&format!("60 50 0:77 / /data/x rw - {kind} x rw\n")), Err("SPEC_FLOOR"));
    }
}

#[test]
fn lines_of_another_form_are_refused() {
    for text in ["x", "1 2 0:1 / /a\\04 rw - tmpfs x rw", "1 2 0:1 / rw - tmpfs", "\n"] {
        let read = Mounts::parse(text);
        assert!(read.is_err() || text.ends_with("tmpfs"), "{text:?}");
    }
}
