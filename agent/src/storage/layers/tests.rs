use std::fs;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::super::tests::{Room, id, storage};
use super::super::{Added, Beside};
use super::*;

const PLACE: &str = "/run/kata-containers/one/rootfs";
const HASH: &str =
    "X-kata.dmverity.roothash=abababababababababababababababababababababababababababababababab";
const MARKS: [&str; 2] = ["X-kata.overlay-lower", "X-kata.multi-layer=true"];
const VERITY: [&str; 3] = ["X-kata.dmverity-enabled=true", HASH, "X-kata.dmverity.hashoffset=8192"];

/// A lower layer as runtimes ask for it.
fn lower(source: &str, more: &[&str]) -> Storage {
    storage("blk", "erofs", source, PLACE, &[&["ro"], &MARKS[..], &VERITY, more].concat())
}

fn upper(source: &str) -> Storage {
    storage("blk", "ext4", source, PLACE, &["rw", "X-kata.overlay-upper", "X-kata.multi-layer=true"])
}

fn partition(number: &str) -> Storage {
    lower("02/03", &["X-kata.gpt-partitioned=true", &format!("X-kata.partition-number={number}")])
}

fn parse(storages: &[Storage]) -> Result<Layers, StorageError> {
    let storages = storages.iter().collect::<Vec<_>>();
    Layers::parse(&storages, Some(&id("one")), false).map(|(_, layers)| layers)
}

fn code(storages: &[Storage]) -> &'static str {
    parse(storages).map_or_else(|error| error.code(), |_| "OK")
}

/// A partition table with three layers and a disk for what is written, as runtimes make them of containerd's mounts.
#[test]
fn layers_of_runtimes_are_one_root() {
    let mut storages = vec![upper("02/02"), partition("1"), partition("2"), partition("3")];
    storages[1].options.extend([
        "X-kata.mkdir.path={{ mount 0 }}/upper:0755".to_owned(),
        "X-kata.mkdir.path={{ mount 0 }}/work:0755".to_owned(),
        "X-kata.mkdir.path={{ mount 1 }}/etc/apt".to_owned(),
    ]);
    assert!(storages.iter().all(is_layer));
    let layers = parse(&storages).unwrap();
    let partitions = layers.lower.iter().map(|lower| lower.partition).collect::<Vec<_>>();
    assert_eq!(partitions, [Some(1), Some(2), Some(3)], "the topmost first");
    assert_eq!(layers.present, [Path::new("etc/apt")]);
    // One layer of one disk, and by the other driver's name, without the mark.
    let mut one = lower("/dev/vda", &[]);
    one.driver = DRIVER.to_owned();
    one.options.retain(|option| !MARKS.contains(&option.as_str()));
    assert!(is_layer(&one));
    assert_eq!(parse(&[one]).unwrap().lower.len(), 1);
    assert!(!is_layer(&storage("blk", "erofs", "02", PLACE, &VERITY)));
}

#[test]
fn evil_host_layer_that_nobody_verifies() {
    let bare = storage("blk", "erofs", "02", PLACE, &MARKS);
    for storages in
        [vec![bare.clone()], vec![lower("03", &[]), bare.clone()], vec![bare.clone(), upper("04")]]
    {
        assert_eq!(code(&storages), "STORAGE_VERITY");
        let storages = storages.iter().collect::<Vec<_>>();
        assert!(Layers::parse(&storages, Some(&id("one")), true).is_ok(), "outside of a confidential guest");
    }
    let switched_off = lower("02", &["X-kata.dmverity-enabled=false"]);
    assert_eq!(code(&[switched_off]), "STORAGE_VERITY");
    let other = storage("blk", "erofs", "02", PLACE, &[&MARKS[..], &VERITY[..1], &VERITY[2..]].concat());
    assert_eq!(code(&[other]), "STORAGE_VERITY", "no root hash");
}

#[tokio::test]
async fn evil_host_unverified_layers_in_a_confidential_guest() {
    let room = Room::new();
    disk(&room, "vda", 0, &[]);
    let bare = [storage("blk", "erofs", "/dev/vda", PLACE, &MARKS)];
    let add = async |unverified_layers| {
        let beside = Beside { unverified_layers, ..Beside::default() };
        let added = room.storages.add_with(&bare, Some(&id("one")), &room.hotplug, &beside).await;
        added.map(Added::keep).unwrap_err().code()
    };
    assert_eq!(add(false).await, "STORAGE_VERITY");
    // There it comes as far as the disk, which is none.
    assert_eq!(add(true).await, "STORAGE_IO");
    assert!(room.table().is_empty());
}

