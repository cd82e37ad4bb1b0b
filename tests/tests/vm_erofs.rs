//! Roots of several EROFS layers in a guest, each verified by dm-verity: on partitions of one disk and on disks of their own, as runtimes ask
//! for them; what a container writes above them, and a host that alters, swaps, repeats and leaves out layers.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking")]

use protocol::agent::{CreateContainerRequest, Storage};
use std::path::PathBuf;
use tests::agent_client::checks::{
    assert_mounted, assert_settles, mounts_at, ok, read_until, refused, run_container, state,
};
use tests::agent_client::requests::{create, read, remove, sandbox, start, write};
use tests::agent_client::storages::{layer, storage};
use tests::agent_client::{ALLOW_ALL, AgentClient, serving, spec};
use tests::disk_images::{Verity, blank, erofs, find, flip, partitions, root_tree};
use tests::programs::{Programs, User};
use tests::vm::shell;
use tests::work::Work;
use xtask::vm::{Guest, Tools};

const MARK: &str = "of the lower layer ";
/// Of disks on the bus.
const TABLE: u8 = 0x10;
const WHOLE: u8 = 0x11;
const OTHER: u8 = 0x12;
const WRITABLE: u8 = 0x13;

/// Disks of a host.
struct Host {
    work: Work,
    /// The topmost layer first.
    trees: [Verity; 2],
    /// Both of them on one disk, and where they begin there.
    table: PathBuf,
    places: Vec<u64>,
    /// Each on a disk of its own.
    whole: [PathBuf; 2],
    /// For what containers write, if anybody asked it.
    writable: PathBuf,
}

impl Host {
    fn new() -> Self {
        let work = Work::create(User::Same);
        let tools = Tools::obtain(&|text| eprintln!("{text}")).unwrap();
        let (top, low) = (work.directory("top"), work.directory("low"));
        root_tree(&low, &tools.busybox());
        std::fs::create_dir(low.join("both")).unwrap();
        std::fs::create_dir(top.join("both")).unwrap();
        std::fs::write(low.join("both/file"), "from below\n").unwrap();
        std::fs::write(low.join("both/low"), "low\n").unwrap();
        std::fs::write(top.join("both/file"), "from above\n").unwrap();
        std::fs::write(top.join("both/top"), "top\n").unwrap();
        std::fs::write(low.join("data"), marked(MARK, 20_000)).unwrap();
        std::fs::write(top.join("more"), marked("of the upper layer ", 20_000)).unwrap();
        let whole =
            [("top", &top), ("low", &low)].map(|(name, from)| erofs(&work, &format!("{name}-layer"), from));
        let trees = [Verity::append(&whole[0], b"a salt"), Verity::append(&whole[1], b"")];
        let (table, places) = partitions(&work, "table", &[&whole[0], &whole[1]]);
        let writable = blank(&work, "writable", 16);
        Self { work, trees, table, places, whole, writable }
    }

    fn boot(&self) -> Guest {
        let spec = spec(&Programs::built(), &self.work, ALLOW_ALL)
            .disk_at(&self.table, TABLE)
            .disk_at(&self.whole[0], WHOLE)
            .disk_at(&self.whole[1], OTHER)
            .disk_at(&self.writable, WRITABLE)
            .modules(&["dm_verity", "erofs", "overlay"]);
        serving(spec)
    }

    /// A layer on a partition of the one disk.
    fn partition(&self, container: &str, number: usize, tree: usize) -> Storage {
        let of = format!("X-kata.partition-number={number}");
        let options =
            [self.trees[tree].options(), vec!["X-kata.gpt-partitioned=true".to_owned(), of]].concat();
        layer(container, &slot(TABLE), &options)
    }

    /// Both, and an upper layer of the host, as runtime-rs has them.
    fn layers(&self, container: &str) -> Vec<Storage> {
        let mut layers =
            vec![upper(container), self.partition(container, 1, 0), self.partition(container, 2, 1)];
        for made in ["{{ mount 0 }}/upper:0755", "{{ mount 0 }}/work:0755", "{{ mount 1 }}/both"] {
            layers[1].options.push(format!("X-kata.mkdir.path={made}"));
        }
        layers
    }
}

fn marked(mark: &str, lines: usize) -> Vec<u8> {
    (0..lines).flat_map(|line| format!("{mark}{line}\n").into_bytes()).collect()
}

fn slot(slot: u8) -> String {
    format!("{slot:02x}")
}

fn upper(container: &str) -> Storage {
    let place = format!("/run/kata-containers/{container}/rootfs");
    let options = ["rw", "X-kata.overlay-upper", "X-kata.multi-layer=true"];
    storage("blk", &slot(WRITABLE), "ext4", &place, &options)
}

