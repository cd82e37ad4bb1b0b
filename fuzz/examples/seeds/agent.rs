//! Seeds of what reaches the guest agent.

use policy_engine::audit::{
    Audit, Entry, Facts, OperatorKey, OperatorSecret, OperatorSuite, Record, Ruling,
};

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
    let policy = Record::Policy { time_ms: 1, digest: [2; 32] };
    put("audit_records", "policy", &policy.encode());
    let outcome = Record::Outcome { time_ms: 1, of: 2, error: Some("AGENT_X".to_owned()) };
    put("audit_records", "outcome", &outcome.encode());
    words("audit_records", &["innerkeep audit v1", "/grpc.AgentService/ExecProcess", "POLICY_DENIED"]);
}
