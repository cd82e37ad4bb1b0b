//! Encrypted volumes on the device-mapper of a real kernel, with a host that reads, alters and swaps what is on its disks: the data hub over its
//! socket, as upstream's agent asks it, and storages that the guest agent encrypts itself.
//!
//! One guest stands for two pods: each is a hub of its own, with a disk of its own, over one file of the host.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::agent::Storage;
use serde_json::json;
use tests::agent_client::checks::{assert_mounted, mounts_at, ok, read_until, refused};
use tests::agent_client::requests::{SHARED, create, remove, sandbox, start, wait};
use tests::agent_client::storages::{bound, storage, volume};
use tests::agent_client::{ALLOW_ALL, AgentClient, serving, spec};
use tests::disk_images::{blank, flip, root_tree, with_mkfs};
use tests::programs::{Programs, User};
use tests::protobuf::field;
use tests::vm::{exec, shell};
use tests::work::Work;
use xtask::vm::{Guest, Spec, Tools};

const KEY: &[u8] = b"a key of an operator, 32 bytes and more";
const URI: &str = "kbs:///pods/volumes/models";
const MARKER: &str = "what no host may read ";
const CRYPTSETUP: &str = "/usr/sbin/cryptsetup";
const MIB: usize = 1 << 20;

/// Disks of the host.
struct Host {
    work: Work,
    /// Of one guest alone.
    own: PathBuf,
    /// Of two.
    shared: PathBuf,
    /// For a storage of the agent.
    storage: PathBuf,
}

impl Host {
    fn new() -> Self {
        let work = Work::create(User::Same);
        let tools = Tools::obtain(&|text| eprintln!("{text}")).unwrap();
        root_tree(&work.directory("share").join("root"), &tools.busybox());
        let disk = |name, mib| blank(&work, name, mib);
        Self { own: disk("own", 64), shared: disk("shared", 48), storage: disk("storage", 64), work }
    }

    fn boot(&self) -> Guest {
        let resources = json!({ "pods/volumes/models": STANDARD.encode(KEY) }).to_string();
        let hub = |socket: &str, more: &str| {
            format!("socket = \"unix://{socket}\"\n[kbc]\nname = \"offline_fs_kbc\"\n{more}")
        };
        let listed = format!("[innerkeep.volumes]\nwritable = [\"{URI}\"]\n");
        let unclean = format!("{listed}unclean = [\"{URI}\"]\n");
        let programs = Programs::built();
        let spec = spec(&programs, &self.work, ALLOW_ALL)
            .program("test-call")
            .unwrap()
            .share(&self.work.join("share"))
            .plan(|plan| plan.share = false)
            .disk(&self.own)
            .disk_at(&self.storage, 0x10)
            .file("/etc/aa-offline_fs_kbc-keys.json", 0o600, resources)
            .file("/etc/writer.toml", 0o644, hub("/run/writer.sock", &listed))
            .file("/etc/unclean.toml", 0o644, hub("/run/unclean.sock", &unclean))
            .file("/etc/reader.toml", 0o644, hub("/run/reader.sock", ""))
            .modules(&["dm_crypt", "dm_integrity", "authenc"]);
        let cryptsetup = Path::new(CRYPTSETUP);
        let spec = spec.file("/etc/volume.key", 0o600, KEY).host_program(cryptsetup, CRYPTSETUP).unwrap();
        serving(twice(with_mkfs(spec), &self.shared))
    }