fn container(name: &str, layers: Vec<Storage>, script: &str) -> CreateContainerRequest {
    let mut request = create(name, &format!("/run/kata-containers/{name}/rootfs"), &["sh", "-c", script]);
    request.storages = layers;
    request
}

/// What a container says, and its status; it is gone then.
fn run(guest: &Guest, client: &AgentClient, request: &CreateContainerRequest) -> (String, i32) {
    let ended = run_container(guest, client, request);
    ok(guest, client.remove_container(&remove(&request.container_id)));
    ended
}

// COMPAT: CreateContainer stricter: layers of a root are EROFS; what is written above them is in memory of the guest
#[test]
fn roots_of_several_layers() {
    let host = Host::new();
    let guest = host.boot();
    let client = AgentClient::connect(&guest);
    ok(&guest, client.create_sandbox(&sandbox("pod1")));
    // What is made once is made now.
    run(&guest, &client, &container("warm", host.layers("warm"), "true"));
    let before = state(&guest);
    a_container_runs_from_layers(&host, &guest, &client);
    assert_settles(&guest, &before, "a root of layers");
    layers_on_disks_of_their_own(&host, &guest, &client);
    assert_settles(&guest, &before, "layers on disks of their own");
    evil_host_flips_a_bit_of_a_layer(&host, &guest, &client);
    assert_settles(&guest, &before, "a bit that was flipped");
    evil_host_other_layers(&host, &guest, &client, &before);
    layers_that_nobody_verifies(&guest, &client);
    assert_settles(&guest, &before, "layers without trees");
    guest.power_off().unwrap();
}

fn a_container_runs_from_layers(host: &Host, guest: &Guest, client: &AgentClient) {
    let untouched = std::fs::read(&host.writable).unwrap();
    let script = "cat /both/file /both/low /both/top; head -n 1 /data; wc -l < /more; \
                  echo changed > /both/file && cat /both/file; echo new > /etc/new && cat /etc/new; read line";
    let request = container("layered", host.layers("layered"), script);
    ok(guest, client.create_container(&request));
    let place = "/run/kata-containers/layered/rootfs";
    assert_mounted(guest, place, &["nodev", "- overlay ", "redirect_dir=nofollow"]);
    // Nothing else of it has a path, and below each layer is its tree.
    assert_eq!(shell(guest, "grep -c -e erofs -e tmpfs.*innerkeep /proc/1/mountinfo || true").trim(), "0");
    let mapped = "for d in /sys/class/block/dm-*; do cut -d- -f1,2 $d/dm/name; ls $d/slaves; cat $d/ro; done";
    let disk = shell(guest, &format!("ls /sys/bus/pci/devices/0000:00:{TABLE:02x}.0/virtio*/block"));
    let disk = disk.trim();
    assert_eq!(shell(guest, mapped), format!("innerkeep-verity\n{disk}1\n1\ninnerkeep-verity\n{disk}2\n1\n"));
    ok(guest, client.start_container(&start("layered")));
    assert_eq!(
        read_until(client, "layered", "", "new\n"),
        format!("from above\nlow\ntop\n{MARK}0\n20000\nchanged\nnew\n")
    );
    // Its disk is its own, and so are its partitions.
    let other = container("other", host.layers("other"), "true");
    refused(client.create_container(&other), "INTERNAL", "STORAGE_DEVICE_TAKEN");
    let mut whole =
        storage("mmioblk", &format!("/dev/{disk}2"), "erofs", "/run/kata-containers/other/x", &["ro"]);
    refused(
        client.create_container(&container("other", vec![whole.clone()], "true")),
        "INTERNAL",
        "STORAGE_DEVICE_TAKEN",
    );
    whole.source = format!("/dev/{disk}");
    refused(
        client.create_container(&container("other", vec![whole], "true")),
        "INTERNAL",
        "STORAGE_DEVICE_TAKEN",
    );
    ok(guest, client.remove_container(&remove("layered")));
    assert!(mounts_at(guest, place).is_empty());
    shell(guest, "sync");
    assert!(std::fs::read(&host.writable).unwrap() == untouched, "the host's disk was written");
    // What was written is gone with it.
    let again = container("layered", host.layers("layered"), "cat /both/file; test -e /etc/new || echo gone");
    assert_eq!(run(guest, client, &again), ("from above\ngone\n".to_owned(), 0));
}

