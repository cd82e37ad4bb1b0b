//! `innerkeep-agent` as process 1 of a guest: what it makes of the machine, whom it serves, what the host's command line and disks can do,
//! and how it ends.

#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use initdata::{Algorithm, Package, Packed};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use tests::programs::{Programs, User};
use tests::tee::Kind;
use tests::vm::{self, boot, shell};
use tests::work::Work;
use xtask::vm::{End, Guest, Init, Service, Spec, Tools};

const PORT: u32 = 1024;
const AGENT: &str = "innerkeep-agent";
const TERMINATE: Duration = Duration::from_secs(30);

fn spec(programs: &Programs, also: &[&str]) -> Spec {
    vm::spec(programs, &[&[AGENT], also].concat()).init(Init::Agent).vsock()
}

/// A guest whose agent serves.
fn serving(spec: Spec) -> Guest {
    let guest = boot(spec);
    guest.wait_serial("\"msg\":\"serving\"", Duration::from_secs(30)).unwrap();
    guest
}

/// Lines of the agent on a console.
fn lines(serial: &str) -> Vec<Value> {
    let lines = serial.lines().filter_map(|line| serde_json::from_str::<Value>(line.trim()).ok());
    lines.filter(|line| line["source"] == "agent").collect()
}

#[track_caller]
fn line(serial: &str, text: &str) -> Value {
    let found = lines(serial).into_iter().find(|line| line["msg"] == text);
    found.unwrap_or_else(|| panic!("no line {text:?} in:\n{serial}"))
}

/// Boots a guest whose agent does not start to serve, and returns its console. It has switched itself off.
#[track_caller]
fn refusal(work: &Work, spec: Spec) -> String {
    let tools = Tools::obtain(&|text| eprintln!("{text}")).unwrap();
    let file = work.join("serial.log");
    // It may be over before the witness takes commands.
    if let Ok(mut guest) = spec.keep_serial(&file).boot(&tools) {
        assert_eq!(guest.wait_end(Duration::from_secs(60)).unwrap(), End::PoweredOff, "{}", guest.serial());
    }
    let serial = std::fs::read_to_string(&file).unwrap();
    assert!(serial.contains("reboot: Power down"), "{serial}");
    assert!(!serial.contains("Kernel panic"), "{serial}");
    assert!(!serial.contains("\"msg\":\"serving\""), "{serial}");
    serial
}

/// The machine ends with this code as the last word.
#[track_caller]
fn assert_refused(work: &Work, spec: Spec, code: &str) -> String {
    let serial = refusal(work, spec);
    let last = lines(&serial).pop().unwrap_or_else(|| panic!("no line of the agent in:\n{serial}"));
    assert_eq!(last["msg"], "failed, the machine is powered off", "{serial}");
    assert_eq!((last["code"].as_str(), last["level"].as_str()), (Some(code), Some("CRIT")), "{serial}");
    serial
}

#[track_caller]
fn assert_off(mut guest: Guest) -> String {
    let end = guest.wait_end(TERMINATE).unwrap();
    let serial = guest.serial();
    assert_eq!(end, End::PoweredOff, "{serial}");
    assert!(serial.contains("reboot: Power down") && !serial.contains("Kernel panic"), "{serial}");
    serial
}

/// A second ttrpc, as small as a client can be.
mod ttrpc {
    use super::*;

    pub struct Answer {
        pub code: u64,
        pub message: String,
        pub payload: Vec<u8>,
    }

    pub fn request(call: u32, service: &str, method: &str) -> Vec<u8> {
        let body = [bytes(1, service.as_bytes()), bytes(2, method.as_bytes())].concat();
        let length = u32::try_from(body.len()).unwrap();
        [&length.to_be_bytes()[..], &call.to_be_bytes(), &[1, 0], &body].concat()
    }

