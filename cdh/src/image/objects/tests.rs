use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::composefs::verity::Hasher;
use crate::image::tree::{Content, Inode, Kind, Metadata, Tree};

fn directory(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}

fn store(path: &Path) -> Store {
    Store::new(directory(path), 0)
}

fn write(store: &Store, bytes: &[u8]) -> ObjectId {
    let mut writer = store.begin(bytes.len().try_into().unwrap()).unwrap();
    for piece in bytes.chunks(1000) {
        writer.data(piece).unwrap();
    }
    writer.finish().unwrap()
}

fn place(root: &Path, id: ObjectId) -> PathBuf {
    let digits = hex::encode(id.0);
    root.join(&digits[..2]).join(&digits[2..])
}

/// All files below a directory.
fn files(root: &Path) -> usize {
    std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| if entry.file_type().unwrap().is_dir() { files(&entry.path()) } else { 1 })
        .sum()
}

#[test]
fn an_object_is_stored_once_under_its_digest() {
    let root = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let objects = store(root.path());
    let id = write(&objects, &bytes);
    assert_eq!(id, Hasher::hash(&bytes));
    assert_eq!(std::fs::read(place(root.path(), id)).unwrap(), bytes);
    assert_eq!(std::fs::metadata(place(root.path(), id)).unwrap().mode() & 0o7777, 0o644);
    let inode = std::fs::metadata(place(root.path(), id)).unwrap().ino();
    // The same again, by this store and by another one.
    assert_eq!(write(&objects, &bytes), id);
    assert_eq!(write(&store(root.path()), &bytes), id);
    assert_eq!(std::fs::metadata(place(root.path(), id)).unwrap().ino(), inode);
    assert_eq!(files(root.path()), 1);
    // From its beginning, also where it was hashed just now.
    for objects in [objects, store(root.path())] {
        let mut read = Vec::new();
        objects.open(id, bytes.len() as u64).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
    }
}

#[test]
fn an_object_that_is_not_finished_was_never_there() {
    let root = tempfile::tempdir().unwrap();
    let objects = store(root.path());
    let mut writer = objects.begin(1 << 20).unwrap();
    writer.data(&[1; 4096]).unwrap();
    assert_eq!(files(root.path()), 0);
    drop(writer);
    assert_eq!(files(root.path()), 0);
    // Shorter than announced.
    let mut writer = objects.begin(1 << 20).unwrap();
    writer.data(&[1; 4096]).unwrap();
    assert_eq!(writer.finish().unwrap_err().code(), "OBJECT_DIGEST");
    assert_eq!(files(root.path()), 0);
}

#[test]
fn holes_are_hashed_and_take_no_room() {
    let root = tempfile::tempdir().unwrap();
    let objects = store(root.path());
    let size = 64 << 20;
    let mut writer = objects.begin(size).unwrap();
    writer.hole(20 << 20).unwrap();
    writer.data(&[7; 5000]).unwrap();
    writer.hole(size - (20 << 20) - 5000).unwrap();
    let id = writer.finish().unwrap();
    let found = std::fs::metadata(place(root.path(), id)).unwrap();
    assert_eq!(found.len(), size);
    assert!(found.blocks() * 512 < 1 << 20, "{} bytes on disk", found.blocks() * 512);
    let mut file = objects.open(id, size).unwrap();
    file.seek(SeekFrom::Start((20 << 20) - 1)).unwrap();
    let mut around = [1; 5002];
    file.read_exact(&mut around).unwrap();
    assert_eq!((around[0], around[1], around[5000], around[5001]), (0, 7, 7, 0));
    // The digest is that of all bytes: another store has to read them.
    store(root.path()).open(id, size).unwrap();
}

#[test]
fn evil_object_that_was_there() {
    let root = tempfile::tempdir().unwrap();
    let bytes = vec![3; 10_000];
    let id = Hasher::hash(&bytes);
    let path = place(root.path(), id);
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    // What a machine without power leaves, what a forger leaves, and what is no file.
    for there in [Some(vec![]), Some(vec![4; 10_000]), Some(vec![3; 9_999]), None] {
        let _ = std::fs::remove_file(&path);
        match &there {
            Some(there) => std::fs::write(&path, there).unwrap(),
            None => std::os::unix::fs::symlink("/etc/passwd", &path).unwrap(),
        }
        let objects = store(root.path());
        assert_eq!(objects.open(id, 10_000).unwrap_err().code(), "OBJECT_DIGEST", "{there:?}");
        assert_eq!(write(&objects, &bytes), id);
        assert_eq!(std::fs::symlink_metadata(&path).unwrap().len(), 10_000);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert_eq!(files(root.path()), 1);
    }
}

