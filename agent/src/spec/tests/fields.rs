//! No field of the wire is lost without a word: each one, altered, alters what the engine is given or is refused, or stands in a list with its
//! reason.

use protobuf::reflect::{ReflectValueBox, RuntimeFieldType, RuntimeType};
use protobuf::{MessageDyn, MessageFull};

use super::*;

/// What has no effect, and why.
const IGNORED: [(&str, &str); 14] = [
    ("Process.User.Username", "the number decides"),
    ("Process.Rlimits[0].Type", "checked below: it is refused"),
    ("Root.Path", "the bundle's rootfs is the root; `Bundle::put_root` decides what is mounted there"),
    ("Linux.Namespaces[0].Path", "the sandbox's namespaces are joined, never the host's choice"),
    ("Linux.Namespaces[1].Path", "as above"),
    ("Linux.Seccomp.Architectures[1]", "of another machine: what it would allow cannot run here"),
    ("Linux.Seccomp.Syscalls[0].Args[0].ValueTwo", "of masks only"),
    ("Linux.Resources.Memory.Kernel", "refused above 0, no limit below"),
    ("Linux.Resources.Memory.KernelTCP", "refused above 0, no limit below"),
    ("Linux.Resources.CPU.RealtimeRuntime", "refused above 0, no limit below"),
    ("Mounts[4].type", "its options make it a bind"),
    ("Mounts[5].type", "as above"),
    ("Mounts[6].type", "as above"),
    ("Version", "every 1.x is converted to the engine's"),
];

/// A specification that has something everywhere it may.
fn full() -> oci::Spec {
    let mut spec = ordinary();
    let first = process(&mut spec);
    first.ConsoleSize = Some(oci::Box { Height: 3, Width: 4, ..Default::default() }).into();
    first.Rlimits =
        vec![oci::POSIXRlimit { Type: "RLIMIT_NPROC".to_owned(), Soft: 3, Hard: 10, ..Default::default() }];
    let capabilities = first.Capabilities.mut_or_insert_default();
    capabilities.Ambient = strings(&["CAP_KILL"]);
    capabilities.Inheritable = strings(&["CAP_KILL", "CAP_CHOWN"]);
    let hook = oci::Hook {
        Path: "/bin/hook".to_owned(),
        Args: strings(&["hook"]),
        Env: strings(&["A=b"]),
        Timeout: 4,
        ..Default::default()
    };
    let list = vec![hook];
    spec.Hooks = Some(oci::Hooks {
        Prestart: list.clone(),
        Poststart: list.clone(),
        Poststop: list.clone(),
        CreateRuntime: list.clone(),
        CreateContainer: list.clone(),
        StartContainer: list,
        ..Default::default()
    })
    .into();
    let argument =
        oci::LinuxSeccompArg { Index: 1, Value: 3, Op: "SCMP_CMP_EQ".to_owned(), ..Default::default() };
    let mut call = oci::LinuxSyscall {
        Names: strings(&["read", "write"]),
        Action: "SCMP_ACT_ERRNO".to_owned(),
        Args: vec![argument],
        ..Default::default()
    };
    call.set_errnoret(3);
    let part = linux(&mut spec);
    part.Seccomp = Some(oci::LinuxSeccomp {
        DefaultAction: "SCMP_ACT_ALLOW".to_owned(),
        Architectures: strings(&["SCMP_ARCH_X86", "SCMP_ARCH_RISCV64"]),
        Flags: strings(&["SECCOMP_FILTER_FLAG_LOG"]),
        Syscalls: vec![call],
        ..Default::default()
    })
    .into();
    part.Sysctl = [("net.core.somaxconn".to_owned(), "5".to_owned())].into();
    part.RootfsPropagation = "slave".to_owned();
    part.Devices.push(node("/dev/fuse", "c", 10, 229));
    let throttle = vec![oci::LinuxThrottleDevice { Major: 8, Minor: 1, Rate: 3, ..Default::default() }];
    let weight = oci::LinuxWeightDevice { Major: 8, Minor: 2, Weight: 20, ..Default::default() };
    part.Resources = Some(oci::LinuxResources {
        Devices: vec![rule(true, "c", 300, 3, "r")],
        Memory: Some(oci::LinuxMemory { Limit: 30, Reservation: 20, Swap: 40, ..Default::default() }).into(),
        CPU: Some(oci::LinuxCPU {
            Shares: 3,
            Quota: 4,
            Period: 5,
            Cpus: "0".to_owned(),
            Mems: "0".to_owned(),
            ..Default::default()
        })
        .into(),
        Pids: Some(oci::LinuxPids { Limit: 5, ..Default::default() }).into(),
        BlockIO: Some(oci::LinuxBlockIO {
            Weight: 20,
            WeightDevice: vec![weight],
            ThrottleReadBpsDevice: throttle.clone(),
            ThrottleWriteBpsDevice: throttle.clone(),
            ThrottleReadIOPSDevice: throttle.clone(),
            ThrottleWriteIOPSDevice: throttle,
            ..Default::default()
        })
        .into(),
        HugepageLimits: vec![oci::LinuxHugepageLimit {
            Pagesize: "2MB".to_owned(),
            Limit: 4,
            ..Default::default()
        }],
        Network: Some(oci::LinuxNetwork { Priorities: vec![], ..Default::default() }).into(),
        ..Default::default()
    })
    .into();
    spec
}

