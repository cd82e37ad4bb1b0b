//! Storages of every driver, as a runtime asks for them over vsock and as the guest's kernel shows them: what they become, who uses them, and
//! that nothing is left of those that fail.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use protocol::agent::{
    CreateContainerRequest, CreateSandboxRequest, FSGroup, RemoveStaleVirtiofsShareMountsRequest,
    ResizeVolumeRequest, Storage, UpdateEphemeralMountsRequest, VolumeStatsRequest,
};
use protocol::csi::volume_usage::Unit;
use protocol::types::FSGroupChangePolicy;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use tests::agent_client::checks::{
    assert_mounted, assert_settles, mounts_at, ok, read_until, refused, run_container, state,
};
use tests::agent_client::requests::{SHARED, create, exec, remove, sandbox, start, wait};
use tests::agent_client::storages::{SANDBOX, bound, storage, volume};
use tests::agent_client::{ALLOW_ALL, AgentClient, serving, spec};
use tests::disk_images::{blank, ext4_with, root_tree, with_mkfs};
use tests::programs::{Programs, User};
use tests::vm::shell;
use tests::work::Work;
use xtask::vm::{Guest, Tools};

/// What a host has on its disks and in its directory.
struct Host {
    work: Work,
    shared: PathBuf,
}

impl Host {
    fn new() -> Self {
        let work = Work::create(User::Same);
        let shared = work.directory("shared");
        let tools = Tools::obtain(&|text| eprintln!("{text}")).unwrap();
        for root in ["root", "layer"] {
            root_tree(&shared.join(root), &tools.busybox());
        }
        std::fs::write(shared.join("layer/below"), "below\n").unwrap();
        std::fs::create_dir(shared.join("plain")).unwrap();
        std::fs::write(shared.join("plain/file"), "bound\n").unwrap();
        std::fs::create_dir_all(shared.join("watched/..data")).unwrap();
        std::fs::write(shared.join("watched/..data/key"), "first\n").unwrap();
        symlink("..data/key", shared.join("watched/key")).unwrap();
        symlink("/etc", shared.join("link")).unwrap();
        Self { work, shared }
    }

    fn boot(&self) -> Guest {
        let image = |name: &str, text: &str| {
            ext4_with(&self.work, name, 8, &[("hello", text.as_bytes()), ("deep/er/file", b"x")])
        };
        let scsi = image("scsi", "from scsi\n");
        let pmem = image("pmem", "from pmem\n");
        let spec = spec(&Programs::built(), &self.work, ALLOW_ALL)
            .share(&self.shared)
            // Mounted by the agent, as the runtime asks for it.
            .plan(|plan| plan.share = false)
            .disk_at(&image("blk", "from blk\n"), 0x10)
            .disk_at(&blank(&self.work, "blank", 16), 0x11)
            .disk_at(&image("named", "from named\n"), 0x12)
            .scsi(&[(1, 2, &scsi)])
            .nvdimm(&pmem, 8)
            .modules(&["overlay", "squashfs"]);
        serving(with_mkfs(spec))
    }
}

/// The sandbox as runtimes ask for it.
fn of_the_sandbox() -> CreateSandboxRequest {
    let options = ["noexec", "nosuid", "nodev", "mode=1777", "size=1048576"];
    let storages = vec![
        storage("virtio-fs", "out", "virtiofs", &format!("{SHARED}/"), &[]),
        storage("ephemeral", "shm", "tmpfs", &format!("{SANDBOX}/shm"), &options),
    ];
    CreateSandboxRequest { storages, ..sandbox("pod1") }
}

/// A container on the root that the host shares, with these storages, each at `/s/N` in it.
fn with_storages(container: &str, storages: Vec<Storage>, script: &str) -> CreateContainerRequest {
    let mut request = create(container, &format!("{SHARED}/root"), &["sh", "-c", script]);
    let spec = request.OCI.as_mut().unwrap();
    for (index, storage) in storages.iter().enumerate() {
        spec.Mounts.push(bound(&storage.mount_point, &format!("/tmp/s/{index}")));
    }
    request.storages = storages;
    request
}