#[test]
fn evil_objects_without_room() {
    let root = tempfile::tempdir().unwrap();
    let room = store(root.path()).room().unwrap();
    assert!(room.bytes > 1 << 20);
    let none = Store::new(directory(root.path()), u64::MAX);
    assert_eq!(none.require(Room { bytes: 1, files: 0 }).unwrap_err().code(), "OBJECT_ROOM");
    assert_eq!(none.begin(100).err().unwrap().code(), "OBJECT_ROOM");
    let full = Room { bytes: room.bytes.saturating_mul(2), files: 0 };
    assert_eq!(store(root.path()).require(full).unwrap_err().code(), "OBJECT_ROOM");
    store(root.path()).require(Room { bytes: 1, files: 1 }).unwrap();
}

#[test]
fn evil_object_of_another_length() {
    let root = tempfile::tempdir().unwrap();
    let id = write(&store(root.path()), &[1; 5000]);
    // Also of one that was hashed.
    let objects = store(root.path());
    objects.open(id, 5000).unwrap();
    assert_eq!(objects.open(id, 4999).unwrap_err().code(), "OBJECT_DIGEST");
}

fn tree_of(contents: &[(ObjectId, u64)]) -> Tree {
    let mut tree = Tree::new(Metadata::default(), 100);
    for (index, (id, size)) in contents.iter().enumerate() {
        let kind = Kind::Regular(Content::Object { id: *id, size: *size });
        let inode = Inode { metadata: Metadata::default(), kind };
        tree.insert(Tree::ROOT, index.to_string().as_bytes(), inode).unwrap();
    }
    tree
}

#[test]
fn objects_are_adopted_once_they_were_hashed() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ids: Vec<_> = (1..4).map(|byte| (write(&store(from.path()), &[byte; 5000]), 5000)).collect();
    write(&store(to.path()), &[1; 5000]);
    let tree = tree_of(&ids);
    store(to.path()).adopt(&store(from.path()), &tree).unwrap();
    assert_eq!((files(from.path()), files(to.path())), (1, 3));
    ids.iter().for_each(|(id, size)| drop(store(to.path()).open(*id, *size).unwrap()));
    // What is not what its name says is not moved.
    let other = tempfile::tempdir().unwrap();
    let id = write(&store(other.path()), &[9; 5000]);
    std::fs::write(place(other.path(), id), [8; 5000]).unwrap();
    let error = store(to.path()).adopt(&store(other.path()), &tree_of(&[(id, 5000)])).unwrap_err();
    assert_eq!((error.code(), files(to.path())), ("OBJECT_DIGEST", 3));
}

/// Objects without end, into the working directory: for [`a_writer_that_is_killed_leaves_only_whole_objects`], which runs and kills it.
#[test]
#[ignore = "runs until it is killed"]
fn writes_until_it_is_killed() {
    let objects = store(Path::new("."));
    for seed in 0_u64.. {
        let bytes: Vec<u8> = (seed..seed + 20_000).flat_map(u64::to_le_bytes).collect();
        write(&objects, &bytes);
    }
}

#[test]
fn a_writer_that_is_killed_leaves_only_whole_objects() {
    let root = tempfile::tempdir().unwrap();
    for round in 1..5 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "image::objects::tests::writes_until_it_is_killed"])
            .current_dir(root.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let begun = std::time::Instant::now();
        while files(root.path()) < 10 {
            assert!(begun.elapsed().as_secs() < 60 && child.try_wait().unwrap().is_none());
        }
        std::thread::sleep(std::time::Duration::from_millis(13 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut whole = 0;
        for directory in std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().path()) {
            assert_eq!(directory.file_name().unwrap().len(), 2);
            for object in std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
                let bytes = std::fs::read(&object).unwrap();
                assert_eq!(place(root.path(), Hasher::hash(&bytes)), object);
                whole += 1;
            }
        }
        assert!(whole > 0);
    }
}