#[test]
fn evil_host_layers_at_two_places() {
    let other = |place: &str| Storage { mount_point: place.to_owned(), ..lower("03", &[]) };
    assert_eq!(code(&[lower("02", &[]), other("/run/kata-containers/one/other")]), "STORAGE_LAYERS");
    assert_eq!(code(&[other("/run/kata-containers/one/other"), upper("02")]), "STORAGE_LAYERS");
    for outside in
        ["/", "/etc", "/run/kata-containers/two/rootfs", "/run/kata-containers/one/multi-layer/lower-0"]
    {
        assert_eq!(code(&[lower("02", &[]), other(outside)]), "STORAGE_PLACE", "{outside}");
        assert_eq!(code(&[other(outside), other(outside)]), "STORAGE_PLACE", "{outside}");
    }
}

#[test]
fn evil_host_partition_that_is_none() {
    for number in ["0", "129", "4294967297", "-1", "x", "", "1x"] {
        assert_eq!(code(&[partition(number)]), "STORAGE_OPTION", "{number}");
    }
    for number in ["1", "128"] {
        assert_eq!(code(&[partition(number)]), "OK", "{number}");
    }
    for options in [
        &["X-kata.partition-number=1"][..],
        &["X-kata.gpt-partitioned=true"],
        &["X-kata.gpt-partitioned=false", "X-kata.partition-number=1"],
        &["X-kata.gpt-partitioned=yes", "X-kata.partition-number=1"],
        &["X-kata.gpt-partitioned=true", "X-kata.partition-number=1", "X-kata.partition-number=2"],
    ] {
        assert_eq!(code(&[lower("02", options)]), "STORAGE_OPTION", "{options:?}");
    }
}

#[test]
fn evil_host_makes_directories_in_the_upper_layer() {
    for path in [
        "{{ mount 0 }}/upper/etc",
        "{{ mount 0 }}/upper/../../x",
        "{{ mount 0 }}",
        "{{ mount 0 }}/",
        "{{ mount 1 }}/../x",
        "{{ mount 1 }}//etc",
        "{{ mount 1 }}/",
        "{{ mount 2 }}/etc",
        "/etc/innerkeep",
        "",
    ] {
        let option = format!("X-kata.mkdir.path={path}");
        assert_eq!(code(&[lower("02", &[&option])]), "STORAGE_OPTION", "{path}");
    }
    let many = ["X-kata.mkdir.path={{ mount 1 }}/etc"; 17];
    assert_eq!(code(&[lower("02", &many)]), "STORAGE_OPTION");
}

/// It is not looked for: what is written is in the guest.
#[test]
fn evil_host_upper_layer_of_its_own() {
    assert_eq!(parse(&[upper("nowhere"), lower("02", &[])]).unwrap(), parse(&[lower("02", &[])]).unwrap());
    assert_eq!(code(&[upper("01"), upper("03"), lower("02", &[])]), "STORAGE_LAYERS");
    assert_eq!(code(&[upper("01")]), "STORAGE_LAYERS");
    let erofs = Storage { fstype: "erofs".to_owned(), ..upper("01") };
    assert_eq!(code(&[erofs, lower("02", &[])]), "STORAGE_LAYERS");
    let both = lower("02", &["X-kata.overlay-upper"]);
    assert_eq!(code(&[both]), "STORAGE_LAYERS");
}

#[test]
fn evil_host_layers_of_another_kind() {
    let of = |change: fn(&mut Storage)| {
        let mut found = lower("02", &[]);
        change(&mut found);
        code(&[found])
    };
    assert_eq!(of(|_| ()), "OK");
    assert_eq!(of(|layer| layer.fstype = "squashfs".to_owned()), "STORAGE_LAYERS");
    assert_eq!(of(|layer| layer.fstype = "ext4".to_owned()), "STORAGE_LAYERS");
    assert_eq!(of(|layer| layer.driver = "bind".to_owned()), "STORAGE_LAYERS");
    assert_eq!(of(|layer| layer.driver = "nobody".to_owned()), "STORAGE_DRIVER");
    assert_eq!(of(|layer| layer.shared = true), "STORAGE_LAYERS");
    assert_eq!(of(|layer| layer.driver_options.push("create_filesystem".to_owned())), "STORAGE_OPTION");
    assert_eq!(of(|layer| layer.options.push("device=/dev/vdb".to_owned())), "STORAGE_OPTION");
    assert_eq!(of(|layer| layer.options.push("X-kata.multi-layer=false".to_owned())), "STORAGE_OPTION");
    assert_eq!(of(|layer| layer.options.push("X-kata.new=1".to_owned())), "STORAGE_OPTION");
    assert_eq!(of(|layer| layer.source = "x".repeat(5000)), "STORAGE_OPTION");
    assert_eq!(code(&vec![lower("02", &[]); 129]), "STORAGE_LAYERS");
    assert_eq!(code(&vec![lower("02", &[]); 128]), "OK");
    let layer = lower("02", &[]);
    assert_eq!(Layers::parse(&[&layer], None, true).unwrap_err().code(), "STORAGE_LAYERS", "of the sandbox");
}