/// By the other driver's name, and without an upper layer.
fn layers_on_disks_of_their_own(host: &Host, guest: &Guest, client: &AgentClient) {
    let disk = |number: u8, tree: usize| {
        let mut layer = layer("own", &slot(number), &host.trees[tree].options());
        layer.driver = "erofs.multi-layer".to_owned();
        layer
    };
    let request = container(
        "own",
        vec![disk(WHOLE, 0), disk(OTHER, 1)],
        "cat /both/file /both/low; touch /x && echo written",
    );
    assert_eq!(run(guest, client, &request), ("from above\nlow\nwritten\n".to_owned(), 0));
}

/// One bit in the backing store of one layer: that read is an error, the rest of it and the other layer read.
fn evil_host_flips_a_bit_of_a_layer(host: &Host, guest: &Guest, client: &AgentClient) {
    let script = "head -n 1 /data; read line; cat /data > /dev/null || echo refused; cat /both/low; wc -l < /more; head -n 1 /data; \
                  read line; wc -l < /data; read line";
    let at = host.places[1] + find(&host.whole[1], format!("{MARK}15000\n").as_bytes());
    ok(guest, client.create_container(&container("flipped", host.layers("flipped"), script)));
    ok(guest, client.start_container(&start("flipped")));
    assert_eq!(read_until(client, "flipped", "", "\n"), format!("{MARK}0\n"));
    let drop_caches = "sync; echo 3 > /proc/sys/vm/drop_caches";
    flip(&host.table, at);
    shell(guest, drop_caches);
    ok(guest, client.write_stdin(&write("flipped", "", b"go\n")));
    let first = format!("{MARK}0\n");
    assert_eq!(read_until(client, "flipped", "", &first), format!("refused\nlow\n20000\n{first}"));
    let error = ok(guest, client.read_stderr(&read("flipped", "", 4096))).data;
    let error = String::from_utf8_lossy(&error);
    assert!(error.contains("Input/output error"), "{error}");
    flip(&host.table, at);
    shell(guest, drop_caches);
    ok(guest, client.write_stdin(&write("flipped", "", b"go\n")));
    assert_eq!(read_until(client, "flipped", "", "20000\n"), "20000\n");
    ok(guest, client.remove_container(&remove("flipped")));
}

/// Layers are what their root hashes say, each once, or there is no root.
fn evil_host_other_layers(host: &Host, guest: &Guest, client: &AgentClient, before: &str) {
    let refuses = |layers: Vec<Storage>, code: &str, text: &str| {
        refused(client.create_container(&container("evil", layers, "true")), code, text);
        assert_settles(guest, before, text);
    };
    let with = |number: usize, tree: usize| host.partition("evil", number, tree);
    // The hash of the other one: nothing of it verifies, from its superblock on.
    refuses(vec![with(1, 1), with(2, 0)], "INTERNAL", "STORAGE_");
    let mut wrong = host.trees.clone();
    wrong[1].root_hash = "5a".repeat(32);
    let low = || layer("evil", &slot(OTHER), &wrong[1].options());
    refuses(vec![with(1, 0), low()], "INTERNAL", "STORAGE_IO");
    refuses(vec![with(1, 0), with(1, 0)], "INTERNAL", "STORAGE_DEVICE_TAKEN");
    let absent = "Timeout after 3s waiting for uevent partition 3 of ";
    refuses(vec![with(1, 0), with(3, 1)], "INTERNAL", absent);
    refuses(vec![upper("evil")], "INTERNAL", "STORAGE_LAYERS");
    let mut outside = with(2, 1);
    outside.mount_point = "/run/kata-containers/evil/other".to_owned();
    refuses(vec![with(1, 0), outside], "INTERNAL", "STORAGE_LAYERS");
    let mut made = with(1, 0);
    made.options.push("X-kata.mkdir.path={{ mount 1 }}/nowhere".to_owned());
    refuses(vec![made, with(2, 1)], "INTERNAL", "STORAGE_IO");
    // In another order it is another root: nobody's lie, and not what is named anywhere. The layer with the programs is on top.
    let request = container("evil", vec![with(2, 1), with(1, 0)], "cat /both/file");
    assert_eq!(run(guest, client, &request), ("from below\n".to_owned(), 0));
    assert_settles(guest, before, "layers in another order");
}

/// Outside of a confidential guest the host may be believed, as it is with any other disk.
fn layers_that_nobody_verifies(guest: &Guest, client: &AgentClient) {
    let bare = |number: u8| layer("bare", &slot(number), &["ro".to_owned()]);
    let request = container("bare", vec![bare(WHOLE), bare(OTHER)], "cat /both/file");
    assert_eq!(run(guest, client, &request), ("from above\n".to_owned(), 0));
}
