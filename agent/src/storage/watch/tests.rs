use std::fs;
use std::os::unix::fs::symlink;

use super::*;

struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        let room = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(room.source("")).unwrap();
        fs::create_dir(room.0.path().join("target")).unwrap();
        room
    }

    fn source(&self, name: &str) -> PathBuf {
        self.0.path().join("run/config").join(name)
    }

    fn target(&self, name: &str) -> PathBuf {
        self.0.path().join("target").join(name)
    }

    fn run(&self) -> PathBuf {
        self.0.path().join("run")
    }

    fn update(&self, last: &mut Snapshot) -> bool {
        let target = Beneath::open(&self.target("")).unwrap();
        update(&self.run(), &Place::own("config".into()), &target, last).unwrap()
    }
}

/// As kubelet changes a volume: a new directory, then the link that leads to it, then the old one goes.
#[test]
fn copies_follow_what_kubelet_does() {
    let (room, mut last) = (Room::new(), Snapshot::default());
    fs::create_dir(room.source("..one")).unwrap();
    fs::write(room.source("..one/key"), "first").unwrap();
    symlink("..one", room.source("..data")).unwrap();
    symlink("..data/key", room.source("key")).unwrap();
    assert!(room.update(&mut last));
    assert_eq!(fs::read_to_string(room.target("key")).unwrap(), "first");
    fs::create_dir(room.source("..two")).unwrap();
    fs::write(room.source("..two/key"), "second").unwrap();
    fs::remove_file(room.source("..data")).unwrap();
    symlink("..two", room.source("..data")).unwrap();
    fs::remove_dir_all(room.source("..one")).unwrap();
    assert!(room.update(&mut last));
    assert_eq!(fs::read_to_string(room.target("key")).unwrap(), "second");
    assert!(!room.target("..one").exists() && !room.target(PARTIAL).exists());
}

#[test]
fn evil_host_watched_directory_that_grows() {
    let (room, mut last) = (Room::new(), Snapshot::default());
    fs::write(room.source("small"), "x").unwrap();
    assert!(room.update(&mut last));
    fs::write(room.source("large"), vec![0; 1 << 20]).unwrap();
    assert!(!room.update(&mut last));
    assert!(!room.target("large").exists());
    fs::remove_file(room.source("large")).unwrap();
    for number in 0..16 {
        fs::write(room.source(&format!("{number}")), "x").unwrap();
    }
    assert!(!room.update(&mut last));
    assert!(!room.target("3").exists());
}

#[test]
fn evil_container_link_in_the_copy() {
    let (room, mut last) = (Room::new(), Snapshot::default());
    let outside = room.0.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(room.source("d")).unwrap();
    fs::write(room.source("d/file"), "one").unwrap();
    assert!(room.update(&mut last));
    fs::remove_dir_all(room.target("d")).unwrap();
    symlink(&outside, room.target("d")).unwrap();
    fs::write(room.source("d/file"), "another").unwrap();
    let target = Beneath::open(&room.target("")).unwrap();
    let place = Place::own("config".into());
    assert_eq!(update(&room.run(), &place, &target, &mut last).unwrap_err().code(), "STORAGE_IO");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}
