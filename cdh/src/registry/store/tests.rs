use std::io::Read as _;
use std::os::unix::fs::symlink;

use super::*;

fn open(directory: &tempfile::TempDir, options: StoreOptions) -> Store {
    Store::open(directory.path(), options).unwrap()
}

fn scene() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, StoreOptions::default());
    (directory, store)
}

fn put(store: &Store, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    store.insert(&digest, bytes).unwrap();
    digest
}

fn path(directory: &tempfile::TempDir, digest: &Digest) -> PathBuf {
    directory.path().join(blob_path(digest))
}

#[test]
fn blobs_come_back() {
    let (_directory, store) = scene();
    let digest = put(&store, b"bytes");
    let blob = store.get(&digest, 5).unwrap().unwrap();
    let mut bytes = Vec::new();
    blob.reader().read_to_end(&mut bytes).unwrap();
    assert_eq!((bytes.as_slice(), blob.size()), (b"bytes".as_slice(), 5));
    assert!(store.get(&Digest::of(b"others"), 6).unwrap().is_none());
    let long = digest.same_of(b"x");
    assert_eq!(store.insert(&long, b"y").unwrap_err().code(), "REGISTRY_DIGEST");
    let sha512 = Digest::parse(&format!("sha512:{}", "0".repeat(128))).unwrap().same_of(b"z");
    store.insert(&sha512, b"z").unwrap();
    assert!(store.get(&sha512, 1).unwrap().is_some());
}

#[test]
fn evil_host_changes_a_stored_blob() {
    let (directory, store) = scene();
    let digest = put(&store, b"genuine");
    for changed in [b"GENUINE".as_slice(), b"genuin", b"genuine!", b""] {
        std::fs::write(path(&directory, &digest), changed).unwrap();
        assert!(store.get(&digest, 7).unwrap().is_none());
        assert!(!path(&directory, &digest).exists(), "it is removed");
        put(&store, b"genuine");
    }
    // On a disk of ours, one look a process is enough; the next process looks again.
    let private = open(&directory, StoreOptions { trust: Trust::Private, ..StoreOptions::default() });
    assert!(private.get(&digest, 7).unwrap().is_some());
    std::fs::write(path(&directory, &digest), b"GENUINE").unwrap();
    assert!(private.get(&digest, 7).unwrap().is_some());
    let private = open(&directory, StoreOptions { trust: Trust::Private, ..StoreOptions::default() });
    assert!(private.get(&digest, 7).unwrap().is_none());
}

#[test]
fn evil_host_changes_a_blob_that_is_read() {
    let (directory, store) = scene();
    let digest = put(&store, b"genuine");
    let blob = store.get(&digest, 7).unwrap().unwrap();
    for changed in [b"GENUINE".as_slice(), b"gen"] {
        std::fs::write(path(&directory, &digest), changed).unwrap();
        let error = blob.reader().read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        let inner = error.into_inner().unwrap().downcast::<RegistryError>().unwrap();
        assert_eq!(inner.code(), "STORE_DIGEST");
    }
}

#[test]
fn evil_host_puts_links_into_the_store() {
    let (directory, store) = scene();
    let outside = tempfile::NamedTempFile::new().unwrap();
    let digest = Digest::of(b"outside");
    std::fs::write(outside.path(), b"outside").unwrap();
    symlink(outside.path(), path(&directory, &digest)).unwrap();
    assert_eq!(store.get(&digest, 7).unwrap_err().code(), "STORE_IO");
    std::fs::remove_file(path(&directory, &digest)).unwrap();
    std::fs::create_dir(path(&directory, &digest)).unwrap();
    assert_eq!(store.get(&digest, 7).unwrap_err().code(), "STORE_IO");
    symlink(outside.path(), directory.path().join(partial_path(&digest))).unwrap();
    assert_eq!(store.begin(&digest, 7).unwrap_err().code(), "STORE_IO");
    assert_eq!(std::fs::read(outside.path()).unwrap(), b"outside");
    // Inside the store too, and to the right bytes.
    let inside = Digest::of(b"inside");
    std::fs::write(directory.path().join("beside"), b"inside").unwrap();
    symlink("../../beside", path(&directory, &inside)).unwrap();
    assert_eq!(store.get(&inside, 6).unwrap_err().code(), "STORE_IO");
    // A pipe has no bytes: as the empty blob.
    let (empty, mode) = (Digest::of(b""), Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, path(&directory, &empty), rustix::fs::FileType::Fifo, mode, 0)
        .unwrap();
    assert_eq!(store.get(&empty, 0).unwrap_err().code(), "STORE_IO");
    std::fs::remove_dir_all(directory.path().join("blobs")).unwrap();
    symlink(outside.path().parent().unwrap(), directory.path().join("blobs")).unwrap();
    let error = Store::open(directory.path(), StoreOptions::default()).unwrap_err();
    assert_eq!(error.code(), "STORE_IO");
}