// COMPAT: CreateContainer, CreateSandbox better: options of storages in memory are in force; a storage that fails takes those before it along
// COMPAT: UpdateEphemeralMounts same: text for storages of another driver
// COMPAT: UpdateEphemeralMounts better: all of them, or none
// COMPAT: GetVolumeStats same: bytes, then inodes, and a condition
// COMPAT: ResizeVolume same: code and text of an agent without it
// COMPAT: RemoveStaleVirtiofsShareMounts same
#[test]
fn storages_of_every_driver() {
    let host = Host::new();
    let guest = host.boot();
    let client = AgentClient::connect(&guest);
    shell(&guest, "mkdir -p /run/kata-containers");

    // What the runtime has for the sandbox: the shared file system, and memory.
    let shm = format!("{SANDBOX}/shm");
    ok(&guest, client.create_sandbox(&of_the_sandbox()));
    assert_mounted(&guest, SHARED, &["rw", "nodev", "- virtiofs out "]);
    assert_mounted(&guest, &shm, &["nosuid,nodev,noexec", "- tmpfs shm ", "size=1024k"]);
    assert_eq!(shell(&guest, &format!("stat -c %a {shm}")).trim(), "1777");
    assert_eq!(shell(&guest, &format!("cat {SHARED}/plain/file")), "bound\n");
    // What is made once is made now.
    let (_, status) = run_container(&guest, &client, &with_storages("warm", Vec::new(), "exit 3"));
    assert_eq!(status, 3);
    ok(&guest, client.remove_container(&remove("warm")));
    shell(&guest, &format!("mkdir -p {SANDBOX}/storage"));
    let before = state(&guest);

    every_driver(&guest, &client);
    assert_settles(&guest, &before, "a container with a storage of every driver");
    a_layered_root(&guest, &client, &host);
    assert_settles(&guest, &before, "a container with a root of layers");
    users_of_a_storage(&guest, &client);
    assert_settles(&guest, &before, "storages with several users");
    a_watched_directory(&guest, &client, &host);
    assert_settles(&guest, &before, "a watched directory");
    failures_leave_nothing(&guest, &client, &before);
    ephemeral_updates(&guest, &client, &shm);
    volumes(&guest, &client, &shm);
    evil_host_links_as_places(&guest, &client);
    assert_settles(&guest, &before, "links of the host as places");
    guest.power_off().unwrap();
}

