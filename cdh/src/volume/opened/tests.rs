//! What is decided before there is a device of device-mapper: files stand for disks here. The rest is tested in guests.

use std::path::Path;

use tempfile::TempDir;

use super::super::ext4::{Ext4Options, OwnChildren};
use super::super::request::DeviceName;
use super::*;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A disk, in a machine without device-mapper.
struct Room {
    directory: TempDir,
    site: Site,
    device: BlockDevice,
}

impl Room {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = directory.path().join("disk");
        File::create(&node).unwrap().set_len(16 << 20).unwrap();
        let at = |name: &str| directory.path().join(name);
        let site = Site { sys: at("sys"), dev: at("dev"), helper: Box::new(OwnChildren) };
        let device = BlockDevice { name: "vdb".to_owned(), major: 254, minor: 16, node };
        Self { directory, site, device }
    }

    /// A volume as a holder of the key left it.
    fn with_volume(sectors: u64, opener: Option<Opener>) -> (Self, Vec<u8>) {
        let room = Self::new();
        let (header, _) = luks2::create(KEY).unwrap();
        let seal = Seal { header: digest_of(&header), sectors, generation: 4, opener };
        room.file().write_all_at(&header, 0).unwrap();
        room.file().write_all_at(&superblock(1 << 10), DATA_OFFSET as u64).unwrap();
        write_seal(&room.device, &seal, &SealKey::of(KEY)).unwrap();
        (room, header)
    }

    fn file(&self) -> File {
        OpenOptions::new().read(true).write(true).open(&self.device.node).unwrap()
    }

    fn contents(&self) -> Vec<u8> {
        std::fs::read(&self.device.node).unwrap()
    }

    fn order(&self, read_only: bool) -> Order {
        Order {
            device: DeviceName::Node("vdb".to_owned()),
            source: Source::Encrypted("kbs:///a/b/c".to_owned()),
            target: Target::Device,
            ext4: Ext4Options::default(),
            mapper_name: None,
            read_only,
            no_programs: false,
            place: self.directory.path().join("place"),
        }
    }

    fn unlock(&self, read_only: bool, key: &[u8], permission: Permission) -> &'static str {
        let mut opened = Opened { attached: Vec::new(), stack: None, mark: None };
        let (order, file) = (self.order(read_only), self.file());
        let result = opened.unlock(&self.site, &order, &self.device, file, key, permission);
        result.map_err(|error| opened.undone_for(error)).map_or_else(|error| error.code(), |()| "OK")
    }
}

/// As the kernel writes it.
fn superblock(sectors: u64) -> Vec<u8> {
    let mut bytes = b"integrt\0".to_vec();
    bytes.extend([4, 15, 32, 0, 1, 0, 0, 0]);
    bytes.extend(sectors.to_le_bytes());
    bytes.extend([0, 0, 0, 0, 3]);
    bytes.resize(512, 0);
    bytes
}

const NO: Permission = Permission { unclean: false };

#[test]
fn a_closed_volume_gets_as_far_as_the_kernel() {
    for read_only in [true, false] {
        let (room, _) = Room::with_volume(1 << 10, None);
        let before = room.contents();
        assert_eq!(room.unlock(read_only, KEY, NO), "DM_ABSENT");
        // What failed is closed again; that it was tried is all that is seen.
        let (changed, after): (Vec<_>, _) = (
            before
                .iter()
                .zip(room.contents())
                .enumerate()
                .filter(|(_, (old, new))| *old != new)
                .map(|it| it.0)
                .collect(),
            room.contents(),
        );
        assert_eq!(before.len(), after.len());
        let seal = DATA_OFFSET - SEAL_BYTES..DATA_OFFSET - SEAL_BYTES + 128;
        assert!(changed.iter().all(|at| !read_only && seal.contains(at)), "{changed:?}");
    }
}

#[test]
fn evil_host_puts_its_own_header_on_the_disk() {
    let (other, _) = luks2::create(b"a key of the host, as long as that").unwrap();
    let null = String::from_utf8_lossy(&other).contains("aes-xts-plain64");
    assert!(null, "the host's header has the form of one");
    for (what, from) in [("whole", 0), ("key slots alone", 32_768)] {
        let (room, _) = Room::with_volume(1 << 10, None);
        room.file().write_all_at(&other[from..], from as u64).unwrap();
        let before = room.contents();
        for read_only in [true, false] {
            assert_eq!(room.unlock(read_only, KEY, NO), "VOLUME_HEADER_AUTHENTICATION", "{what}");
        }
        assert_eq!(room.contents(), before, "nothing was written");
    }
    // An empty disk, and another key.
    assert_eq!(Room::new().unlock(false, KEY, NO), "VOLUME_HEADER_AUTHENTICATION");
    let (room, _) = Room::with_volume(1 << 10, None);
    assert_eq!(room.unlock(true, b"another key that is long enough!", NO), "VOLUME_HEADER_AUTHENTICATION");
}

#[test]
fn evil_second_pod_opens_what_another_writes() {
    let (room, _) = Room::with_volume(1 << 10, Some([5; 16]));
    let before = room.contents();
    for read_only in [true, false] {
        assert_eq!(room.unlock(read_only, KEY, NO), "VOLUME_IN_USE");
    }
    assert_eq!(room.contents(), before);
    assert_eq!(room.unlock(false, KEY, Permission { unclean: true }), "DM_ABSENT");
}

#[test]
fn evil_host_shorter_volume() {
    let (room, _) = Room::with_volume((1 << 10) + 8, None);
    assert_eq!(room.unlock(true, KEY, NO), "VOLUME_SIZE");
    // One that is no longer marked as one of its kind.
    let (room, _) = Room::with_volume(1 << 10, None);
    room.file().write_all_at(&[0; 512], DATA_OFFSET as u64).unwrap();
    assert_eq!(room.unlock(false, KEY, NO), "VOLUME_IO");
}

#[test]
fn evil_host_volume_formatted_again() {
    let (room, _) = Room::with_volume(1 << 10, None);
    let before = room.contents();
    let create = |room: &Room| {
        let mut opened = Opened { attached: Vec::new(), stack: None, mark: None };
        let order = Order { source: Source::Empty(Some("kbs:///a/b/c".to_owned())), ..room.order(false) };
        opened.create(&room.site, &order, &room.device, room.file(), KEY).unwrap_err().code()
    };
    assert_eq!(create(&room), "VOLUME_EXISTS");
    assert_eq!(room.contents(), before);
    assert_eq!(create(&Room::new()), "DM_ABSENT");
}

#[test]
fn a_mark_of_another_one_is_left_alone() {
    let (room, header) = Room::with_volume(1 << 10, Some([6; 16]));
    let mark =
        |opener| Mark { device: room.device.clone(), header: header.clone(), key: SealKey::of(KEY), opener };
    let before = room.contents();
    assert!(!mark([5; 16]).is_there().unwrap());
    assert_eq!(mark([5; 16]).take_off().unwrap_err().code(), "VOLUME_IN_USE");
    assert_eq!(room.contents(), before);
    assert!(mark([6; 16]).is_there().unwrap());
    mark([6; 16]).take_off().unwrap();
    assert_eq!(mark([6; 16]).seal().unwrap().opener, None);
}

#[test]
fn a_disk_is_looked_at_where_it_is_said_to_be() {
    let room = Room::new();
    let error = open(&room.site, &room.order(true), None, NO).unwrap_err();
    assert_eq!(error.code(), "VOLUME_IO");
    assert!(!Path::new(&room.order(true).place).exists());
}
