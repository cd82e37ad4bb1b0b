//! Specifications of containers: whatever is taken satisfies the floor when it is looked at again, by another reading of it; converting the same
//! twice gives the same; the filter is one that the kernel takes.
//!
//! Input: one byte (inside a confidential guest or not), then an `oci.Spec` of the wire.

#![no_main]

use std::path::PathBuf;

use agent::spec::{Access, DeviceKind, Facts, ForbiddenDevices, Prepared, SockFilter, devices, prepare, prepare_process, process_identity};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;
use protocol::ids::ContainerId;
use protocol::{Message as _, oci};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let [flags, message @ ..] = data else { return };
    let Ok(spec) = oci::Spec::parse_from_bytes(message) else { return };
    let tee = flags & 1 != 0;
    let id = ContainerId::parse("abc").expect("an id");
    let mut facts = Facts::new(id, PathBuf::from("/run/kata-containers/abc"), tee);
    facts.protected.push(PathBuf::from("/mnt/landing"));
    facts.forbidden_devices = ForbiddenDevices::of_lists(" 77 sev-guest\n", "Character devices:\n240 vfio\n");
    let Some(prepared) = bounded(data.len(), || prepare(&spec, &facts)).ok() else { return };
    let json = serde_json::to_value(&prepared.spec).expect("it is written as JSON for the engine");
    floor(&json, &prepared, tee);
    process_identity(&prepared).expect("there is a process");
    if let Some(process) = spec.Process.as_ref() {
        prepare_process(process, &prepared).expect("the first process would be one of the others");
    }
    if let Some(program) = &prepared.seccomp {
        valid(&program.instructions);
    }
    let again = prepare(&spec, &facts).expect("it was taken");
    assert_eq!(again.device_rules, prepared.device_rules);
    assert_eq!(again.seccomp, prepared.seccomp);
});

fn texts<'a>(json: &'a Value, pointer: &str) -> Vec<&'a str> {
    json.pointer(pointer).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn floor(json: &Value, prepared: &Prepared, tee: bool) {
    for mount in json["mounts"].as_array().expect("mounts") {
        let destination = mount["destination"].as_str().expect("a destination");
        assert!(destination.starts_with('/') && destination != "/" && !destination.split('/').any(|part| part == ".."));
        let kind = mount["type"].as_str().expect("a type");
        assert!(["bind", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "hugetlbfs"].contains(&kind), "{kind}");
        assert!(kind != "proc" || destination == "/proc");
        if kind == "bind" {
            source(mount["source"].as_str().expect("a source"));
        } else {
            let options: Vec<&str> = mount["options"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            assert!(!options.iter().any(|option| ["bind", "rbind", "remount"].contains(option)));
        }
    }
    let kinds: Vec<&str> = json["linux"]["namespaces"].as_array().expect("namespaces").iter().filter_map(|one| one["type"].as_str()).collect();
    assert_eq!(kinds, ["mount", "cgroup", "ipc", "uts", "pid"]);
    assert!(json["linux"]["namespaces"].as_array().is_some_and(|all| all.iter().all(|one| one.get("path").is_none())), "no path of the host's");
    let masked = texts(json, "/linux/maskedPaths");
    for path in ["/proc/kcore", "/sys/firmware", "/sys/kernel/config", "/sys/devices/virtual/misc/tdx_guest"] {
        assert!(masked.contains(&path));
    }
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        let set = json.pointer(&format!("/process/capabilities/{set}")).expect("five sets");
        let has = |name| set.as_array().is_some_and(|set| set.iter().any(|other| other == name));
        assert!(!tee || !["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_BPF"].into_iter().any(has));
    }
    for device in json["linux"]["devices"].as_array().expect("devices") {
        let numbers = (device["type"].as_str(), device["major"].as_i64(), device["minor"].as_i64());
        assert!(![(1, 1), (1, 2), (1, 4), (1, 11), (10, 77), (10, 196), (10, 224)]
            .iter()
            .any(|(major, minor)| numbers == (Some("c"), Some(*major), Some(*minor))));
    }
    for (major, minor) in [(1, 1), (1, 11), (10, 77), (10, 196), (10, 224), (240, 0), (240, 9)] {
        for access in [Access { read: true, ..Access::default() }, Access::MKNOD] {
            assert!(!devices::allows(&prepared.device_rules, DeviceKind::Character, major, minor, access));
        }
    }
    let read = Access { read: true, ..Access::default() };
    assert!(!tee || !devices::allows(&prepared.device_rules, DeviceKind::Block, 4_000_000_000, 4_000_000_000, read) || exact(prepared));
    let cgroup = json["linux"]["cgroupsPath"].as_str().expect("a group");
    assert!(cgroup.len() > 1 && cgroup.starts_with('/') && !cgroup.split('/').any(|part| part == ".."));
    assert!(prepared.net_sysctls.keys().all(|name| name.starts_with("net/") && !name.contains("..")));
    assert!(tee || json.get("hooks").is_none_or(Value::is_object));
    assert!(!tee || json.get("hooks").is_none(), "no program of the host's choice");
}

/// Whether a rule names the device of the question above by its numbers.
fn exact(prepared: &Prepared) -> bool {
    prepared.device_rules.iter().any(|rule| rule.allow && rule.major == Some(4_000_000_000) && rule.minor == Some(4_000_000_000))
}

fn source(path: &str) {
    let below = |tree: &str| path == tree || path.strip_prefix(tree).is_some_and(|rest| rest.starts_with('/'));
    for tree in ["/proc", "/sys", "/run/innerkeep", "/run/confidential-containers", "/mnt/landing", "/dev/vfio", "/dev/mem", "/dev/kmsg"] {
        assert!(!below(tree), "{path}");
    }
    for tree in ["/", "/run", "/var/run", "/mnt", "/dev", "/run/kata-containers", "/run/kata-containers/sandbox"] {
        assert_ne!(path, tree);
    }
    let shared = ["/run/kata-containers/shared/containers/", "/run/kata-containers/sandbox/"];
    assert!(!below("/run/kata-containers") || shared.iter().any(|tree| path.starts_with(tree)), "{path}");
}

/// As the kernel checks a program: known instructions, jumps forward and inside, a return at the end.
fn valid(program: &[SockFilter]) {
    assert!(!program.is_empty() && program.len() <= 4096);
    for (at, instruction) in program.iter().enumerate() {
        let left = program.len() - at - 1;
        match instruction.code {
            0x20 => assert!(instruction.k < 64 && instruction.k % 4 == 0),
            0x54 | 0x06 => {}
            0x05 => assert!((instruction.k as usize) < left),
            0x15 | 0x25 | 0x35 => assert!(usize::from(instruction.jt) < left && usize::from(instruction.jf) < left),
            other => panic!("instruction {other:#x}"),
        }
    }
    assert_eq!(program.last().map(|last| last.code), Some(0x06));
}