/// One container with a storage of each kind, seen from outside and from inside.
fn every_driver(guest: &Guest, client: &AgentClient) {
    let blk = storage("blk", "10", "ext4", &volume("blk"), &["ro", "noatime"]);
    let mut scsi = storage("scsi", "1:2", "ext4", &volume("scsi"), &[]);
    scsi.fs_group = Some(FSGroup {
        group_id: 4321,
        group_change_policy: FSGroupChangePolicy::Always.into(),
        ..FSGroup::default()
    })
    .into();
    let mut made = storage("blk", "11", "ext4", &volume("made"), &[]);
    made.driver_options = vec!["create_filesystem".to_owned()];
    let name = shell(guest, "ls /sys/bus/pci/devices/0000:00:12.0/virtio*/block").trim().to_owned();
    let local = format!("{SANDBOX}/storage/local");
    let storages = vec![
        blk,
        scsi,
        storage("nvdimm", "/dev/pmem0", "ext4", &volume("pmem"), &["ro"]),
        made,
        storage("mmioblk", &format!("/dev/{name}"), "ext4", &volume("named"), &["ro"]),
        storage("ephemeral", "tmpfs", "tmpfs", &volume("memory"), &["size=65536", "fsgid=1234", "mode=0750"]),
        storage("ephemeral", "nodev", "hugetlbfs", &volume("huge"), &["pagesize=2097152", "size=4194304"]),
        storage("local", "local", "local", &local, &["mode=0711", "fsgid=77"]),
        storage("bind", &format!("{SHARED}/plain"), "bind", &volume("bind"), &["rbind", "ro"]),
    ];
    let places: Vec<String> = storages.iter().map(|storage| storage.mount_point.clone()).collect();
    let script = "cat /tmp/s/0/hello /tmp/s/1/hello /tmp/s/2/hello /tmp/s/4/hello /tmp/s/8/file; \
                  echo made > /tmp/s/3/new && cat /tmp/s/3/new; touch /tmp/s/0/x 2>/dev/null || echo read-only; \
                  touch /tmp/s/8/x 2>/dev/null || echo bound read-only; \
                  dd if=/dev/zero of=/tmp/s/5/fill bs=4096 count=100 2>/dev/null || echo full; \
                  touch /tmp/s/7/x && rm /tmp/s/7/x && stat -c '%g %a' /tmp/s/1/deep/er/file; read line";
    let request = with_storages("every", storages, script);
    ok(guest, client.create_container(&request));
    let [blk, scsi, pmem, made, named, memory, huge, _, bind] = places.as_slice() else { panic!("nine") };
    let node = |address: &str| {
        let name = shell(guest, &format!("ls /sys/bus/pci/devices/0000:00:{address}.0/virtio*/block"));
        format!("- ext4 /dev/{} ", name.trim())
    };
    assert_mounted(guest, blk, &["ro,noatime", &node("10")]);
    assert_mounted(guest, scsi, &["- ext4 /dev/sda rw"]);
    assert_mounted(guest, pmem, &["- ext4 /dev/pmem0 ro"]);
    assert_mounted(guest, made, &[&node("11")]);
    assert_mounted(guest, named, &[&node("12")]);
    assert_mounted(guest, memory, &["nodev", "- tmpfs tmpfs ", "size=64k"]);
    assert_eq!(shell(guest, &format!("stat -c '%a %g' {memory}")).trim(), "2750 1234");
    assert_mounted(guest, huge, &["- hugetlbfs nodev ", "pagesize=2M"]);
    assert_eq!(shell(guest, "cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages").trim(), "2");
    assert!(mounts_at(guest, &local).is_empty());
    assert_eq!(shell(guest, &format!("stat -c '%a %g' {local}")).trim(), "2711 77");
    assert_mounted(guest, bind, &["ro", "/plain ", "- virtiofs out "]);

    ok(guest, client.start_container(&start("every")));
    let said = read_until(client, "every", "", "4321 ");
    for line in [
        "from blk\n",
        "from scsi\n",
        "from pmem\n",
        "from named\n",
        "bound\n",
        "made\n",
        "read-only\n",
        "bound read-only\n",
        "full\n",
        "4321 664\n",
    ] {
        assert!(said.contains(line), "{line:?} in {said:?}");
    }
    // A device that a storage has is nobody else's.
    let other = with_storages("other", vec![storage("blk", "10", "ext4", &volume("twice"), &[])], "true");
    refused(client.create_container(&other), "INTERNAL", "STORAGE_DEVICE_TAKEN");
    let named = format!("/dev/{name}");
    let other = with_storages("other", vec![storage("blk", &named, "ext4", &volume("twice"), &[])], "true");
    refused(client.create_container(&other), "INTERNAL", "STORAGE_DEVICE_TAKEN");
    ok(guest, client.remove_container(&remove("every")));
    for place in &places {
        assert!(mounts_at(guest, place).is_empty(), "{place}");
    }
    // It was given back: what the container wrote on the disk is there.
    let again = with_storages(
        "again",
        vec![storage("blk", "11", "ext4", &volume("made"), &["ro"])],
        "cat /tmp/s/0/new",
    );
    assert_eq!(run_container(guest, client, &again), ("made\n".to_owned(), 0));
    ok(guest, client.remove_container(&remove("again")));
}

