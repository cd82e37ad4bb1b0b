//! The trusted store of a confidential guest: a disk of the host that a container asks for by `/dev/trusted_store`, encrypted by the guest under a
//! key that nobody keeps, and what the host tries with it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use protocol::agent::CreateContainerRequest;
use protocol::oci::LinuxDeviceCgroup;
use std::path::PathBuf;
use tests::agent_client::checks::{assert_mounted, mounts_at, ok, read_until, refused};
use tests::agent_client::requests::{create, read, remove, rootfs, sandbox, start, wait};
use tests::agent_client::storages::{device, node, storage, volume};
use tests::agent_client::{ALLOW_ALL, AgentClient, confidential, serving};
use tests::disk_images::{blank, flip, with_mkfs};
use tests::programs::{Programs, User};
use tests::tee::Kind;
use tests::vm::{exec, shell};
use tests::work::Work;
use xtask::vm::Guest;

const STORE: &str = "/dev/trusted_store";
const AGAIN: &str = "/dev/again";
const PLACE: &str = "/run/kata-containers/image";
const MARKER: &str = "what no host may read ";
/// Of the disk on the bus.
const SLOT: u8 = 0x10;
/// A hub, so that somebody has said that there is to be a store; nothing is asked of it here.
const HUB: &str = "[kbc]\nname = \"offline_fs_kbc\"\n";
const SETTINGS: &str = "insecure = [\"emulated-tee\", \"offline-kbc\"]\n";

struct Host {
    work: Work,
    disk: PathBuf,
}

impl Host {
    fn new() -> Self {
        let work = Work::create(User::Same);
        let disk = blank(&work, "store", 64);
        Self { disk, work }
    }

    fn boot(&self) -> Guest {
        let files = [("policy.rego", ALLOW_ALL), ("cdh.toml", HUB), ("innerkeep.toml", SETTINGS)];
        let spec = confidential::spec(&Programs::built(), &self.work, Kind::Tdx, &files)
            .disk_at(&self.disk, SLOT)
            .modules(&["dm_crypt", "dm_integrity", "authenc"]);
        serving(with_mkfs(spec))
    }

