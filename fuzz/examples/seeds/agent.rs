//! Seeds of what reaches the guest agent.

use policy_engine::audit::{
    Audit, Entry, Facts, OperatorKey, OperatorSecret, OperatorSuite, Record, Ruling,
};
use protocol::{Message as _, oci};

use crate::{put, words};

pub fn write() {
    put(
        "agent_cmdline",
        "runtime",
        b"console=hvc0 quiet agent.log=debug agent.debug_console_vport=1026 -- x y\n",
    );
    put(
        "agent_cmdline",
        "evil",
        b"agent.log=loud agent.policy_file=/x kata.extension.a=b LD_PRELOAD=/y innerkeep.z",
    );
    words("agent_cmdline", &["agent.log=", "agent.", "kata.", "innerkeep.", " -- ", "debug", "critical"]);
    for (name, payload) in [
        ("create", &b"\x00\x0a\x02ab\x32\x0d\x12\x04\x22\x02sh\x2a\x05\x0a\x03/in"[..]),
        ("swap", b"\x25\x0a\x03\x02\xff\x01"),
        ("copy", b"\x23\x0a\x29/run/kata-containers/shared/containers/ab\x42\x02hi"),
    ] {
        put("agent_frames", name, payload);
    }
    let container = specification().write_to_bytes().expect("a message");
    put("agent_spec", "outside", &[&[0][..], &container].concat());
    put("agent_spec", "confidential", &[&[1][..], &container].concat());
    words(
        "agent_spec",
        &[
            "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ", "SCMP_ARCH_X86", "socket", "clone3",
            "/run/innerkeep", "/run/kata-containers/sandbox/shm", "/proc/self/fd/7", "/dev/mem", "/dev/vfio/1", "..", "rbind", "bind", "proc",
            "sysfs", "tmpfs", "CAP_SYS_ADMIN", "RLIMIT_NOFILE", "net.ipv4.ip_forward", "kernel.shmmax", "mount", "user", "network", "rwm", "slice:a:b",
        ],
    );
    put(
        "agent_uevent",
        "disk",
        b"add@/devices/virtio1/block/vda\0ACTION=add\0DEVPATH=/devices/virtio1/block/vda\0SUBSYSTEM=block\0DEVNAME=vda\0SEQNUM=7\0",
    );
    put("agent_uevent", "queue", b"remove@/a/b\0ACTION=remove\0DEVPATH=/a/b\0SUBSYSTEM=queues\0");
    let names = ["ACTION=", "DEVPATH=/", "SUBSYSTEM=block", "DEVNAME=", "add@/", "change@/", "..", "\\x00"];
    words("agent_uevent", &names);
    audit();
    let frame = |kind: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("a short one");
        [&length.to_be_bytes()[..], &1_u32.to_be_bytes(), &[kind, 0], payload].concat()
    };
    put("ttrpc_frames", "two", &[&[5][..], &frame(1, b"request"), &frame(2, b"")].concat());
    put("ttrpc_frames", "cut", &[&[14][..], &frame(1, b"request")[..13]].concat());
}

/// A short audit: its frames, one of its records, a head.
fn audit() {
    let secret = OperatorSecret::generate(OperatorSuite::XWing).expect("random bytes");
    let key = OperatorKey::parse(OperatorSuite::XWing, &secret.public_bytes()).expect("a key");
    let audit = Audit::start(Facts::default(), Some(key)).expect("an audit");
    let denied = Entry {
        endpoint: protocol::Endpoint::ExecProcess,
        ruling: Ruling::Denied,
        code: "POLICY_DENIED",
        reasons: &[],
        trace: "7",
    };
    let _ = audit.decided(&denied);
    put("audit_records", "frames", &audit.read(0, 1 << 20).expect("records").frames);
    put("audit_records", "genesis", audit.genesis());
    put("audit_records", "head", &audit.head(&[7; 16]).expect("a head"));
    put("audit_records", "altered", &[0, 16, 1]);
    put("audit_records", "altered-2", &[1, 0, 0x80]);
    let policy = Record::Policy { time_ms: 1, digest: [2; 32] };
    put("audit_records", "policy", &policy.encode());
    let outcome = Record::Outcome { time_ms: 1, of: 2, error: Some("AGENT_X".to_owned()) };
    put("audit_records", "outcome", &outcome.encode());
    words("audit_records", &["innerkeep audit v1", "/grpc.AgentService/ExecProcess", "POLICY_DENIED"]);
}

/// A small container with something of everything.
fn specification() -> oci::Spec {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let capabilities = texts(&["CAP_CHOWN", "KILL"]);
    let mount = |destination: &str, type_: &str, source: &str| oci::Mount {
        destination: destination.to_owned(),
        type_: type_.to_owned(),
        source: source.to_owned(),
        options: texts(&["nosuid"]),
        ..Default::default()
    };
    let argument = oci::LinuxSeccompArg { Index: 1, Value: 3, Op: "SCMP_CMP_EQ".to_owned(), ..Default::default() };
    let linux = oci::Linux {
        Namespaces: vec![oci::LinuxNamespace { Type: "mount".to_owned(), ..Default::default() }],
        Sysctl: [("net.core.somaxconn".to_owned(), "5".to_owned())].into(),
        CgroupsPath: "/kubepods/a".to_owned(),
        MaskedPaths: texts(&["/proc/keys"]),
        Devices: vec![oci::LinuxDevice {
            Path: "/dev/fuse".to_owned(),
            Type: "c".to_owned(),
            Major: 10,
            Minor: 229,
            ..Default::default()
        }],
        Resources: Some(oci::LinuxResources {
            Devices: vec![oci::LinuxDeviceCgroup {
                Allow: true,
                Type: "b".to_owned(),
                Major: 8,
                Minor: 1,
                Access: "rw".to_owned(),
                ..Default::default()
            }],
            Memory: Some(oci::LinuxMemory { Limit: 1 << 20, ..Default::default() }).into(),
            ..Default::default()
        })
        .into(),
        Seccomp: Some(oci::LinuxSeccomp {
            DefaultAction: "SCMP_ACT_ERRNO".to_owned(),
            Architectures: texts(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]),
            Syscalls: vec![oci::LinuxSyscall {
                Names: texts(&["read", "socket"]),
                Action: "SCMP_ACT_ALLOW".to_owned(),
                Args: vec![argument],
                ..Default::default()
            }],
            ..Default::default()
        })
        .into(),
        ..Default::default()
    };
    oci::Spec {
        Version: "1.1.0".to_owned(),
        Process: Some(oci::Process {
            Args: texts(&["/bin/sh"]),
            Env: texts(&["A=b"]),
            Cwd: "/".to_owned(),
            Capabilities: Some(oci::LinuxCapabilities {
                Bounding: capabilities.clone(),
                Effective: capabilities.clone(),
                Permitted: capabilities,
                ..Default::default()
            })
            .into(),
            ..Default::default()
        })
        .into(),
        Root: Some(oci::Root { Path: "/run/kata-containers/abc/rootfs".to_owned(), ..Default::default() }).into(),
        Mounts: vec![
            mount("/proc", "proc", "proc"),
            mount("/sys", "sysfs", "sysfs"),
            mount("/data", "bind", "/run/kata-containers/shared/containers/data"),
        ],
        Linux: Some(linux).into(),
        ..Default::default()
    }
}