    fn contains(&self, image: &Path, text: &str) -> bool {
        std::fs::read(image).unwrap().windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// A file of the host as two disks of one machine, as it would be one disk of each of two.
fn twice(spec: Spec, image: &Path) -> Spec {
    [0x11, 0x12].iter().fold(spec, |spec, slot| {
        let name = format!("twice{slot:x}");
        let file = json!({ "driver": "file", "filename": image, "locking": "off" });
        let drive = json!({ "driver": "raw", "node-name": name, "file": file }).to_string();
        let device = format!("virtio-blk-pci,drive={name},id={name},addr={slot:02x},share-rw=on");
        spec.qemu(&["-blockdev", &drive, "-device", &device])
    })
}

/// A disk of the guest by its slot on the bus.
fn disk_at(guest: &Guest, slot: u8) -> String {
    let path = format!("/sys/bus/pci/devices/0000:00:{slot:02x}.0/virtio*/block");
    format!("/dev/{}", shell(guest, &format!("ls {path}")).trim())
}

/// One pod: a hub in the guest.
struct Pod<'g> {
    guest: &'g Guest,
    name: &'static str,
    process: String,
}

impl<'g> Pod<'g> {
    fn start(guest: &'g Guest, name: &'static str) -> Self {
        let flags = "--insecure-sample --insecure-unbound-config --insecure-offline-kbc";
        let program = "/bin/innerkeep-agent confidential-data-hub";
        let line = format!(
            "rm -f /run/{name}.sock; {program} -c /etc/{name}.toml {flags} > /run/{name}.log 2>&1 < /dev/null & echo $!; \
             for i in $(seq 200); do test -S /run/{name}.sock && exit 0; sleep 0.1; done; cat /run/{name}.log; exit 1"
        );
        let process = shell(guest, &line).trim().to_owned();
        Self { guest, name, process }
    }

    /// Ends it as a machine that is shut down does, which closes its volumes.
    fn end(self) {
        let Self { guest, process, name } = self;
        let line = format!(
            "kill {process}; for i in $(seq 100); do test -d /proc/{process} || exit 0; sleep 0.1; done; cat /run/{name}.log; exit 1"
        );
        shell(guest, &line);
    }

    fn call(&self, disk: &str, options: &[(&str, &str)], flags: &[&str], place: &str) -> String {
        let mut request = field(1, b"block-device");
        let always = [("devicePath", disk), ("encryptionType", "luks2"), ("dataIntegrity", "true")];
        for (key, value) in always.iter().chain(options) {
            request.extend(field(2, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat()));
        }
        flags.iter().for_each(|flag| request.extend(field(3, flag.as_bytes())));
        request.extend(field(4, place.as_bytes()));
        let socket = format!("/run/{}.sock", self.name);
        let payload = hex::encode(request);
        let said =
            exec(self.guest, &["/bin/test-call", &socket, "api.SecureMountService", "SecureMount", &payload]);
        assert_eq!(said.status, 0, "{said:?}");
        String::from_utf8_lossy(&hex::decode(said.stdout.trim()).unwrap()).into_owned()
    }

    /// Mounts a file system.
    #[track_caller]
    fn mounts(&self, disk: &str, options: &[(&str, &str)], flags: &[&str], place: &str) {
        let all = [&[("targetType", "fileSystem"), ("filesystemType", "ext4")], options].concat();
        shell(self.guest, &format!("mkdir -p {place}"));
        let answer = self.call(disk, &all, flags, place);
        assert!(!answer.contains("Secure Mount failed"), "{answer}");
    }

