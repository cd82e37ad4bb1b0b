use super::*;

const READ: Access = Access { read: true, write: false, mknod: false };

fn lists(prepared: &Prepared) -> (Vec<String>, Vec<String>) {
    let linux = prepared.spec.linux().as_ref().unwrap();
    (linux.masked_paths().clone().unwrap(), linux.readonly_paths().clone().unwrap())
}

#[test]
fn evil_host_leaves_memory_and_firmware_visible() {
    let prepared = changed(false, |spec| {
        linux(spec).MaskedPaths.clear();
        linux(spec).ReadonlyPaths.clear();
    })
    .unwrap();
    let (masked, readonly) = lists(&prepared);
    for path in [
        "/proc/kcore",
        "/sys/firmware",
        "/sys/kernel/config",
        "/sys/kernel/security",
        "/sys/devices/virtual/misc/tdx_guest",
    ] {
        assert!(masked.iter().any(|other| other == path), "{path}");
    }
    assert!(readonly.is_empty());
}

#[test]
fn evil_host_privileged_container_in_a_tee() {
    let prepared = changed(true, |spec| {
        linux(spec).MaskedPaths.clear();
        linux(spec).ReadonlyPaths.clear();
    })
    .unwrap();
    let (masked, readonly) = lists(&prepared);
    for path in ["/proc/kcore", "/proc/keys", "/proc/sched_debug", "/proc/acpi"] {
        assert!(masked.iter().any(|other| other == path), "{path}");
    }
    for path in ["/proc/sys", "/proc/sysrq-trigger", "/proc/bus", "/proc/irq"] {
        assert!(readonly.iter().any(|other| other == path), "{path}");
    }
    let (masked, _) = lists(&changed(true, |_| ()).unwrap());
    assert_eq!(masked.iter().filter(|path| *path == "/proc/kcore").count(), 1);
}

#[test]
fn evil_host_path_to_hide_that_leads_elsewhere() {
    for path in ["", "/", "a", "/a/../b", "/a\0"] {
        assert_eq!(refused(|spec| linux(spec).MaskedPaths.push(path.to_owned())), "SPEC_VALUE");
        assert_eq!(refused(|spec| linux(spec).ReadonlyPaths.push(path.to_owned())), "SPEC_VALUE");
    }
}

#[test]
fn evil_host_device_of_the_guest_itself() {
    for (path, major, minor) in [
        ("/dev/mem", 9, 9),
        ("/dev/x", 1, 1),
        ("/dev/x", 1, 2),
        ("/dev/x", 1, 4),
        ("/dev/x", 1, 11),
        ("/dev/x", 10, 196),
        ("/dev/x", 10, 224),
        ("/dev/x", 202, 0),
        ("/dev/tpm0", 9, 9),
        ("/dev/vfio/1", 9, 9),
        ("/dev/sev-guest", 9, 9),
        ("/dev/tdx_guest", 9, 9),
    ] {
        for kind in ["c", "u"] {
            let change = |spec: &mut oci::Spec| linux(spec).Devices.push(node(path, kind, major, minor));
            assert_eq!(refused(change), "SPEC_FLOOR", "{path} {major}:{minor}");
        }
    }
    // By the numbers that the kernel gave.
    let mut facts = facts(false);
    facts.forbidden_devices = ForbiddenDevices::of_lists(" 77 sev-guest\n", "Character devices:\n240 vfio\n");
    for (major, minor) in [(10, 77), (240, 5)] {
        let mut spec = ordinary();
        linux(&mut spec).Devices.push(node("/dev/x", "c", major, minor));
        assert_eq!(prepare(&spec, &facts).unwrap_err().code(), "SPEC_FLOOR");
    }
    changed(true, |spec| linux(spec).Devices.push(node("/dev/fuse", "c", 10, 229))).unwrap();
}

#[test]
fn evil_host_device_node_in_proc() {
    for path in ["/proc/x", "/sys/x", "/", "", "dev/x", "/dev/../proc/x"] {
        assert_eq!(refused(|spec| linux(spec).Devices.push(node(path, "c", 9, 9))), "SPEC_VALUE", "{path}");
    }
    assert_eq!(refused(|spec| linux(spec).Devices.push(node("/dev/x", "x", 9, 9))), "SPEC_VALUE");
    assert_eq!(refused(|spec| linux(spec).Devices.push(node("/dev/x", "b", -1, 9))), "SPEC_VALUE");
}