    /// All fields of these tests are shorter than 128 bytes.
    fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
    }

    /// Fields of a message: numbers and bytes.
    fn fields(mut message: &[u8]) -> Vec<(u8, u64, Vec<u8>)> {
        let mut fields = Vec::new();
        while let [key, value, rest @ ..] = message {
            let (number, value) = (key >> 3, *value);
            assert!(value < 128, "small fields");
            if key & 7 == 0 {
                fields.push((number, u64::from(value), Vec::new()));
                message = rest;
            } else {
                let (own, rest) = rest.split_at(usize::from(value));
                fields.push((number, 0, own.to_vec()));
                message = rest;
            }
        }
        fields
    }

    fn field(message: &[u8], number: u8) -> (u64, Vec<u8>) {
        let found = fields(message).into_iter().find(|(found, ..)| *found == number);
        found.map(|(_, value, bytes)| (value, bytes)).unwrap_or_default()
    }

    pub fn text(message: &[u8], number: u8) -> String {
        String::from_utf8(field(message, number).1).unwrap()
    }

    pub fn receive(from: &mut UnixStream, call: u32) -> Answer {
        let mut header = [0; 10];
        from.read_exact(&mut header).unwrap();
        let length = u32::from_be_bytes(*header.first_chunk().unwrap());
        assert_eq!(header[4..8], call.to_be_bytes());
        assert_eq!(header[8], 2, "a response");
        let mut body = vec![0; length as usize];
        from.read_exact(&mut body).unwrap();
        let (status, payload) = (field(&body, 1).1, field(&body, 2).1);
        Answer { code: field(&status, 1).0, message: text(&status, 2), payload }
    }

    pub fn call(on: &mut UnixStream, call: u32, service: &str, method: &str) -> Answer {
        on.write_all(&request(call, service, method)).unwrap();
        receive(on, call)
    }
}