    /// It is refused with this code, and nothing is mapped or mounted that was not.
    #[track_caller]
    fn refuses(&self, disk: &str, options: &[(&str, &str)], flags: &[&str], place: &str, code: &str) {
        let all = [&[("targetType", "fileSystem"), ("filesystemType", "ext4")], options].concat();
        shell(self.guest, &format!("mkdir -p {place}"));
        let before = (mapped(self.guest), mounts_at(self.guest, place).len());
        let answer = self.call(disk, &all, flags, place);
        let expected = format!("[CDH] [ERROR]: Secure Mount failed: {code}");
        assert!(answer.contains(&expected), "{expected} in {answer}");
        assert_eq!((mapped(self.guest), mounts_at(self.guest, place).len()), before, "{code}");
    }
}

/// Devices of device-mapper.
fn mapped(guest: &Guest) -> String {
    shell(guest, "cd /sys/class/block; ls -d dm-* 2>/dev/null; true")
}

const EMPTY: &[(&str, &str)] = &[("sourceType", "empty")];
const NEW: &[(&str, &str)] = &[("sourceType", "empty"), ("key", URI)];
const ENCRYPTED: &[(&str, &str)] = &[("sourceType", "encrypted"), ("key", URI)];

#[test]
fn volumes_of_a_guest_are_its_own() {
    let host = Host::new();
    let guest = host.boot();
    let (first, second) = (disk_at(&guest, 0x11), disk_at(&guest, 0x12));
    evil_host_reads_and_alters_an_empty_volume(&guest, &host);
    what_fails_is_undone(&guest);
    a_volume_as_a_device_by_its_numbers(&guest, &host);
    a_volume_of_a_key_is_opened_again(&guest, &host, &first, &second);
    evil_host_swaps_the_header(&guest, &host, &first);
    the_agent_encrypts_storages(&guest, &host);
    assert_eq!(mapped(&guest), "");
    a_guest_that_was_killed_leaves_its_mark(guest, &host);
}

/// Nothing of it is on the disk in the clear, and a bit that was altered there is an error of its own block.
fn evil_host_reads_and_alters_an_empty_volume(guest: &Guest, host: &Host) {
    let pod = Pod::start(guest, "reader");
    let upstream = [EMPTY, &[("mkfsOpts", "-E lazy_journal_init")]].concat();
    pod.mounts("/dev/vdb", &upstream, &[], "/mnt/a");
    assert_mounted(guest, "/mnt/a", &["nosuid,nodev,noatime", "- ext4 /dev/dm-"]);
    shell(guest, &format!("for i in $(seq 2000); do echo '{MARKER}'$i; done > /mnt/a/text; sync"));
    let before = std::fs::read(&host.own).unwrap();
    shell(
        guest,
        "dd if=/dev/urandom of=/mnt/a/file bs=1M count=2 2>/dev/null; sha256sum /mnt/a/file > /run/sum; sync; sleep 1",
    );
    assert!(!host.contains(&host.own, MARKER));
    // What was written last, behind the journals.
    let after = std::fs::read(&host.own).unwrap();
    let at = last_run(&before, &after, MIB / 2);
    flip(&host.own, at as u64);
    shell(guest, "echo 3 > /proc/sys/vm/drop_caches");
    let read = exec(guest, &["sh", "-c", "cat /mnt/a/file > /dev/null"]);
    assert!(read.status != 0 && read.stderr.contains("Input/output error"), "{read:?}");
    let whole = shell(
        guest,
        "n=0; for i in $(seq 0 511); do dd if=/mnt/a/file of=/dev/null bs=4096 iflag=direct skip=$i count=1 2>/dev/null || n=$((n+1)); done; echo $n",
    );
    assert_eq!(whole.trim(), "1", "one block of 512");
    assert_eq!(shell(guest, "tail -n 1 /mnt/a/text"), format!("{MARKER}2000\n"));
    flip(&host.own, at as u64);
    shell(guest, "echo 3 > /proc/sys/vm/drop_caches; sha256sum -c /run/sum");
    pod.end();
    assert_eq!((mapped(guest).as_str(), mounts_at(guest, "/mnt/a").len()), ("", 0));
    // The key was nowhere else.
    let pod = Pod::start(guest, "reader");
    pod.refuses("/dev/vdb", ENCRYPTED, &["ro"], "/mnt/a", "VOLUME_HEADER_AUTHENTICATION");
    pod.end();
}

/// The last place at which so many bytes in a row were written, and there its middle.
fn last_run(before: &[u8], after: &[u8], least: usize) -> usize {
    let changed: Vec<bool> =
        before.chunks(4096).zip(after.chunks(4096)).map(|(old, new)| old != new).collect();
    let mut end = changed.len();
    while end > 0 {
        let run = changed.get(..end).unwrap().iter().rev().take_while(|&&is| is).count();
        if run * 4096 >= least {
            return (end - run / 2) * 4096;
        }
        end -= run.max(1);
    }
    panic!("{least} bytes in a row were not written");
}

fn what_fails_is_undone(guest: &Guest) {
    let pod = Pod::start(guest, "reader");
    // At the very end: mapped, formatted, and then its name is taken.
    shell(guest, "mkdir -p /dev/mapper /mnt/full; touch /dev/mapper/taken /mnt/full/file");
    let named = [EMPTY, &[("mapperName", "taken")]].concat();
    pod.refuses("/dev/vdb", &named, &[], "/mnt/a", "VOLUME_IO");
    pod.refuses("/dev/vdb", EMPTY, &[], "/mnt/full", "VOLUME_PLACE");
    // A disk of somebody else's: the agent's initdata, mounted or not, is too small; one that is mapped is taken.
    pod.mounts("/dev/vdb", EMPTY, &[], "/mnt/a");
    pod.refuses("/dev/vdb", EMPTY, &[], "/mnt/c", "VOLUME_DEVICE_TAKEN");
    pod.refuses("/dev/vdb", EMPTY, &[], "/mnt/a", "VOLUME_PLACE");
    pod.end();
}

/// A link to a device instead of a mount, and a disk by its numbers, which count more than a path.
fn a_volume_as_a_device_by_its_numbers(guest: &Guest, host: &Host) {
    let pod = Pod::start(guest, "reader");
    let numbers = shell(guest, "cat /sys/class/block/vdb/dev").trim().to_owned();
    let as_device = |numbers: &str, more: &[(&str, &str)]| {
        let options = [EMPTY, &[("targetType", "device"), ("deviceId", numbers)], more].concat();
        pod.call("/dev/vda", &options, &[], "/mnt/device")
    };
    let fails = |answer: &str, code: &str| {
        assert!(answer.contains(&format!("Secure Mount failed: {code}")), "{code} in {answer}");
        assert_eq!(mapped(guest), "", "{code}");
        shell(guest, "test ! -L /mnt/device");
    };
    // A file system of a device is nobody's to ask for; numbers that no disk has, or that are none.
    fails(&as_device(&numbers, &[("filesystemType", "ext4")]), "VOLUME_OPTION");
    fails(&as_device("4095:1", &[]), "VOLUME_");
    fails(&as_device("1", &[]), "VOLUME_OPTION");
    shell(guest, "mkdir -p /mnt/device");
    fails(&as_device(&numbers, &[]), "VOLUME_IO");
    shell(guest, "rmdir /mnt/device");
    let answer = as_device(&numbers, &[("mapperName", "models")]);
    assert!(!answer.contains("Secure Mount failed"), "{answer}");
    let node = shell(guest, "readlink /mnt/device").trim().to_owned();
    assert!(node.starts_with("/dev/dm-"), "{node}");
    assert_eq!(shell(guest, "readlink /dev/mapper/models").trim(), node);
    // Below it is the disk with those numbers, and not the one of the path.
    let below = "d=$(readlink /mnt/device); d=${d#/dev/}; while [ -d /sys/class/block/$d/slaves ] && [ -n \"$(ls /sys/class/block/$d/slaves)\" ]; \
                 do d=$(ls /sys/class/block/$d/slaves); done; echo $d";
    assert_eq!(shell(guest, below).trim(), "vdb");
    let write = format!(
        "yes '{MARKER}' | dd of=/mnt/device bs=4096 count=256 seek=64 iflag=fullblock oflag=direct conv=notrunc 2>/dev/null; sync"
    );
    let before = std::fs::read(&host.own).unwrap();
    shell(guest, &write);
    let read = "dd if=/mnt/device bs=4096 skip=64 count=256 iflag=direct 2>/run/said | sort | uniq -c | wc -l; cat /run/said";
    let sum = "dd if=/mnt/device bs=4096 skip=64 count=256 iflag=direct 2>/dev/null | sha256sum";
    let whole = shell(guest, sum);
    assert!(shell(guest, read).contains("256+0 records in"));
    let first = shell(guest, "dd if=/mnt/device bs=4096 skip=64 count=1 2>/dev/null | head -n 1");
    assert!(first.starts_with(MARKER.trim_end()), "{first}");
    assert!(!host.contains(&host.own, MARKER), "plaintext on the disk");
    let at = last_run(&before, &std::fs::read(&host.own).unwrap(), MIB / 2) as u64;
    flip(&host.own, at);
    shell(guest, "echo 3 > /proc/sys/vm/drop_caches");
    let read = exec(guest, &["sh", "-c", "dd if=/mnt/device of=/dev/null bs=4096 skip=64 count=256"]);
    assert!(read.status != 0 && read.stderr.contains("Input/output error"), "{read:?}");
    flip(&host.own, at);
    shell(guest, "echo 3 > /proc/sys/vm/drop_caches");
    assert_eq!(shell(guest, sum), whole);
    // Taken by nobody else, and gone with the pod.
    pod.refuses("/dev/vdb", EMPTY, &[], "/mnt/a", "VOLUME_DEVICE_TAKEN");
    pod.end();
    assert_eq!(mapped(guest), "");
    shell(guest, "test ! -L /mnt/device && test ! -L /dev/mapper/models");
}

/// The machine is gone while a volume is written: whoever comes next cannot know whether it still is, until its operator says so.
fn a_guest_that_was_killed_leaves_its_mark(guest: Guest, host: &Host) {
    let disk = disk_at(&guest, 0x11);
    let writer = Pod::start(&guest, "writer");
    writer.mounts(&disk, ENCRYPTED, &[], "/mnt/b");
    shell(&guest, &format!("echo '{MARKER}' > /mnt/b/before-the-end; sync"));
    drop(guest);
    let guest = host.boot();
    let disk = disk_at(&guest, 0x11);
    let before = std::fs::read(&host.shared).unwrap();
    let (writer, reader) = (Pod::start(&guest, "writer"), Pod::start(&guest, "reader"));
    writer.refuses(&disk, ENCRYPTED, &[], "/mnt/b", "VOLUME_IN_USE");
    for pod in [&writer, &reader] {
        pod.refuses(&disk, ENCRYPTED, &["ro"], "/mnt/b", "VOLUME_IN_USE");
    }
    writer.refuses(&disk, NEW, &[], "/mnt/b", "VOLUME_EXISTS");
    writer.end();
    reader.end();
    assert!(std::fs::read(&host.shared).unwrap() == before, "who was refused has written");
    let unclean = Pod::start(&guest, "unclean");
    unclean.mounts(&disk, ENCRYPTED, &[], "/mnt/b");
    assert_eq!(shell(&guest, "cat /mnt/b/before-the-end"), format!("{MARKER}\n"));
    shell(&guest, "echo after > /mnt/b/after; sync");
    unclean.end();
    // It was closed: anybody who may opens it again.
    let writer = Pod::start(&guest, "writer");
    writer.mounts(&disk, ENCRYPTED, &[], "/mnt/b");
    assert_eq!(shell(&guest, "cat /mnt/b/after"), "after\n");
    writer.end();
    assert_eq!(mapped(&guest), "");
}

/// One key, two pods: who writes is alone, who reads is not.
fn a_volume_of_a_key_is_opened_again(guest: &Guest, host: &Host, first: &str, second: &str) {
    let (writer, reader) = (Pod::start(guest, "writer"), Pod::start(guest, "reader"));
    reader.refuses(first, NEW, &[], "/mnt/b", "VOLUME_WRITE_NOT_BOUND");
    writer.mounts(first, NEW, &[], "/mnt/b");
    shell(guest, &format!("echo '{MARKER}' > /mnt/b/kept; sync"));
    reader.refuses(second, ENCRYPTED, &["ro"], "/mnt/c", "VOLUME_IN_USE");
    reader.refuses(second, ENCRYPTED, &[], "/mnt/c", "VOLUME_WRITE_NOT_BOUND");
    writer.end();
    assert!(!host.contains(&host.shared, MARKER));
    cryptsetup_reads_it(guest, first);
    // Two that read, and nobody writes on the disk.
    let before = std::fs::read(&host.shared).unwrap();
    let writer = Pod::start(guest, "writer");
    for (pod, disk, place) in [(&writer, first, "/mnt/b"), (&reader, second, "/mnt/c")] {
        pod.mounts(disk, ENCRYPTED, &["ro"], place);
        assert_mounted(guest, place, &["ro,nosuid,nodev,noatime"]);
        assert_eq!(shell(guest, &format!("cat {place}/kept")), format!("{MARKER}\n"));
        let written = exec(guest, &["sh", "-c", &format!("echo x > {place}/new")]);
        assert!(written.status != 0 && written.stderr.contains("Read-only"), "{written:?}");
    }
    writer.end();
    reader.end();
    assert!(std::fs::read(&host.shared).unwrap() == before, "readers wrote");
    let writer = Pod::start(guest, "writer");
    writer.refuses(first, NEW, &[], "/mnt/b", "VOLUME_EXISTS");
    writer.mounts(first, ENCRYPTED, &[], "/mnt/b");
    shell(guest, "cat /mnt/b/kept > /mnt/b/more; sync");
    writer.end();
    assert_eq!(mapped(guest), "");
}

/// The volume is one of LUKS2 for the program that everybody has, with its key.
fn cryptsetup_reads_it(guest: &Guest, disk: &str) {
    let open = format!("cryptsetup open --type luks2 --key-file /etc/volume.key {disk} oracle");
    let said = shell(
        guest,
        &format!(
            "export DM_DISABLE_UDEV=1 PATH=$PATH:/usr/sbin; mkdir -p /run/cryptsetup /mnt/oracle; {open} && \
             mount -t ext4 /dev/mapper/oracle /mnt/oracle && cat /mnt/oracle/kept; umount /mnt/oracle; cryptsetup close oracle"
        ),
    );
    assert_eq!(said, format!("{MARKER}\n"));
    assert_eq!(mapped(guest), "");
}

/// Headers that say something else, no cipher or another key slot; each whole in itself.
fn evil_host_swaps_the_header(guest: &Guest, host: &Host, first: &str) {
    let image = std::fs::File::options().read(true).write(true).open(&host.shared).unwrap();
    let mut good = vec![0; MIB];
    image.read_exact_at(&mut good, 0).unwrap();
    let writer = Pod::start(guest, "writer");
    let seal = good.split_off(MIB - 4096);
    for cipher in ["cipher_null-ecb --key-size 256", "aes-xts-plain64"] {
        // By the program that writes such headers, and for the right key: as if the host had stolen it.
        let how = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000 --luks2-keyslots-size 512k --offset 2048";
        let format =
            format!("cryptsetup luksFormat -q --type luks2 --cipher {cipher} {how} {first} /etc/volume.key");
        shell(
            guest,
            &format!(
                "export DM_DISABLE_UDEV=1 PATH=$PATH:/usr/sbin; {format} && sync; echo 3 > /proc/sys/vm/drop_caches"
            ),
        );
        image.write_all_at(&seal, (MIB - 4096) as u64).unwrap();
        let before = std::fs::read(&host.shared).unwrap();
        assert!(before.get(..good.len()).unwrap() != good, "the header is another one");
        for flags in [&["ro"][..], &[]] {
            writer.refuses(first, ENCRYPTED, flags, "/mnt/b", "VOLUME_HEADER_AUTHENTICATION");
        }
        assert!(std::fs::read(&host.shared).unwrap() == before, "something was written");
    }
    shell(guest, "echo 3 > /proc/sys/vm/drop_caches");
    image.write_all_at(&good, 0).unwrap();
    writer.mounts(first, ENCRYPTED, &["ro"], "/mnt/b");
    assert_eq!(shell(guest, "cat /mnt/b/more"), format!("{MARKER}\n"));
    writer.end();
}

/// What Kata's runtime asks for with an encrypted emptyDir.
fn the_agent_encrypts_storages(guest: &Guest, host: &Host) {
    let client = AgentClient::connect(guest);
    let mut request = sandbox("pod1");
    request.storages = vec![storage("virtio-fs", "out", "virtiofs", &format!("{SHARED}/"), &[])];
    ok(guest, client.create_sandbox(&request));
    let place = volume("encrypted");
    let wanted = |options: &[&str]| Storage {
        driver_options: options.iter().map(|&option| option.to_owned()).collect(),
        ..storage("blk", "10", "ext4", &place, &[])
    };
    let container = |name: &str, storage: Storage| {
        let line =
            format!("for i in 1 2 3; do echo '{MARKER}'$i; done > /tmp/s/text && tail -n 1 /tmp/s/text");
        let mut request = create(name, &format!("{SHARED}/root"), &["sh", "-c", &line]);
        request.OCI.as_mut().unwrap().Mounts.push(bound(&place, "/tmp/s"));
        request.storages = vec![storage];
        request
    };
    refused(
        client.create_container(&container("none", wanted(&["encryption_key=ephemeral"]))),
        "INTERNAL",
        "STORAGE_OPTION",
    );
    assert_eq!(mapped(guest), "");
    let both = wanted(&["create_filesystem", "encryption_key=ephemeral"]);
    ok(guest, client.create_container(&container("one", both)));
    assert_mounted(guest, &place, &["nosuid,nodev,noatime", "- ext4 /dev/dm-"]);
    ok(guest, client.start_container(&start("one")));
    assert_eq!(read_until(&client, "one", "", "\0"), format!("{MARKER}3\n"));
    assert_eq!(ok(guest, client.wait_process(&wait("one", ""))).status, 0);
    shell(guest, "sync");
    assert!(!host.contains(&host.storage, MARKER));
    ok(guest, client.remove_container(&remove("one")));
    assert!(mounts_at(guest, &place).is_empty());
    assert_eq!(mapped(guest), "");
}