/// A root of layers: below it what the host shares, above it what the container writes, in the guest alone.
fn a_layered_root(guest: &Guest, client: &AgentClient, host: &Host) {
    let place = "/run/kata-containers/layered/rootfs";
    let layers = format!("lowerdir={SHARED}/layer");
    let mut request = create("layered", place, &["sh", "-c", "cat /below; echo above > /below; cat /below"]);
    request.storages = vec![storage(
        "overlayfs",
        "none",
        "overlay",
        place,
        &["io.katacontainers.fs-opt.overlay-rw", &layers],
    )];
    ok(guest, client.create_container(&request));
    assert_mounted(guest, place, &["- overlay overlay rw", "lowerdir=", "upperdir="]);
    ok(guest, client.start_container(&start("layered")));
    assert_eq!(read_until(client, "layered", "", "above\n"), "below\nabove\n");
    assert_eq!(ok(guest, client.wait_process(&wait("layered", ""))).status, 0);
    assert_eq!(shell(guest, "cat /run/kata-containers/layered/upper/below"), "above\n");
    assert_eq!(std::fs::read_to_string(host.shared.join("layer/below")).unwrap(), "below\n");
    ok(guest, client.remove_container(&remove("layered")));
}

/// One mount, however many use it; the last one takes it along, unless the sandbox shares it.
fn users_of_a_storage(guest: &Guest, client: &AgentClient) {
    let place = volume("counted");
    let counted = || storage("blk", "10", "ext4", &place, &["ro"]);
    let shared = Storage { shared: true, ..storage("local", "local", "local", &volume("kept"), &[]) };
    for name in ["first", "second"] {
        let request = with_storages(name, vec![counted(), shared.clone()], "read line");
        ok(guest, client.create_container(&request));
        assert_mounted(guest, &place, &["- ext4 "]);
    }
    let conflict = storage("blk", "10", "xfs", &place, &["ro"]);
    refused(
        client.create_container(&with_storages("third", vec![conflict], "true")),
        "INTERNAL",
        "STORAGE_CONFLICT",
    );
    ok(guest, client.remove_container(&remove("first")));
    assert_mounted(guest, &place, &["- ext4 "]);
    // The container that is left sees it all the same.
    ok(guest, client.start_container(&start("second")));
    ok(guest, client.exec_process(&exec("second", "look", &["cat", "/tmp/s/0/hello"])));
    assert_eq!(read_until(client, "second", "look", "blk\n"), "from blk\n");
    ok(guest, client.remove_container(&remove("second")));
    assert!(mounts_at(guest, &place).is_empty());
    shell(guest, &format!("test -d {0} && rmdir {0}", volume("kept")));
}

/// A copy that follows the host, which tells nobody of its changes.
fn a_watched_directory(guest: &Guest, client: &AgentClient, host: &Host) {
    let place = format!("{SHARED}/watchable/config");
    let request = with_storages(
        "watcher",
        vec![storage("watchable-bind", &format!("{SHARED}/watched"), "bind", &place, &["rbind", "ro"])],
        "cat /tmp/s/0/key; while ! grep -q second /tmp/s/0/key; do sleep 0.1; done; cat /tmp/s/0/key /tmp/s/0/more",
    );
    ok(guest, client.create_container(&request));
    assert_mounted(guest, &place, &["ro", "- tmpfs watchable "]);
    ok(guest, client.start_container(&start("watcher")));
    assert_eq!(read_until(client, "watcher", "", "first\n"), "first\n");
    // As kubelet does it: a new directory, and a link that is renamed onto the old one.
    let watched = host.shared.join("watched");
    std::fs::create_dir(watched.join("..new")).unwrap();
    std::fs::write(watched.join("..new/key"), "second\n").unwrap();
    std::fs::write(watched.join("more"), "more\n").unwrap();
    symlink("..new/key", watched.join("key.next")).unwrap();
    std::fs::rename(watched.join("key.next"), watched.join("key")).unwrap();
    assert_eq!(read_until(client, "watcher", "", "more\n"), "second\nmore\n");
    assert_eq!(ok(guest, client.wait_process(&wait("watcher", ""))).status, 0);
    ok(guest, client.remove_container(&remove("watcher")));
}