fn connect(guest: &Guest) -> UnixStream {
    let stream = guest.vsock(PORT, Duration::from_secs(30)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

#[track_caller]
fn assert_healthy(guest: &Guest) {
    let answer = ttrpc::call(&mut connect(guest), 1, "grpc.Health", "Check");
    assert_eq!((answer.code, answer.payload), (0, vec![8, 1]));
}

/// What this process sees of process 1.
#[track_caller]
fn assert_bare(guest: &Guest) {
    assert_eq!(shell(guest, "wc -c < /proc/1/environ").trim(), "0");
    assert_eq!(shell(guest, "tr '\\0' '|' < /proc/1/cmdline"), "innerkeep-agent|");
}

// COMPAT: Check, Version same: over vsock
#[test]
fn process_1_makes_the_machine_serves_the_host_and_ends_in_order() {
    let programs = Programs::built();
    let spec = spec(&programs, &[]).file("/etc/hostname", 0o644, "guest-under-test\n");
    let guest = serving(spec.plan(|plan| plan.keep_mounts = false));

    // Whoever is started by the witness sees what process 1 mounted, beside what the harness had.
    let table = shell(&guest, "cat /proc/1/mountinfo");
    for (target, kind, flags) in [
        ("/proc", "proc", "rw,nosuid,nodev,noexec"),
        ("/sys", "sysfs", "rw,nosuid,nodev,noexec"),
        ("/dev", "devtmpfs", "rw,nosuid"),
        ("/dev/pts", "devpts", "rw,nosuid,noexec"),
        ("/dev/shm", "tmpfs", "rw,nosuid,nodev"),
        ("/run", "tmpfs", "rw,nosuid,nodev"),
        ("/sys/fs/cgroup", "cgroup2", "rw,nosuid,nodev,noexec"),
        ("/sys/kernel/security", "securityfs", "rw,nosuid,nodev,noexec"),
    ] {
        let row = table.lines().find(|line| line.split(' ').nth(4) == Some(target));
        let row = row.unwrap_or_else(|| panic!("{target} is not mounted:\n{table}"));
        assert!(row.split(' ').nth(5).unwrap().starts_with(flags), "{row}");
        assert!(row.contains(&format!(" - {kind} ")), "{row}");
    }
    let modes = shell(&guest, "stat -c '%a %n' /dev/shm /run; readlink /dev/ptmx");
    assert_eq!(modes, "1777 /dev/shm\n755 /run\n/dev/pts/ptmx\n");
    let handed = shell(&guest, "cat /sys/fs/cgroup/cgroup.subtree_control");
    for controller in shell(&guest, "cat /sys/fs/cgroup/cgroup.controllers").split_whitespace() {
        assert!(handed.split_whitespace().any(|found| found == controller), "{controller}: {handed}");
    }
    assert_eq!(shell(&guest, "cat /sys/class/net/lo/flags; uname -n"), "0x9\nguest-under-test\n");
    for (path, value) in [
        ("/proc/sys/kernel/core_pattern", ""),
        ("/proc/sys/kernel/core_uses_pid", "0"),
        ("/proc/sys/kernel/sysrq", "0"),
        ("/proc/sys/kernel/kexec_load_disabled", "1"),
        ("/proc/sys/kernel/unprivileged_bpf_disabled", "1"),
        ("/proc/sys/kernel/io_uring_disabled", "2"),
        ("/proc/sys/kernel/panic", "-1"),
    ] {
        assert_eq!(shell(&guest, &format!("cat {path}")).trim(), value, "{path}");
    }
    let limits = shell(&guest, "grep 'Max core file size' /proc/1/limits");
    assert_eq!(limits.split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"]);
    assert_bare(&guest);

    // Orphans of others, many at once.
    shell(&guest, "for n in $(seq 60); do (sleep 0.2 &); done");
    let zombies = "sleep 0.5; for n in $(seq 50); do \
                   grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null || exit 0; sleep 0.2; done; exit 1";
    shell(&guest, zombies);

    let mut stream = connect(&guest);
    let version = ttrpc::call(&mut stream, 1, "grpc.Health", "Version");
    assert_eq!((version.code, ttrpc::text(&version.payload, 1)), (0, "0.0.1".to_owned()));
    assert_eq!(ttrpc::text(&version.payload, 2), "4.1.0");
    // There is no policy here.
    let denied = ttrpc::call(&mut stream, 3, "grpc.AgentService", "ExecProcess");
    let text = "\"ExecProcessRequest is blocked by policy: ExecProcessRequest [POLICY_ABSENT, trace 0]\"";
    assert_eq!((denied.code, denied.message.as_str()), (7, text));
    let unknown = ttrpc::call(&mut stream, 5, "grpc.Nothing", "Check");
    assert_eq!((unknown.code, unknown.message.as_str()), (3, "grpc.Nothing service does not exist"));

    // Runtimes match on the numbers of calls, which need not come back in order.
    let calls: Vec<u32> = (0..20).map(|n| 7 + 2 * n).collect();
    let mut streams: Vec<UnixStream> = calls.iter().map(|_| connect(&guest)).collect();
    for (stream, call) in streams.iter_mut().zip(&calls) {
        stream.write_all(&ttrpc::request(*call, "grpc.Health", "Check")).unwrap();
    }
    for (stream, call) in streams.iter_mut().zip(&calls).rev() {
        assert_eq!(ttrpc::receive(stream, *call).payload, [8, 1]);
    }

    // The machine may be off before the command can tell how it ended.
    let _ = guest.sh("kill -TERM 1");
    let serial = assert_off(guest);
    assert_eq!(line(&serial, "stopping")["signal"], "SIGTERM");
    assert_eq!(lines(&serial).pop().unwrap()["msg"], "stopped, the machine is powered off");
    let first = lines(&serial).remove(0);
    assert_eq!(
        (first["msg"].as_str(), first["tee"].as_str()),
        (Some("innerkeep-agent starts"), Some("none"))
    );
    for key in ["level", "ts", "version", "pid", "name", "subsystem"] {
        assert!(first[key].is_string(), "{key}: {first}");
    }
}

#[test]
fn evil_host_resets_vsock_connections() {
    let programs = Programs::built();
    let guest = serving(spec(&programs, &[]));
    let whole = ttrpc::request(1, "grpc.Health", "Check");
    for round in 0..30 {
        let mut stream = connect(&guest);
        // Inside the header, inside the payload, and before the answer.
        let cut = [3, 15, whole.len()][round % 3];
        stream.write_all(&whole[..cut]).unwrap();
        drop(stream);
    }
    // A frame that announces more than is taken is answered, not stored.
    let mut stream = connect(&guest);
    let length = (4_u32 << 20) + 1;
    stream.write_all(&[&length.to_be_bytes()[..], &9_u32.to_be_bytes(), &[1, 0]].concat()).unwrap();
    stream.write_all(&vec![0; length as usize]).unwrap();
    let answer = ttrpc::receive(&mut stream, 9);
    assert_eq!(answer.code, 3, "{}", answer.message);
    assert_healthy(&guest);
    guest.power_off().unwrap();
}

/// Words that nobody vouches for, against initdata that nobody vouches for.
#[test]
fn evil_cmdline_sets_insecure_flag() {
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let disk = work.write("initdata.img", packed("host").image());
    let words = "agent.insecure=unbound-initdata insecure=unbound-initdata agent.unbound-initdata --insecure-unbound-initdata \
                 agent.config_file=/etc/evil.toml agent.policy_file=/etc/evil.rego agent.devmode agent.debug_console \
                 agent.guest_components_procs=none agent.log=loud";
    let spec = spec(&programs, &[]).disk(&disk).cmdline(words).file(
        "/etc/evil.toml",
        0o644,
        "insecure = [\"unbound-initdata\"]\n",
    );
    let serial = assert_refused(&work, spec, "INITDATA_NO_REGISTER");
    let first = lines(&serial).remove(0);
    assert_eq!(first["msg"], "innerkeep-agent starts");
    assert!(first.get("insecure").is_none(), "{first}");
    let ignored = line(&serial, "kernel command line: words without effect");
    let names = "agent.insecure agent.unbound-initdata agent.config_file agent.policy_file agent.devmode \
                 agent.debug_console agent.guest_components_procs";
    assert_eq!((ignored["ignored"].as_str(), &ignored["count"]), (Some(names), &json!(7)), "{ignored}");
    assert_eq!(ignored["malformed"], "agent.log");
    assert!(!serial.contains("initdata bound"), "{serial}");
}

/// The kernel makes environment variables of words that it does not know. The end: a fault of process 1.
#[test]
fn evil_cmdline_ld_preload() {
    let programs = Programs::built();
    let words = "LD_PRELOAD=/lib/evil.so LD_LIBRARY_PATH=/lib GLIBC_TUNABLES=glibc.malloc.perturb=85 TOKIO_WORKER_THREADS=99 \
                 RUST_LOG=trace KATA_AGENT_SERVER_ADDR=unix:///run/evil.sock KATA_AGENT_LOG_LEVEL=trace";
    let guest = serving(spec(&programs, &[]).cmdline(words).file("/lib/evil.so", 0o755, "not a library"));
    // The kernel did hand them over: the witness was started by its first program.
    assert!(shell(&guest, "cat /proc/cmdline").contains("LD_PRELOAD=/lib/evil.so"));
    assert_bare(&guest);
    assert_eq!(shell(&guest, "grep -c evil /proc/1/maps || true").trim(), "0");
    assert_eq!(shell(&guest, "ls /run | grep -c evil || true").trim(), "0");
    assert_healthy(&guest);
    assert!(lines(&guest.serial()).iter().all(|line| line["level"] != "DEBG" && line["level"] != "TRCE"));

    // The machine may be off before the command can tell how it ended.
    let _ = guest.sh("kill -SEGV 1");
    let serial = assert_off(guest);
    let last = lines(&serial).pop().unwrap();
    assert_eq!((last["code"].as_str(), last["signal"].as_str()), (Some("AGENT_CRASH"), Some("SIGSEGV")));
}

/// What stands behind `--`, and what another first program hands over: arguments.
#[test]
fn evil_cmdline_init_arguments() {
    let programs = Programs::built();
    let spec =
        spec(&programs, &[]).cmdline("-- --server-addr unix:///run/evil.sock --insecure agent.log=trace");
    let arguments = ["--server-addr", "unix:///run/evil.sock", "--version"].map(str::to_owned);
    let guest = serving(spec.plan(|plan| plan.agent_arguments = arguments.into()));
    assert_bare(&guest);
    assert_eq!(shell(&guest, "ls /run | grep -c evil || true").trim(), "0");
    assert_healthy(&guest);
    let serial = guest.serial();
    assert_eq!(line(&serial, "serving")["address"], "vsock://-1:1024");
    assert_eq!(line(&serial, "kernel command line: words without effect")["count"], 4);
    assert!(lines(&serial).iter().all(|line| line["level"] != "TRCE"));
    // The machine may be off before the command can tell how it ended.
    let _ = guest.sh("kill -INT 1");
    assert_eq!(line(&assert_off(guest), "stopping")["signal"], "SIGINT");
}

/// Something else lies where a mount belongs: the machine does not start, and does not hang.
#[test]
fn evil_image_mounts_something_else() {
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let occupy = "mount -t tmpfs none /sys/fs/cgroup && touch /occupied && sleep 600";
    let service =
        Service { argv: ["/bin/sh", "-c", occupy].map(str::to_owned).into(), ready: "/occupied".to_owned() };
    let spec = spec(&programs, &[]).plan(|plan| plan.services.push(service));
    let serial = assert_refused(&work, spec, "AGENT_MOUNT_OCCUPIED");
    let last = lines(&serial).pop().unwrap();
    assert_eq!(last["error"], "/sys/fs/cgroup: expected a cgroup2, found a tmpfs mounted there");
}

fn packed(who: &str) -> Packed {
    let mut package = Package::new(Algorithm::Sha384);
    package.insert("policy.rego", &format!("package agent_policy\n# {who}\n")).unwrap();
    package.pack().unwrap()
}

/// A guest that was launched with this digest.
fn confidential(programs: &Programs, work: &Work, kind: Kind, digest: &str) -> Spec {
    vm::with_tee(spec(programs, &["innerkeep-tee-emulator"]), programs, work, kind, digest)
}

/// Adds a disk while the guest runs.
fn add_disk(guest: &mut Guest, name: &str, image: &Path) {
    let node = json!({
        "driver": "raw", "node-name": name, "read-only": true,
        "file": { "driver": "file", "filename": image, "read-only": true },
    });
    guest.qmp("blockdev-add", &node).unwrap();
    let device = json!({ "driver": "virtio-blk-pci", "drive": name, "id": name, "bus": "late" });
    guest.qmp("device_add", &device).unwrap();
}

/// The device comes late. It is read once: what the host puts in its place afterwards is nobody's business.
#[test]
fn initdata_on_a_late_disk_is_bound_and_read_once() {
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let packed = packed("operator");
    let image = work.write("initdata.img", packed.image());
    let other = work.write("other.img", self::packed("host").image());
    let digest = Kind::Tdx.initdata_digest(packed.text().as_bytes());
    let spec = confidential(&programs, &work, Kind::Tdx, &digest);
    let mut guest = boot(spec.qemu(&["-device", "pcie-root-port,id=late,chassis=9,slot=9"]));
    // The agent has looked, and waits.
    guest.wait_serial("innerkeep-agent starts", Duration::from_secs(30)).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    add_disk(&mut guest, "first", &image);
    let serial = guest.wait_serial("\"msg\":\"serving\"", Duration::from_secs(60)).unwrap();
    let first = lines(&serial).remove(0);
    assert_eq!(first["tee"], "tdx", "{first}");
    let bound = line(&serial, "initdata bound");
    assert!(bound["digest"].as_str().unwrap().contains(&digest), "{bound}");
    assert_eq!(bound["register"], "MRCONFIGID");
    assert!(bound["count"].as_u64().unwrap() > 0, "the kernel told of the disk: {bound}");
    assert_healthy(&guest);

    guest.qmp("device_del", &json!({ "id": "first" })).unwrap();
    guest.wait_event("DEVICE_DELETED", Duration::from_secs(60)).unwrap();
    add_disk(&mut guest, "second", &other);
    let begun = Instant::now();
    while guest.sh("[ -b /dev/vda ] || [ -b /dev/vdb ]").unwrap().status != 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", guest.serial());
    }
    assert_healthy(&guest);
    let serial = guest.serial();
    assert_eq!(lines(&serial).iter().filter(|line| line["msg"] == "initdata bound").count(), 1, "{serial}");
    guest.power_off().unwrap();
}

#[test]
fn evil_host_withholds_the_initdata_disk() {
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let digest = Kind::Snp.initdata_digest(packed("operator").text().as_bytes());
    let spec = confidential(&programs, &work, Kind::Snp, &digest);
    let serial = assert_refused(&work, spec, "INITDATA_WITHHELD");
    assert_eq!(lines(&serial)[0]["tee"], "snp");
}

/// A disk that does not answer while the agent has patience; the kernel's own drivers wait for it, too. The machine ends all the same.
#[test]
fn evil_host_disk_that_never_answers() {
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let digest = Kind::Tdx.initdata_digest(packed("operator").text().as_bytes());
    let spec = confidential(&programs, &work, Kind::Tdx, &digest);
    let mut guest = boot(spec.qemu(&["-device", "pcie-root-port,id=late,chassis=9,slot=9"]));
    // Longer than the watchdog waits. QEMU does not end before it has answered.
    let latency_ns = 50_000_000_000_u64;
    let node = json!({ "driver": "null-co", "node-name": "mute", "size": 1 << 20, "latency-ns": latency_ns, "read-zeroes": true });
    guest.qmp("blockdev-add", &node).unwrap();
    // With a geometry QEMU itself has nothing to read.
    let device = json!({
        "driver": "virtio-blk-pci", "drive": "mute", "id": "mute", "bus": "late", "cyls": 2, "heads": 16, "secs": 63,
    });
    guest.qmp("device_add", &device).unwrap();
    let end = guest.wait_end(Duration::from_secs(120)).unwrap();
    let serial = guest.serial();
    // The kernel waits for the disk as well before it powers off; then it is restarted.
    assert!(matches!(end, End::PoweredOff | End::Reset), "{end:?}: {serial}");
    let last = lines(&serial).pop().unwrap();
    assert_eq!(last["code"], "AGENT_START_TIMEOUT", "{serial}");
    assert!(!serial.contains("\"msg\":\"serving\"") && !serial.contains("Kernel panic"), "{serial}");
}

/// Another document than that of the register.
#[test]
fn evil_host_swaps_the_initdata_disk() {
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let digest = Kind::Tdx.initdata_digest(packed("operator").text().as_bytes());
    let disk = work.write("initdata.img", packed("host").image());
    let spec = confidential(&programs, &work, Kind::Tdx, &digest).disk(&disk);
    let serial = assert_refused(&work, spec, "INITDATA_MISMATCH");
    assert!(!serial.contains("initdata bound"), "{serial}");
}

const INSECURE: &str = "insecure = [\"unbound-initdata\"]\n";

#[test]
fn evil_image_insecure_file_in_a_tee() {
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let disk = work.write("initdata.img", packed("host").image());
    let spec = confidential(&programs, &work, Kind::Snp, "").disk(&disk);
    let spec = spec.file("/etc/innerkeep/insecure.toml", 0o644, INSECURE);
    assert_refused(&work, spec, "AGENT_INSECURE_ON_TEE");
}

#[test]
fn the_insecure_file_of_the_initramfs_is_loud() {
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let disk = work.write("initdata.img", packed("developer").image());
    let spec = spec(&programs, &[]).disk(&disk).file("/etc/innerkeep/insecure.toml", 0o644, INSECURE);
    let guest = serving(spec);
    let serial = guest.serial();
    let first = lines(&serial).remove(0);
    assert_eq!(first["msg"], "innerkeep-agent starts INSECURE: nothing here is protected");
    assert_eq!(
        (first["insecure"].as_str(), first["level"].as_str()),
        (Some("unbound-initdata"), Some("CRIT"))
    );
    assert_eq!(line(&serial, "initdata bound")["register"], "INSECURE: none");
    assert_healthy(&guest);
    guest.power_off().unwrap();
}