/// A disk with partitions, as the kernel shows it.
fn disk(room: &Room, name: &str, minor: u32, partitions: &[u32]) {
    let at = |path: String| room.directory.path().join(path);
    let device = |name: &str, directory: PathBuf, minor: u32| {
        fs::create_dir_all(&directory).unwrap();
        fs::create_dir_all(at("dev".to_owned())).unwrap();
        fs::write(directory.join("dev"), format!("254:{minor}\n")).unwrap();
        let node = at(format!("dev/{name}"));
        mknodat(CWD, node, FileType::BlockDevice, Mode::RUSR, makedev(254, minor)).unwrap();
    };
    device(name, at(format!("sys/class/block/{name}")), minor);
    for number in partitions {
        let part = format!("{name}{number}");
        let below = at(format!("sys/class/block/{name}/{part}"));
        device(&part, below.clone(), minor + number);
        fs::write(below.join("partition"), format!("{number}\n")).unwrap();
        std::os::unix::fs::symlink(below, at(format!("sys/class/block/{part}"))).unwrap();
    }
}

#[tokio::test]
async fn evil_host_gives_one_layer_twice() {
    let room = Room::new();
    disk(&room, "vda", 0, &[1, 2]);
    disk(&room, "vdb", 16, &[]);
    let whole = |name: &str| lower(&format!("/dev/{name}"), &[]);
    let part = |number: &str| Storage { source: "/dev/vda".to_owned(), ..partition(number) };
    let add = async |storages: &[Storage]| {
        let added = room.storages.add(storages, Some(&id("one")), &room.hotplug).await;
        let code = added.map(Added::keep).unwrap_err().code();
        for (name, minor) in [("vda", 0), ("vdb", 16)] {
            let device = BlockDevice { name: name.to_owned(), major: 254, minor, node: PathBuf::new() };
            assert_eq!(room.storages.claims().user(&device), None, "given back");
        }
        code
    };
    for twice in [
        vec![whole("vdb"), whole("vda"), whole("vdb")],
        vec![part("1"), part("2"), part("1")],
        vec![whole("vda"), part("1")],
        vec![part("1"), whole("vda")],
    ] {
        assert_eq!(add(&twice).await, "STORAGE_DEVICE_TAKEN", "{twice:?}");
    }
    assert_eq!(add(&[part("1"), part("3")]).await, "HOTPLUG_TIMEOUT", "there is no third one");
    // Nothing is wrong with these but that there is no device-mapper here. There is a superblock before it, or none.
    let bare = |mut layer: Storage| {
        layer.options.push("X-kata.dmverity.no-superblock=true".to_owned());
        layer
    };
    assert_eq!(add(&[bare(part("2")), bare(part("1")), bare(whole("vdb"))]).await, "DM_ABSENT");
    fs::create_dir_all(room.directory.path().join("sys/class/block/vda/vda1/holders/dm-0")).unwrap();
    assert_eq!(add(&[bare(part("1"))]).await, "STORAGE_DEVICE_TAKEN", "of somebody of the kernel's");
}

#[test]
fn evil_host_layers_where_a_storage_is() {
    super::super::tests::isolated("layers::tests::evil_host_layers_where_a_storage_is", || async {
        let room = Room::new();
        room.add(storage("ephemeral", "tmpfs", "shm", PLACE, &[]), &id("one")).await.unwrap();
        let before = room.table();
        let added = room.storages.add(&[lower("02", &[])], Some(&id("one")), &room.hotplug).await;
        assert_eq!(added.map(Added::keep).unwrap_err().code(), "STORAGE_PLACE");
        assert_eq!(room.table(), before);
    });
}