/// All ways to alter a message by one field, each with its place.
fn alterations(message: &dyn MessageDyn, at: &str) -> Vec<(String, Box<dyn MessageDyn>)> {
    let mut all = Vec::new();
    for field in message.descriptor_dyn().fields() {
        let place = if at.is_empty() { field.name().to_owned() } else { format!("{at}.{}", field.name()) };
        let clone = || message.clone_box();
        match field.runtime_field_type() {
            RuntimeFieldType::Singular(RuntimeType::Message(descriptor)) => {
                let old = field.get_message(message).clone_box();
                if field.has_field(message) {
                    let mut gone = clone();
                    field.clear_field(&mut *gone);
                    all.push((format!("{place}?"), gone));
                }
                // Its own fields; with `Solaris` and `Windows` their presence.
                let mut there = clone();
                field.set_singular_field(&mut *there, ReflectValueBox::Message(descriptor.new_instance()));
                if !field.has_field(message) && ["Solaris", "Windows"].contains(&field.name()) {
                    all.push((place.clone(), there));
                    continue;
                }
                for (place, altered) in alterations(&*old, &place) {
                    let mut outer = clone();
                    field.set_singular_field(&mut *outer, ReflectValueBox::Message(altered));
                    all.push((place, outer));
                }
            }
            RuntimeFieldType::Singular(_) => {
                let old = field.get_singular_field_or_default(message).to_box();
                for new in other_values(&old) {
                    let mut altered = clone();
                    field.set_singular_field(&mut *altered, new);
                    all.push((place.clone(), altered));
                }
            }
            RuntimeFieldType::Repeated(element) => {
                let list = field.get_repeated(message);
                for index in 0..list.len() {
                    let place = format!("{place}[{index}]");
                    let old = list.get(index);
                    let news = match element {
                        RuntimeType::Message(_) => {
                            let inner = old.to_message().unwrap();
                            alterations(&*inner, &place)
                                .into_iter()
                                .map(|(place, altered)| (place, ReflectValueBox::Message(altered)))
                                .collect()
                        }
                        _ => other_values(&old.to_box())
                            .into_iter()
                            .map(|new| (place.clone(), new))
                            .collect::<Vec<_>>(),
                    };
                    for (place, new) in news {
                        let mut altered = clone();
                        field.mut_repeated(&mut *altered).set(index, new);
                        all.push((place, altered));
                    }
                }
                let mut more = clone();
                let new = match element {
                    RuntimeType::Message(descriptor) => ReflectValueBox::Message(descriptor.new_instance()),
                    RuntimeType::U32 => ReflectValueBox::U32(77),
                    _ => ReflectValueBox::String("/more=1".to_owned()),
                };
                field.mut_repeated(&mut *more).push(new);
                all.push((format!("{place}+"), more));
            }
            RuntimeFieldType::Map(..) => {
                let mut more = clone();
                let text = |text: &str| ReflectValueBox::String(text.to_owned());
                field.mut_map(&mut *more).insert(text("net.more"), text("1"));
                all.push((format!("{place}+"), more));
            }
        }
    }
    all
}

fn other_values(old: &ReflectValueBox) -> Vec<ReflectValueBox> {
    match old {
        ReflectValueBox::Bool(old) => vec![ReflectValueBox::Bool(!old)],
        ReflectValueBox::U32(old) => vec![ReflectValueBox::U32(old + 1)],
        ReflectValueBox::U64(old) => vec![ReflectValueBox::U64(old + 1)],
        ReflectValueBox::I32(old) => vec![ReflectValueBox::I32(old + 1)],
        ReflectValueBox::I64(old) => vec![ReflectValueBox::I64(old + 1)],
        ReflectValueBox::String(old) => vec![ReflectValueBox::String(format!("{old}x"))],
        other => panic!("a field of a kind that has no other value here: {other:?}"),
    }
}

/// What the engine would be given, as text: sets of hashes in order.
fn seen(spec: &oci::Spec) -> Result<String, SpecError> {
    let prepared = prepare(spec, &facts(false))?;
    let mut json = serde_json::to_value(&prepared.spec).unwrap();
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        if let Some(serde_json::Value::Array(set)) = json.pointer_mut(&format!("/process/capabilities/{set}"))
        {
            set.sort_by_key(ToString::to_string);
        }
    }
    Ok(format!(
        "{json}{:?}{:?}{:?}{:?}",
        prepared.seccomp, prepared.device_rules, prepared.cgroup_path, prepared.net_sysctls
    ))
}

#[test]
fn no_field_is_lost_without_a_word() {
    let spec = full();
    let before = seen(&spec).unwrap();
    assert_eq!(before, seen(&spec).unwrap());
    let alterations = alterations(&spec, "");
    assert!(alterations.len() > 200, "{}", alterations.len());
    let mut lost = Vec::new();
    for (place, altered) in &alterations {
        let altered = altered.downcast_ref::<oci::Spec>().unwrap();
        let without_effect = seen(altered).is_ok_and(|after| after == before);
        if without_effect && !IGNORED.iter().any(|(ignored, _)| ignored == place) {
            lost.push(place.as_str());
        }
    }
    // An empty message, or one without content, is none.
    lost.retain(|place| !["Linux.Resources.Network?", "Linux.Resources.Network"].contains(place));
    assert_eq!(lost, Vec::<&str>::new(), "neither converted nor refused nor listed");
    let descriptor = oci::Spec::descriptor();
    assert!(descriptor.fields().count() >= 10);
}