    fn contains(&self, text: &str) -> bool {
        std::fs::read(&self.disk).unwrap().windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// A container that asks for the store as upstream's runtime does: a disk that was plugged in, a node in the specification with numbers of the
/// host, and a rule that opens it.
fn asking(name: &str, root: &str, script: &str) -> CreateContainerRequest {
    let mut request = create(name, root, &["sh", "-c", script]);
    let linux = request.OCI.as_mut().unwrap().Linux.as_mut().unwrap();
    linux.Devices.push(node(STORE, "b", (254, 0)));
    linux.Resources.as_mut().unwrap().Devices.push(LinuxDeviceCgroup {
        Allow: true,
        Type: "b".to_owned(),
        Major: 254,
        Minor: 0,
        Access: "rwm".to_owned(),
        ..LinuxDeviceCgroup::default()
    });
    request.devices.push(device("blk", &format!("{SLOT:02x}"), "", STORE));
    request
}

fn mapped(guest: &Guest) -> String {
    shell(guest, "cd /sys/class/block; ls -d dm-* 2>/dev/null; true")
}

// COMPAT: CreateContainer stricter: the disk of a trusted store is encrypted by the agent, and in no container
#[test]
fn the_trusted_store_of_a_guest() {
    let host = Host::new();
    let guest = host.boot();
    let client = AgentClient::connect(&guest);
    ok(&guest, client.create_sandbox(&sandbox("pod1")));
    let root = rootfs(&guest, "one");
    // The same disk by another name, too: nobody opens it there.
    let script = format!("test -e {STORE} || echo no disk; head -c 1 {AGAIN} || echo closed; read line");
    let mut request = asking("one", &root, &script);
    request.devices.push(device("blk", &format!("{SLOT:02x}"), "", AGAIN));
    request.OCI.as_mut().unwrap().Linux.as_mut().unwrap().Devices.push(node(AGAIN, "b", (254, 0)));

    evil_host_stores_that_are_none(&guest, &client, &request);
    ok(&guest, client.create_container(&request));
    assert_mounted(&guest, PLACE, &["nosuid,nodev,noatime", "- ext4 /dev/dm-"]);
    let kinds = shell(
        &guest,
        "for d in /sys/class/block/dm-*; do dd if=$d/dm/name bs=16 count=1 2>/dev/null; echo; done",
    );
    assert!(kinds.contains("innerkeep"), "{kinds}");
    let devices = mapped(&guest);
    assert!(!devices.is_empty());
    // The container that asked has no disk of it, and no rule for one.
    ok(&guest, client.start_container(&start("one")));
    assert_eq!(read_until(&client, "one", "", "closed\n"), "no disk\nclosed\n");
    let error = ok(&guest, client.read_stderr(&read("one", "", 4096))).data;
    let error = String::from_utf8_lossy(&error);
    assert!(error.contains("Operation not permitted"), "{error}");
    what_is_stored_is_the_guests(&guest, &host);
    // A second container joins, and the last one that goes does not take it along: it is the sandbox's.
    let again = asking("two", &rootfs(&guest, "two"), "exit 5");
    ok(&guest, client.create_container(&again));
    assert_eq!((mapped(&guest), mounts_at(&guest, PLACE).len()), (devices.clone(), 1));
    ok(&guest, client.start_container(&start("two")));
    assert_eq!(ok(&guest, client.wait_process(&wait("two", ""))).status, 5);
    for name in ["one", "two"] {
        ok(&guest, client.remove_container(&remove(name)));
    }
    assert_mounted(&guest, PLACE, &["- ext4 /dev/dm-"]);
    assert_eq!(shell(&guest, &format!("tail -n 1 {PLACE}/text")), format!("{MARKER}2000\n"));
    // The disk is nobody else's for as long as it is the store: neither a container's nor a storage's.
    let mut taker = asking("taker", &root, "true");
    AGAIN.clone_into(&mut taker.devices.first_mut().unwrap().container_path);
    taker
        .OCI
        .as_mut()
        .unwrap()
        .Linux
        .as_mut()
        .unwrap()
        .Devices
        .iter_mut()
        .for_each(|node| AGAIN.clone_into(&mut node.Path));
    refused(client.create_container(&taker), "INTERNAL", "DEVICE_TAKEN");
    let mut other = create("other", &root, &["true"]);
    other.storages.push(storage("blk", &format!("{SLOT:02x}"), "ext4", &volume("other"), &[]));
    refused(client.create_container(&other), "INTERNAL", "STORAGE_DEVICE_TAKEN");
    guest.power_off().unwrap();
    assert!(!host.contains(MARKER), "plaintext on the disk");
}

/// Nothing of what is asked for is mapped or mounted.
fn evil_host_stores_that_are_none(guest: &Guest, client: &AgentClient, request: &CreateContainerRequest) {
    let refuses = |change: &dyn Fn(&mut CreateContainerRequest), status: &str, code: &str| {
        let mut request = request.clone();
        change(&mut request);
        refused(client.create_container(&request), status, code);
        assert_eq!((mapped(guest).as_str(), mounts_at(guest, PLACE).len()), ("", 0), "{code}");
        shell(guest, "test ! -e /run/kata-containers/one/config.json");
    };
    // By numbers alone, which may be those of any disk; a disk that never comes; the disk with the initdata, which is too small.
    refuses(&|request| request.devices.clear(), "INTERNAL", "DEVICE_MISSING");
    refuses(&|request| "1f".clone_into(&mut request.devices.first_mut().unwrap().id), "INTERNAL", "Timeout");
    // The place of the store, and the disk of it for something else at the same time.
    let at_the_store = |request: &mut CreateContainerRequest| {
        request.storages.push(storage("ephemeral", "tmpfs", "tmpfs", PLACE, &[]));
    };
    refuses(&at_the_store, "INTERNAL", "STORAGE_PLACE");
    let twice = |request: &mut CreateContainerRequest| {
        request.storages.push(storage("blk", &format!("{SLOT:02x}"), "ext4", &volume("twice"), &[]));
    };
    refuses(&twice, "INTERNAL", "STORAGE_DEVICE_TAKEN");
    let mounted = |request: &mut CreateContainerRequest| {
        let mount = tests::agent_client::storages::bound(PLACE, "/mnt");
        request.OCI.as_mut().unwrap().Mounts.push(mount);
    };
    refuses(&mounted, "INTERNAL", "SPEC_");
}

/// Written, read, on the disk in no clear form; an altered bit is an error of its block.
fn what_is_stored_is_the_guests(guest: &Guest, host: &Host) {
    shell(guest, &format!("for i in $(seq 2000); do echo '{MARKER}'$i; done > {PLACE}/text; sync"));
    let before = std::fs::read(&host.disk).unwrap();
    shell(
        guest,
        &format!(
            "dd if=/dev/urandom of={PLACE}/file bs=1M count=2 2>/dev/null; sha256sum {PLACE}/file > /run/sum; sync; sleep 1"
        ),
    );
    assert!(!host.contains(MARKER), "plaintext on the disk");
    let at = last_run(&before, &std::fs::read(&host.disk).unwrap());
    flip(&host.disk, at);
    shell(guest, "echo 3 > /proc/sys/vm/drop_caches");
    let read = exec(guest, &["sh", "-c", &format!("cat {PLACE}/file > /dev/null")]);
    assert!(read.status != 0 && read.stderr.contains("Input/output error"), "{read:?}");
    assert_eq!(shell(guest, &format!("tail -n 1 {PLACE}/text")), format!("{MARKER}2000\n"));
    flip(&host.disk, at);
    shell(guest, "echo 3 > /proc/sys/vm/drop_caches; sha256sum -c /run/sum");
}

/// The middle of the last half MiB or more that was written in a row: data, behind the journals.
fn last_run(before: &[u8], after: &[u8]) -> u64 {
    let changed: Vec<bool> =
        before.chunks(4096).zip(after.chunks(4096)).map(|(old, new)| old != new).collect();
    let runs = changed.chunk_by(|one, other| one == other);
    let mut at = 0_usize;
    let mut found = None;
    for run in runs {
        if run.first() == Some(&true) && run.len() >= 128 {
            found = Some((at + run.len() / 2) * 4096);
        }
        at += run.len();
    }
    found.unwrap() as u64
}