/// The last storage fails: those before it are taken off again.
fn failures_leave_nothing(guest: &Guest, client: &AgentClient, before: &str) {
    let own = "/run/kata-containers/failing/data";
    let cases = [
        (
            storage("blk", "1e/00", "ext4", own, &[]),
            "Timeout after 3s waiting for uevent block device at PCI path 00/1e.0/00.0",
        ),
        (storage("scsi", "5:6", "ext4", own, &[]), "Timeout after 3s waiting for uevent SCSI disk 5:6"),
        // A disk with another file system than was asked for.
        (storage("scsi", "1:2", "squashfs", own, &[]), "STORAGE_IO"),
        (storage("blk", "12", "floppyfs", own, &[]), "STORAGE_FILE_SYSTEM"),
        (storage("virtio-fs", "nobody", "virtiofs", own, &[]), "STORAGE_IO"),
        (storage("nvdimm", "/dev/vda", "ext4", own, &[]), "HOTPLUG_ADDRESS"),
        (storage("ephemeral", "tmpfs", "tmpfs", own, &["size=large"]), "STORAGE_IO"),
        (storage("ephemeral", "tmpfs", "tmpfs", own, &["upperdir=/etc"]), "STORAGE_OPTION"),
        (
            storage("ephemeral", "nodev", "hugetlbfs", own, &["pagesize=1073741824", "size=1073741824"]),
            "STORAGE_",
        ),
        (storage("ephemeral", "nodev", "hugetlbfs", own, &["pagesize=4096", "size=8192"]), "STORAGE_OPTION"),
        (
            storage(
                "overlayfs",
                "none",
                "overlay",
                own,
                &["lowerdir=/run/kata-containers/shared/containers/none"],
            ),
            "STORAGE_IO",
        ),
        (storage("bind", &format!("{SHARED}/none"), "bind", own, &["rbind"]), "STORAGE_IO"),
        (storage("watchable-bind", &format!("{SHARED}/none"), "bind", own, &["rbind"]), "STORAGE_IO"),
        (storage("floppy", "/dev/fd0", "vfat", own, &[]), "Failed to find the storage handler floppy"),
    ];
    for (last, expected) in cases {
        let what = format!("{} {} {:?}: {expected}", last.driver, last.source, last.options);
        let storages = vec![
            // Shared ones go, too, when nobody ever had them.
            Storage { shared: true, ..storage("blk", "11", "ext4", &volume("made"), &["ro"]) },
            storage(
                "ephemeral",
                "nodev",
                "hugetlbfs",
                &volume("huge"),
                &["pagesize=2097152", "size=2097152"],
            ),
            storage("local", "local", "local", &volume("directory/below"), &[]),
            storage("bind", &format!("{SHARED}/plain"), "bind", &volume("bind"), &["rbind"]),
            last,
        ];
        let answer = client.create_container(&with_storages("failing", storages, "true"));
        assert!(answer.is_err(), "{what}");
        refused(answer, "INTERNAL", expected);
    }
    // Looked at once: it takes longer than most of them.
    assert_settles(guest, before, "storages that fail");
    // The sandbox's own are taken back, too; what it has already stays, when it is asked for once more.
    let mut wanted = of_the_sandbox();
    wanted.storages.extend([
        storage("ephemeral", "tmpfs", "tmpfs", &volume("memory"), &[]),
        storage("ephemeral", "tmpfs", "tmpfs", &volume("other"), &["no-such-option"]),
    ]);
    refused(client.create_sandbox(&wanted), "INTERNAL", "STORAGE_OPTION");
    ok(guest, client.create_sandbox(&of_the_sandbox()));
    assert_settles(guest, before, "a sandbox that was not made");
}

