//! Files of the host in a confidential guest, and what a host might get out of one: CopyFile, termination logs, swap, and mounts over and from
//! what the guest keeps to itself. Over vsock, the agent as process 1.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking")]

use protocol::agent::{
    AddSwapPathRequest, AddSwapRequest, CopyFileRequest, GetDiagnosticDataRequest, Storage,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tests::agent_client::checks::{assert_settles, ok, refused, state};
use tests::agent_client::requests::{SHARED, create, remove, rootfs, sandbox, start, wait};
use tests::agent_client::storages::{bound, piece, storage, volume};
use tests::agent_client::{ALLOW_ALL, AgentClient, Refused, confidential, serving};
use tests::disk_images::blank;
use tests::payload::Payload;
use tests::programs::{Programs, User};
use tests::tee::Kind;
use tests::vm::shell;
use tests::work::Work;
use xtask::vm::Guest;

const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
const DIRECTORY: u32 = 0o040_000;
const MIB: usize = 1 << 20;
/// What a workload has in memory, and no disk of the host gets.
const SECRET: &str = "what the guest has in memory and nobody else gets";

struct Disks {
    swap: PathBuf,
    named: PathBuf,
}

// COMPAT: CopyFile same: pieces of 1 MiB, owners and modes; directories, links
// COMPAT: CopyFile stricter: no link is followed, nor one that somebody swaps in meanwhile
// COMPAT: GetDiagnosticData same: the first 4,096 bytes, or nothing; code and text for another kind of log
// COMPAT: GetDiagnosticData stricter: only a regular file that host and guest share, in a confidential guest one whose name says that it is a log
// COMPAT: AddSwap, AddSwapPath stricter: only disks, and only behind a cipher whose key nobody keeps
#[test]
fn files_swap_and_mounts_of_a_confidential_guest() {
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let disks = Disks { swap: blank(&work, "swap", 96), named: blank(&work, "named", 8) };
    let spec = confidential::spec(&programs, &work, Kind::Tdx, &[("policy.rego", ALLOW_ALL)])
        .disk_at(&disks.swap, 0x10)
        .disk_at(&disks.named, 0x11)
        .disk_at(&work.write("tiny.img", vec![0; 8 * 1024]), 0x12)
        .modules(&["dm_crypt"]);
    let guest = serving(spec);
    assert!(guest.serial().contains("\"tee\":\"tdx\""), "{}", guest.serial());
    let client = AgentClient::connect(&guest);
    ok(&guest, client.create_sandbox(&sandbox("pod1")));
    let root = rootfs(&guest, "root");
    ok(&guest, client.create_container(&create("warm", &root, &["true"])));
    ok(&guest, client.start_container(&start("warm")));
    assert_eq!(ok(&guest, client.wait_process(&wait("warm", ""))).status, 0);
    ok(&guest, client.remove_container(&remove("warm")));
    shell(&guest, "mkdir -p /run/kata-containers/sandbox/storage");
    let before = state(&guest);

    files_in_pieces(&guest, &client);
    evil_host_copies_elsewhere(&guest, &client);
    evil_host_swaps_a_directory_for_a_link(&guest, &client);
    shell(&guest, &format!("rm -rf {SHARED}/c1 {SHARED}/evil {SHARED}/race"));
    assert_settles(&guest, &before, "files of the host");
    termination_logs(&guest, &client, &root);
    evil_host_diagnostics_of_a_secret_mount(&guest, &client, &root);
    shell(&guest, &format!("cd {SHARED} && rm -rf c1-* c2-* c3-*"));
    assert_settles(&guest, &before, "termination logs");
    evil_host_mounts_over_protected_paths(&guest, &client, &root, &before);
    evil_host_mounts_from_protected_paths(&guest, &client, &root, &before);
    evil_host_swap_as_exfiltration(&guest, &client, &disks, &before);
    guest.power_off().unwrap();
}

fn digest(guest: &Guest, path: &str) -> String {
    shell(guest, &format!("sha256sum < {path}")).split(' ').next().unwrap().to_owned()
}

fn status_of(guest: &Guest, path: &str) -> String {
    shell(guest, &format!("stat -c '%a %u %g %F' {path}")).trim().to_owned()
}

/// As the Go runtime copies: pieces of 1 MiB, a directory, a link, an empty file; each with its owner and mode.
fn files_in_pieces(guest: &Guest, client: &AgentClient) {
    let payload = Payload::random(7, 2 * MIB + MIB / 2);
    let bytes = payload.bytes();
    let path = format!("{SHARED}/c1/config/model.bin");
    let owned = |mut request: CopyFileRequest| {
        (request.uid, request.gid) = (1000, 1001);
        request
    };
    for (index, part) in bytes.chunks(MIB).enumerate() {
        shell(guest, &format!("test ! -e {path}"));
        ok(guest, client.copy_file(&owned(piece(&path, FILE | 0o640, bytes.len(), index * MIB, part))));
    }
    assert_eq!(digest(guest, &path), payload.sha256());
    assert_eq!(status_of(guest, &path), "640 1000 1001 regular file");
    assert_eq!(status_of(guest, &format!("{SHARED}/c1/config")), "750 1000 1001 directory");
    assert_eq!(status_of(guest, &format!("{SHARED}/c1")), "750 0 0 directory");
    let at = |name: &str| format!("{SHARED}/c1/config/{name}");
    ok(guest, client.copy_file(&owned(piece(&at("empty"), FILE | 0o600, 0, 0, b""))));
    assert_eq!(status_of(guest, &at("empty")), "600 1000 1001 regular empty file");
    ok(guest, client.copy_file(&owned(piece(&at("key"), LINK, 0, 0, b"..data/key"))));
    assert_eq!(
        shell(guest, &format!("readlink {}; stat -c '%u %g' {0}", at("key"))),
        "..data/key\n1000 1001\n"
    );
    ok(guest, client.copy_file(&owned(piece(&at("..data"), DIRECTORY | 0o2711, 0, 0, b""))));
    assert_eq!(status_of(guest, &at("..data")), "2711 1000 1001 directory");
    ok(guest, client.copy_file(&piece(&at("..data/key"), FILE | 0o444, 5, 0, b"value")));
    assert_eq!(shell(guest, &format!("cat {}", at("key"))), "value");
    // Another file in its place, and something else in the place of a directory.
    ok(guest, client.copy_file(&piece(&path, FILE | 0o600, 3, 0, b"new")));
    assert_eq!(shell(guest, &format!("cat {path}")), "new");
    ok(guest, client.copy_file(&piece(&at("..data"), FILE | 0o600, 4, 0, b"file")));
    assert_eq!(shell(guest, &format!("cat {}", at("..data"))), "file");
    // Pieces that do not fit together: what was there stays, and nothing of the new ones is left.
    let names = shell(guest, &format!("ls -A {SHARED}/c1/config"));
    ok(guest, client.copy_file(&piece(&path, FILE | 0o600, 8, 0, b"1234")));
    refused(client.copy_file(&piece(&path, FILE | 0o600, 8, 6, b"78")), "INTERNAL", "COPY_OFFSET");
    refused(client.copy_file(&piece(&path, FILE | 0o600, 8, 4, b"5678")), "INTERNAL", "COPY_OFFSET");
    refused(client.copy_file(&piece(&path, FILE | 0o600, 2, 0, b"123")), "INTERNAL", "COPY_LENGTH");
    refused(
        client.copy_file(&piece(&path, FILE | 0o600, usize::MAX >> 1, 0, b"123")),
        "INTERNAL",
        "COPY_LENGTH",
    );
    refused(client.copy_file(&piece(&at("pipe"), 0o010_600, 0, 0, b"")), "INTERNAL", "COPY_KIND");
    assert_eq!(shell(guest, &format!("cat {path}")), "new");
    assert_eq!(shell(guest, &format!("ls -A {SHARED}/c1/config")), names);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Nothing outside of the shared directory is written, by no spelling and through no link.
fn evil_host_copies_elsewhere(guest: &Guest, client: &AgentClient) {
    shell(guest, "mkdir -p /tmp/target && echo kept > /tmp/target/file && ln /tmp/target/file /tmp/other");
    let everything = "find /etc /tmp /bin /run/innerkeep -xdev | sort | sha256sum; cat /tmp/target/file";
    let before = shell(guest, everything);
    for path in [
        format!("{SHARED}/../../escape"),
        format!("{SHARED}/c1/../../../../../etc/passwd"),
        "/etc/passwd".to_owned(),
        "/run/kata-containers/pod1/config.json".to_owned(),
        format!("{SHARED}-other/file"),
        SHARED.to_owned(),
        format!("{SHARED}/"),
        "relative".to_owned(),
    ] {
        let refusal = client.copy_file(&piece(&path, FILE | 0o644, 1, 0, b"x")).unwrap_err();
        assert!(["INTERNAL", "INVALID_ARGUMENT"].contains(&refusal.code.as_str()), "{path}: {refusal}");
        assert!(refusal.says("prefix") || refusal.says("REQUEST_"), "{path}: {refusal}");
    }
    // A link of the host's own, which leads out: as a directory on the way, and as the file itself.
    let link = |name: &str, to: &str| piece(&format!("{SHARED}/evil/{name}"), LINK, 0, 0, to.as_bytes());
    ok(guest, client.copy_file(&link("out", "/tmp/target")));
    ok(guest, client.copy_file(&link("up", "../../../../../tmp/target")));
    ok(guest, client.copy_file(&link("magic", "/proc/1/root/tmp/target")));
    ok(guest, client.copy_file(&link("file", "/tmp/target/file")));
    for name in ["out/file", "out/new", "up/file", "magic/file", "out/new/deeper"] {
        let path = format!("{SHARED}/evil/{name}");
        refused(client.copy_file(&piece(&path, FILE | 0o644, 4, 0, b"evil")), "INTERNAL", "COPY_IO");
        refused(client.copy_file(&piece(&path, DIRECTORY | 0o755, 0, 0, b"")), "INTERNAL", "COPY_IO");
        refused(client.copy_file(&piece(&path, LINK, 0, 0, b"x")), "INTERNAL", "COPY_IO");
    }
    ok(guest, client.copy_file(&piece(&format!("{SHARED}/evil/file"), FILE | 0o644, 4, 0, b"mine")));
    assert_eq!(shell(guest, &format!("test ! -L {SHARED}/evil/file && cat {SHARED}/evil/file")), "mine");
    assert_eq!(shell(guest, everything), before);
}

/// Somebody inside swaps a directory for a link and back, as fast as can be, while the host copies into it.
fn evil_host_swaps_a_directory_for_a_link(guest: &Guest, client: &AgentClient) {
    let race = format!("{SHARED}/race");
    shell(guest, &format!("mkdir -p {race}/directory /tmp/victim"));
    // The agent makes a directory that is missing, at any moment: so each round begins by removing whatever is there.
    // (Never `mv`: where the agent was faster, that would move the directory itself through the link.)
    let line = format!(
        "cd {race}; while [ ! -e /tmp/stop ]; do rm -rf directory; ln -sn /tmp/victim directory; rm -rf directory; mkdir -p directory; done"
    );
    let swapping = guest.spawn(&["/bin/sh", "-c", &line]).unwrap();
    let (mut copied, mut held_up) = (0, 0);
    for round in 0..200 {
        let path = format!("{race}/directory/file{round}");
        match client.copy_file(&piece(&path, FILE | 0o600, 4, 0, b"evil")) {
            Ok(_) => copied += 1,
            Err(refusal) => {
                assert!(refusal.says("COPY_IO"), "{refusal}");
                held_up += 1;
            }
        }
    }
    shell(guest, "touch /tmp/stop");
    swapping.wait(std::time::Duration::from_secs(30)).unwrap();
    assert_eq!(shell(guest, "ls -A /tmp/victim"), "", "{copied} copied, {held_up} refused");
    assert!(copied > 0, "{held_up} refused");
    shell(guest, "rm -rf /tmp/stop /tmp/victim");
}

const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";

/// A container whose termination log is this file of the shared directory.
fn logging(
    container: &str,
    root: &str,
    source: &str,
    script: &str,
) -> protocol::agent::CreateContainerRequest {
    let mut request = create(container, root, &["sh", "-c", script]);
    let spec = request.OCI.as_mut().unwrap();
    spec.Annotations.insert(MESSAGE_PATH.to_owned(), "/dev/termination-log".to_owned());
    spec.Mounts.push(bound(source, "/dev/termination-log"));
    request
}

fn log_of(client: &AgentClient, container: &str, kind: &str) -> Result<String, Refused> {
    let request = GetDiagnosticDataRequest {
        container_id: container.to_owned(),
        log_type: kind.to_owned(),
        ..Default::default()
    };
    client.get_diagnostic_data(&request).map(|answer| answer.data)
}

/// What a container writes for the host is what the host gets, up to 4,096 bytes.
fn termination_logs(guest: &Guest, client: &AgentClient, root: &str) {
    let log = format!("{SHARED}/c1-0123456789abcdef-termination-log");
    ok(guest, client.copy_file(&piece(&log, FILE | 0o644, 0, 0, b"")));
    let script = "echo the reason > /dev/termination-log";
    ok(guest, client.create_container(&logging("c1", root, &log, script)));
    assert_eq!(ok(guest, log_of(client, "c1", "termination_log")), "");
    ok(guest, client.start_container(&start("c1")));
    assert_eq!(ok(guest, client.wait_process(&wait("c1", ""))).status, 0);
    assert_eq!(ok(guest, log_of(client, "c1", "termination_log")), "the reason\n");
    shell(guest, &format!("yes reason | head -c 6000 > {log}"));
    assert_eq!(ok(guest, log_of(client, "c1", "termination_log")).len(), 4096);
    refused(
        log_of(client, "c1", "core_dump"),
        "INVALID_ARGUMENT",
        "unsupported diagnostic log_type: core_dump",
    );
    shell(guest, &format!("rm {log}"));
    assert_eq!(ok(guest, log_of(client, "c1", "termination_log")), "");
    ok(guest, client.remove_container(&remove("c1")));
    refused(log_of(client, "c1", "termination_log"), "INVALID_ARGUMENT", "\"invalid container id\"");
}

/// The host says that a secret is a termination log; and puts a link to one in the place of a log.
fn evil_host_diagnostics_of_a_secret_mount(guest: &Guest, client: &AgentClient, root: &str) {
    let secret = format!("{SHARED}/c2-0123456789abcdef-token");
    ok(guest, client.copy_file(&piece(&secret, FILE | 0o600, SECRET.len(), 0, SECRET.as_bytes())));
    let not_told = |container: &str, code: &str| {
        let refusal = log_of(client, container, "termination_log").unwrap_err();
        assert!(refusal.code == "INTERNAL" && refusal.says(code) && !refusal.says(SECRET), "{refusal}");
    };
    ok(guest, client.create_container(&logging("c2", root, &secret, "true")));
    not_told("c2", "DIAGNOSTIC_PLACE");
    ok(guest, client.remove_container(&remove("c2")));
    let log = format!("{SHARED}/c3-0123456789abcdef-termination-log");
    ok(guest, client.copy_file(&piece(&log, FILE | 0o644, 0, 0, b"")));
    ok(guest, client.create_container(&logging("c3", root, &log, "true")));
    for to in [secret.as_str(), "/etc/passwd", "/proc/1/environ", "/proc/self/fd/0"] {
        ok(guest, client.copy_file(&piece(&log, LINK, 0, 0, to.as_bytes())));
        not_told("c3", "VOLUME_IO");
    }
    ok(guest, client.copy_file(&piece(&log, DIRECTORY | 0o755, 0, 0, b"")));
    not_told("c3", "DIAGNOSTIC_PLACE");
    shell(guest, &format!("rmdir {log} && mkfifo {log}"));
    not_told("c3", "DIAGNOSTIC_PLACE");
    ok(guest, client.remove_container(&remove("c3")));
}

/// Places of the guest itself, as the mount point of a storage of container or sandbox.
fn evil_host_mounts_over_protected_paths(guest: &Guest, client: &AgentClient, root: &str, before: &str) {
    let mounts = "cut -d' ' -f4- /proc/1/mountinfo";
    let table = shell(guest, mounts);
    let places = [
        "/",
        "/proc",
        "/proc/sys",
        "/sys",
        "/sys/fs/cgroup",
        "/sys/kernel/config",
        "/dev",
        "/etc",
        "/etc/innerkeep",
        "/bin",
        "/run",
        "/run/innerkeep",
        "/run/sandbox-ns",
        "/run/confidential-containers",
        "/run/kata-containers",
        "/run/kata-containers/shared",
        "/run/kata-containers/sandbox",
        "/run/kata-containers/sandbox/resolv.conf",
        "/run/kata-containers/image",
        "/run/kata-containers/other/rootfs",
        "/run/kata-containers/evil/config.json",
        "/run/kata-containers/evil/upper",
        "/run/kata-containers/shared/containers/../../../../etc",
        "relative",
        "",
    ];
    for (index, place) in places.into_iter().enumerate() {
        let kinds = [
            storage("ephemeral", "tmpfs", "tmpfs", place, &[]),
            storage("local", "local", "local", place, &[]),
            storage("bind", &format!("{SHARED}/root"), "bind", place, &["rbind"]),
            storage("blk", "11", "ext4", place, &[]),
        ];
        // The place is looked at before the driver is: each driver at some of them.
        let last = kinds[index % kinds.len()].clone();
        let mut request = create("evil", root, &["true"]);
        request.storages = vec![storage("local", "local", "local", &volume("fine"), &[]), last.clone()];
        refused(client.create_container(&request), "INTERNAL", "STORAGE_PLACE");
        if index % 4 == 0 {
            let mut request = sandbox("pod1");
            request.storages = vec![last];
            refused(client.create_sandbox(&request), "INTERNAL", "STORAGE_PLACE");
        }
    }
    ok(guest, client.create_sandbox(&sandbox("pod1")));
    assert_settles(guest, before, "mounts over protected paths");
    let sorted = |text: &str| text.lines().map(ToOwned::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&shell(guest, mounts)).len(), sorted(&table).len());
    // Over what is mounted, and below it so that it would be hidden.
    let outer = volume("outer");
    let mut request = create("holder", root, &["sleep", "1000"]);
    request.storages = vec![storage("ephemeral", "tmpfs", "tmpfs", &format!("{outer}/inner"), &[])];
    ok(guest, client.create_container(&request));
    let held = state(guest);
    let over = |last: Storage, code: &str| {
        let mut request = create("evil", root, &["true"]);
        request.storages = vec![last];
        refused(client.create_container(&request), "INTERNAL", code);
        assert_settles(guest, &held, "a mount over a storage");
    };
    over(storage("ephemeral", "tmpfs", "tmpfs", &outer, &[]), "STORAGE_PLACE");
    over(storage("local", "local", "local", &format!("{outer}/inner"), &[]), "STORAGE_CONFLICT");
    ok(guest, client.remove_container(&remove("holder")));
    assert_settles(guest, before, "a storage that was held");
}

/// What the guest keeps to itself, as the source of a mount.
fn evil_host_mounts_from_protected_paths(guest: &Guest, client: &AgentClient, root: &str, before: &str) {
    ok(guest, client.create_container(&create("victim", root, &["sleep", "1000"])));
    let held = state(guest);
    let link = format!("{SHARED}/evil");
    let sources = [
        "/",
        "/proc",
        "/proc/1",
        "/proc/1/root",
        "/sys",
        "/sys/kernel/config",
        "/sys/fs/cgroup",
        "/run",
        "/run/innerkeep",
        "/run/sandbox-ns/uts",
        "/run/kata-containers",
        "/run/kata-containers/victim",
        "/run/kata-containers/victim/rootfs",
        "/run/kata-containers/sandbox",
        "/run/kata-containers/image",
        "/dev",
        "/dev/mem",
        "/dev/kmsg",
    ];
    for source in sources {
        let mut direct = create("evil", root, &["true"]);
        direct.OCI.as_mut().unwrap().Mounts.push(bound(source, "/mnt"));
        let refusal = client.create_container(&direct).unwrap_err();
        assert!(refusal.says("SPEC_FLOOR") || refusal.says("SPEC_MOUNT_SOURCE"), "{source}: {refusal}");
        // Through a link, which the host may put there.
        ok(guest, client.copy_file(&piece(&link, LINK, 0, 0, source.as_bytes())));
        let mut through = create("evil", root, &["true"]);
        through.OCI.as_mut().unwrap().Mounts.push(bound(&link, "/mnt"));
        let refusal = client.create_container(&through).unwrap_err();
        assert!(refusal.says("SPEC_FLOOR") || refusal.says("SPEC_MOUNT_SOURCE"), "{source}: {refusal}");
        for (from, code) in [(source, "STORAGE_PLACE"), (link.as_str(), "STORAGE_")] {
            let mut request = create("evil", root, &["true"]);
            request.storages = vec![storage("bind", from, "bind", &volume("stolen"), &["rbind"])];
            refused(client.create_container(&request), "INTERNAL", code);
            request.storages = vec![storage("watchable-bind", from, "bind", &volume("stolen"), &["rbind"])];
            refused(client.create_container(&request), "INTERNAL", code);
            let layers = format!("lowerdir={from}");
            request.storages = vec![storage("overlayfs", "none", "overlay", &volume("stolen"), &[&layers])];
            refused(client.create_container(&request), "INTERNAL", "STORAGE_");
        }
        let rooted = create("evil", source, &["true"]);
        refused(client.create_container(&rooted), "INTERNAL", "CONTAINER_ROOT");
        refused(client.create_container(&create("evil", &link, &["true"])), "INTERNAL", "CONTAINER_ROOT");
    }
    for kind in ["proc", "sysfs", "configfs", "securityfs", "bpf", "devtmpfs", "ext4"] {
        let mut request = create("evil", root, &["true"]);
        request.storages = vec![storage("ephemeral", "tmpfs", kind, &volume("stolen"), &[])];
        refused(client.create_container(&request), "INTERNAL", "STORAGE_FILE_SYSTEM");
        let mut request = create("evil", root, &["true"]);
        let mut mount = bound("none", "/mnt");
        (mount.type_, mount.options) = (kind.to_owned(), Vec::new());
        request.OCI.as_mut().unwrap().Mounts.push(mount);
        refused(client.create_container(&request), "INTERNAL", "SPEC_");
    }
    shell(guest, &format!("rm {link}"));
    assert_settles(guest, &held, "mounts from protected paths");
    ok(guest, client.remove_container(&remove("victim")));
    assert_settles(guest, before, "mounts from protected paths");
}

fn blocks(image: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(image).unwrap();
    let used = bytes.chunks(4096).filter(|block| block.iter().any(|byte| *byte != 0));
    used.map(<[u8]>::to_vec).collect()
}

fn has(image: &Path, text: &[u8]) -> bool {
    std::fs::read(image).unwrap().windows(text.len()).any(|window| window == text)
}

/// What is swapped out is on the host's disk, and of no use to the host.
fn evil_host_swap_as_exfiltration(guest: &Guest, client: &AgentClient, disks: &Disks, before: &str) {
    let pci =
        |path: &[u32]| client.add_swap(&AddSwapRequest { PCIPath: path.to_vec(), ..Default::default() });
    let named = |path: &str| {
        client.add_swap_path(&AddSwapPathRequest { path: path.to_owned(), ..Default::default() })
    };
    for (answer, text) in [
        (pci(&[0x1d]), "Timeout after 3s waiting for uevent block device at PCI path 00/1d.0"),
        (pci(&[]), "HOTPLUG_ADDRESS"),
        (pci(&[0x12]), "SWAP_SIZE"),
        (named("/etc/passwd"), "HOTPLUG_ADDRESS"),
        (named(&format!("{SHARED}/file")), "HOTPLUG_ADDRESS"),
        (named("/dev/../etc/passwd"), "HOTPLUG_ADDRESS"),
    ] {
        refused(answer, "INTERNAL", text);
    }
    assert_settles(guest, before, "swap that was refused");

    ok(guest, pci(&[0x10]));
    let swaps = shell(guest, "cat /proc/swaps");
    assert!(swaps.lines().count() == 2 && swaps.contains("/dev/dm-0"), "{swaps}");
    let disk = shell(guest, "ls /sys/bus/pci/devices/0000:00:10.0/virtio*/block").trim().to_owned();
    let mapped = shell(guest, "cut -d- -f1,2 /sys/class/block/dm-0/dm/name; ls /sys/class/block/dm-0/slaves");
    assert_eq!(mapped, format!("innerkeep-crypt\n{disk}\n"));
    refused(pci(&[0x10]), "INTERNAL", "STORAGE_DEVICE_TAKEN");
    refused(named(&format!("/dev/{disk}")), "INTERNAL", "STORAGE_DEVICE_TAKEN");
    refused(named("/dev/dm-0"), "INTERNAL", "STORAGE_DEVICE_TAKEN");
    // More than a group may keep in memory.
    let press = format!(
        "mkdir -p /sys/fs/cgroup/press /tmp/press && echo 16M > /sys/fs/cgroup/press/memory.max && \
         mount -t tmpfs -o size=80m press /tmp/press && \
         (echo $$ > /sys/fs/cgroup/press/cgroup.procs; yes '{SECRET}' | head -c 50000000 > /tmp/press/file)"
    );
    shell(guest, &press);
    let used = shell(guest, "tail -n 1 /proc/swaps | tr -s '\\t ' ' ' | cut -d' ' -f4");
    assert!(used.trim().parse::<u64>().unwrap() > 8192, "{}", shell(guest, "cat /proc/swaps"));
    // Written out, and read back.
    let expected: Vec<u8> = format!("{SECRET}\n").bytes().cycle().take(50_000_000).collect();
    assert_eq!(digest(guest, "/tmp/press/file"), hex(&Sha256::digest(&expected)));
    let found = blocks(&disks.swap);
    assert!(found.len() > 2048, "{} blocks were written", found.len());
    assert!(!has(&disks.swap, SECRET.as_bytes()) && !has(&disks.swap, b"SWAPSPACE2"));
    // Pages that are the same are not the same there.
    let different: BTreeSet<&[u8]> = found.iter().map(Vec::as_slice).collect();
    assert!(different.len() * 100 > found.len() * 99, "{} of {}", different.len(), found.len());
    shell(guest, "umount /tmp/press && rmdir /tmp/press /sys/fs/cgroup/press");

    // By name: the host has prepared the disk, and it is encrypted all the same.
    let mut header = vec![0; 8 << 20];
    header[4086..4096].copy_from_slice(b"SWAPSPACE2");
    header[1024..1032].copy_from_slice(&[1, 0, 0, 0, 0xff, 7, 0, 0]);
    std::fs::write(&disks.named, header).unwrap();
    let name = shell(guest, "ls /sys/bus/pci/devices/0000:00:11.0/virtio*/block").trim().to_owned();
    ok(guest, named(&format!("/dev/{name}")));
    let swaps = shell(guest, "cat /proc/swaps; ls /sys/class/block/dm-1/slaves");
    assert!(swaps.contains("/dev/dm-1") && swaps.ends_with(&format!("\n{name}\n")), "{swaps}");
    assert!(!has(&disks.named, b"SWAPSPACE2"), "the header of the host is still there");
}