#[test]
fn evil_host_device_rule_for_memory() {
    for asked in [
        vec![rule(true, "a", 0, 0, "rwm")],
        vec![rule(true, "c", -1, -1, "rwm")],
        vec![rule(true, "c", 1, 1, "rwm"), rule(true, "c", 1, 11, ""), rule(true, "c", 10, -1, "r")],
    ] {
        let prepared = changed(false, |spec| resources(spec).Devices = asked.clone()).unwrap();
        for (major, minor) in [(1, 1), (1, 2), (1, 4), (1, 11), (10, 196), (10, 224), (202, 1)] {
            for access in [READ, Access::MKNOD, Access::ALL] {
                let allowed =
                    devices::allows(&prepared.device_rules, DeviceKind::Character, major, minor, access);
                assert!(!allowed, "{major}:{minor} {access:?}");
            }
        }
        assert!(devices::allows(&prepared.device_rules, DeviceKind::Character, 1, 3, Access::ALL));
    }
    // What the kernel numbered when it started.
    let mut facts = facts(false);
    facts.forbidden_devices = ForbiddenDevices::of_lists(" 77 tdx_guest\n", "");
    let mut spec = ordinary();
    resources(&mut spec).Devices = vec![rule(true, "a", 0, 0, "rwm")];
    let prepared = prepare(&spec, &facts).unwrap();
    assert!(!devices::allows(&prepared.device_rules, DeviceKind::Character, 10, 77, READ));
    assert!(devices::allows(&prepared.device_rules, DeviceKind::Character, 10, 78, READ));
}

#[test]
fn evil_host_all_devices_in_a_tee() {
    for asked in [
        rule(true, "a", 0, 0, "rwm"),
        rule(true, "", -1, -1, ""),
        rule(true, "a", 8, -1, "r"),
        rule(true, "b", -1, -1, "rw"),
        rule(true, "b", 8, -1, "r"),
        rule(true, "c", -1, 5, "w"),
    ] {
        let change = |spec: &mut oci::Spec| resources(spec).Devices.push(asked.clone());
        assert_eq!(refused_in_a_tee(change), "SPEC_FLOOR_TEE", "{asked}");
    }
    changed(true, |spec| resources(spec).Devices.push(rule(true, "c", -1, -1, "m"))).unwrap();
    changed(true, |spec| resources(spec).Devices.push(rule(true, "b", 8, 1, "rwm"))).unwrap();
    let update = oci::LinuxResources { Devices: vec![rule(true, "a", 0, 0, "rwm")], ..Default::default() };
    let container = changed(true, |_| ()).unwrap();
    let error = prepare_resources(&update, &container, &ForbiddenDevices::default()).unwrap_err();
    assert_eq!(error.code(), "SPEC_FLOOR_TEE");
}

#[test]
fn rules_decide_by_the_last_one_and_each_access_by_itself() {
    let asked = vec![rule(true, "b", 8, 1, "rw"), rule(false, "b", 8, 1, "w"), rule(true, "c", 300, -1, "r")];
    let rules = changed(false, |spec| resources(spec).Devices = asked).unwrap().device_rules;
    let write = Access { write: true, ..Access::default() };
    let both = Access { read: true, write: true, mknod: false };
    let allows = |kind, major, minor, access| devices::allows(&rules, kind, major, minor, access);
    assert!(allows(DeviceKind::Block, 8, 1, READ));
    assert!(!allows(DeviceKind::Block, 8, 1, write));
    assert!(!allows(DeviceKind::Block, 8, 1, both));
    assert!(allows(DeviceKind::Block, 8, 1, Access::MKNOD), "for everybody");
    assert!(!allows(DeviceKind::Block, 8, 2, READ));
    assert!(!allows(DeviceKind::Character, 8, 1, READ));
    assert!(allows(DeviceKind::Character, 300, 9, READ));
    assert!(allows(DeviceKind::Character, 136, 9, both), "terminals");
    assert_eq!(Access::ALL.bits(), 7);
    assert_eq!((Access::MKNOD.bits(), READ.bits(), write.bits()), (1, 2, 4));
}

#[test]
fn evil_host_device_rule_of_another_form() {
    for asked in [
        rule(true, "x", 1, 1, "r"),
        rule(true, "c", -2, 1, "r"),
        rule(true, "c", 1, i64::MAX, "r"),
        rule(true, "c", 1, 1, "rx"),
    ] {
        assert_eq!(refused(|spec| resources(spec).Devices.push(asked.clone())), "SPEC_VALUE");
    }
}