/// What is in memory grows with the machine, and nothing else changes.
fn ephemeral_updates(guest: &Guest, client: &AgentClient, shm: &str) {
    let update = |storages: Vec<Storage>| {
        client.update_ephemeral_mounts(&UpdateEphemeralMountsRequest { storages, ..Default::default() })
    };
    shell(guest, &format!("echo kept > {shm}/file"));
    let before = state(guest);
    let own = |size: &str| storage("ephemeral", "shm", "tmpfs", shm, &["noexec", size, "mode=1777"]);
    ok(guest, update(vec![own("size=2097152")]));
    assert_mounted(guest, shm, &["nosuid,nodev,noexec", "- tmpfs shm ", "size=2048k"]);
    assert_eq!(shell(guest, &format!("cat {shm}/file")), "kept\n");
    let other = storage("blk", "10", "ext4", &volume("blk"), &[]);
    refused(
        update(vec![own("size=3145728"), other]),
        "INTERNAL",
        "Unsupported storage type for syncing mounts blk",
    );
    assert_mounted(guest, shm, &["size=2048k"]);
    refused(update(vec![own("size=3145728"), own("size=none")]), "INTERNAL", "STORAGE_IO");
    assert_mounted(guest, shm, &["size=2048k"]);
    refused(
        update(vec![storage("ephemeral", "tmpfs", "tmpfs", "/etc", &["size=4096"])]),
        "INTERNAL",
        "STORAGE_PLACE",
    );
    assert_settles(guest, &before, "updates of ephemeral storages");
    shell(guest, &format!("rm {shm}/file"));
}

/// What runtimes ask about volumes.
fn volumes(guest: &Guest, client: &AgentClient, shm: &str) {
    let stats = |path: &str| {
        client.get_volume_stats(&VolumeStatsRequest {
            volume_guest_path: path.to_owned(),
            ..VolumeStatsRequest::default()
        })
    };
    shell(guest, &format!("dd if=/dev/zero of={shm}/file bs=4096 count=10 2>/dev/null"));
    let found = ok(guest, stats(shm));
    let [bytes, inodes] = found.usage.as_slice() else { panic!("{found:?}") };
    assert_eq!((bytes.unit.enum_value(), inodes.unit.enum_value()), (Ok(Unit::BYTES), Ok(Unit::INODES)));
    assert_eq!((bytes.total, bytes.used, bytes.available), (2 << 20, 40_960, (2 << 20) - 40_960));
    assert_eq!(inodes.used, 2);
    assert!(!found.volume_condition.abnormal && found.volume_condition.message == "OK");
    shell(guest, &format!("rm {shm}/file"));
    for path in ["/", "/etc", "/proc/1/root", "/run/innerkeep", "/run/kata-containers"] {
        refused(stats(path), "INTERNAL", "VOLUME_PLACE");
    }
    refused(stats(&format!("{SHARED}/link/passwd")), "INTERNAL", "VOLUME_IO");
    refused(stats(&volume("none")), "INTERNAL", "VOLUME_IO");
    let resize =
        ResizeVolumeRequest { volume_guest_path: shm.to_owned(), size: 1 << 20, ..Default::default() };
    refused(
        client.resize_volume(&resize),
        "UNIMPLEMENTED",
        "\"resize_volume is not implemented in kata-agent\"",
    );
    assert_mounted(guest, shm, &["size=2048k"]);
    // The share is looked at, and stays.
    ok(guest, client.remove_stale_virtiofs_share_mounts(&RemoveStaleVirtiofsShareMountsRequest::default()));
    assert_mounted(guest, SHARED, &["- virtiofs out "]);
}

/// Links that lie on the host's file system lead nowhere.
fn evil_host_links_as_places(guest: &Guest, client: &AgentClient) {
    let etc = shell(guest, "ls -laR /etc | sha256sum");
    for last in [
        storage("ephemeral", "tmpfs", "tmpfs", &format!("{SHARED}/link"), &[]),
        storage("ephemeral", "tmpfs", "tmpfs", &format!("{SHARED}/link/innerkeep"), &[]),
        storage("bind", &format!("{SHARED}/link"), "bind", &volume("etc"), &["rbind"]),
        storage("bind", &format!("{SHARED}/link/innerkeep"), "bind", &volume("etc"), &["rbind"]),
        storage("watchable-bind", &format!("{SHARED}/link/innerkeep"), "bind", &volume("etc"), &["rbind"]),
        storage("local", "local", "local", &format!("{SHARED}/link/made"), &[]),
        storage("overlayfs", "none", "overlay", &volume("etc"), &[&format!("lowerdir={SHARED}/link")]),
    ] {
        let request = with_storages("evil", vec![last], "true");
        refused(client.create_container(&request), "INTERNAL", "STORAGE_");
    }
    assert_eq!(shell(guest, "ls -laR /etc | sha256sum"), etc);
}