fn part(begun: Begun) -> Partial {
    match begun {
        Begun::Partial(partial) => *partial,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_part_gets_no_name() {
    let (directory, store) = scene();
    let digest = Digest::of(b"abcdef");
    let mut partial = part(store.begin(&digest, 6).unwrap());
    partial.write(b"abc").unwrap();
    assert!(matches!(store.begin(&digest, 6).unwrap(), Begun::Busy));
    drop(partial);
    assert!(store.get(&digest, 6).unwrap().is_none());
    let mut partial = part(store.begin(&digest, 6).unwrap());
    assert_eq!(partial.offset(), 3, "it is continued");
    partial.write(b"xyz").unwrap();
    assert_eq!(partial.finish(&store).unwrap_err().code(), "REGISTRY_DIGEST");
    assert!(!path(&directory, &digest).exists());
    let mut partial = part(store.begin(&digest, 6).unwrap());
    assert_eq!(partial.verify().unwrap_err().code(), "REGISTRY_DIGEST");
    partial.reset().unwrap();
    partial.write(b"abcdef").unwrap();
    let blob = partial.finish(&store).unwrap();
    assert_eq!(blob.size(), 6);
    assert!(matches!(store.begin(&digest, 6).unwrap(), Begun::Whole));
}

#[test]
fn evil_part_grows_beyond_its_size() {
    let (directory, store) = scene();
    let digest = Digest::of(b"abc");
    std::fs::write(directory.path().join(partial_path(&digest)), vec![0; 1 << 20]).unwrap();
    let mut partial = part(store.begin(&digest, 3).unwrap());
    assert_eq!(partial.offset(), 0, "a part that is too long is none");
    partial.write(b"ab").unwrap();
    assert_eq!(partial.write(b"cd").unwrap_err().code(), "REGISTRY_TOO_LARGE");
    let length = std::fs::metadata(directory.path().join(partial_path(&digest))).unwrap().len();
    assert_eq!((partial.offset(), length), (2, 2));
}

#[test]
fn blobs_in_use_are_not_collected() {
    let (_directory, store) = scene();
    let [used, kept, old] = [b"used".as_slice(), b"kept", b"old"].map(|bytes| put(&store, bytes));
    let held = store.get(&used, 4).unwrap().unwrap();
    let left = store.collect(&HashSet::from([kept])).unwrap();
    assert_eq!((left.entries, left.bytes, left.removed, left.removed_bytes), (2, 8, 1, 3));
    assert!(store.get(&old, 3).unwrap().is_none());
    assert!(store.get(&kept, 4).unwrap().is_some());
    drop(held);
    assert_eq!(store.collect(&HashSet::from([kept])).unwrap().removed, 1);
    assert!(store.get(&used, 4).unwrap().is_none());
}

#[test]
fn what_was_used_longest_ago_makes_room() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, StoreOptions { bytes: 10, entries: 3, ..StoreOptions::default() });
    let first = put(&store, b"1111");
    let second = put(&store, b"2222");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(100);
    for (digest, seconds) in [(&first, 0), (&second, 50)] {
        let file = File::open(path(&directory, digest)).unwrap();
        file.set_modified(old + std::time::Duration::from_secs(seconds)).unwrap();
    }
    // The first is used again: the second goes.
    drop(store.get(&first, 4).unwrap());
    put(&store, b"3333");
    assert!(store.get(&second, 4).unwrap().is_none());
    assert!(store.get(&first, 4).unwrap().is_some());
    put(&store, b"5");
    let entries = || std::fs::read_dir(directory.path().join("blobs/sha256")).unwrap().count();
    assert_eq!(entries(), 3);
    put(&store, b"6");
    assert_eq!(entries(), 3, "three blobs are the most");
}

#[test]
fn evil_image_is_larger_than_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, StoreOptions { bytes: 10, ..StoreOptions::default() });
    let wanted = [(Digest::of(b"a"), 6), (Digest::of(b"b"), 5)];
    assert_eq!(store.prepare(&wanted).unwrap_err().code(), "REGISTRY_TOO_LARGE");
    assert_eq!(store.prepare(&wanted[..1]).unwrap(), &wanted[..1]);
    let held = put(&store, b"123456");
    let _held = store.get(&held, 6).unwrap().unwrap();
    assert_eq!(
        store.prepare(&wanted[1..]).unwrap_err().code(),
        "REGISTRY_TOO_LARGE",
        "what is in use counts"
    );
    assert_eq!(store.prepare(&[(held, 6)]).unwrap(), []);
}

#[test]
fn evil_image_of_more_blobs_than_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, StoreOptions { entries: 1, ..StoreOptions::default() });
    let wanted = [(Digest::of(b"a"), 1), (Digest::of(b"b"), 1)];
    assert_eq!(store.prepare(&wanted).unwrap_err().code(), "REGISTRY_TOO_LARGE");
    assert_eq!(store.prepare(&wanted[..1]).unwrap().len(), 1);
}
