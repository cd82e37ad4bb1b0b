use super::*;
use crate::image::layer::Limits;
use crate::image::layer::limits::DEPTH_MAX;
use crate::image::tree::{ObjectId, Timestamp};

/// A tree with each kind of inode.
pub fn sample() -> Tree {
    let metadata = Metadata {
        mode: 0o4755,
        uid: 1,
        gid: 2,
        mtime: Timestamp { seconds: -3, nanoseconds: 4 },
        xattrs: [(b"security.capability".to_vec(), vec![1; 20]), (b"user.a".to_vec(), vec![])].into(),
    };
    let link = Metadata { mode: 0o777, ..Metadata::default() };
    let mut tree = Tree::new(metadata.clone(), 100);
    let mut put = |parent, name: &[u8], metadata: &Metadata, kind| {
        tree.insert(parent, name, Inode { metadata: metadata.clone(), kind }).unwrap()
    };
    let directory = put(Tree::ROOT, b"d", &metadata, Kind::Directory(std::collections::BTreeMap::new()));
    put(directory, b"\xff", &metadata, Kind::Regular(Content::Inline(vec![7; 64].into())));
    let object = Content::Object { id: ObjectId([5; 32]), size: 65 };
    let file = put(directory, b"object", &metadata, Kind::Regular(object));
    put(directory, b"empty", &metadata, Kind::Directory(std::collections::BTreeMap::new()));
    put(Tree::ROOT, b"c", &metadata, Kind::CharDevice { major: 1, minor: 3 });
    put(Tree::ROOT, b"e", &metadata, Kind::BlockDevice { major: 0, minor: 0 });
    put(Tree::ROOT, b"f", &metadata, Kind::Fifo);
    put(Tree::ROOT, b"g", &metadata, Kind::Socket);
    put(Tree::ROOT, b"h", &link, Kind::Symlink(b"../x"[..].into()));
    tree.link(Tree::ROOT, b"z", file).unwrap();
    tree
}

#[test]
fn a_tree_has_one_form() {
    let bytes = encode(&sample()).unwrap();
    let tree = decode(&bytes, &Limits::default()).unwrap();
    assert_eq!(encode(&tree).unwrap(), bytes);
    assert_eq!((tree.len(), sample().len()), (10, 10));
    let file = tree.child(Tree::ROOT, b"z").unwrap();
    assert_eq!(tree.names(file), 2);
    assert_eq!(tree.get(file), sample().get(sample().child(Tree::ROOT, b"z").unwrap()));
}

fn code(bytes: &[u8], limits: Limits) -> &'static str {
    decode(bytes, &limits).unwrap_err().code()
}

/// A root without anything but these entries.
fn root(entries: &[Vec<u8>]) -> Vec<u8> {
    let count = u32::try_from(entries.len()).unwrap();
    [MAGIC.to_vec(), plain(0o755), count.to_le_bytes().to_vec(), entries.concat()].concat()
}

fn plain(mode: u16) -> Vec<u8> {
    [&mode.to_le_bytes()[..], &[0; 22]].concat()
}

fn entry(name: &[u8], node: &[u8]) -> Vec<u8> {
    [&[u8::try_from(name.len()).unwrap()], name, node].concat()
}

fn fifo(name: &[u8]) -> Vec<u8> {
    entry(name, &[&[FIFO][..], &plain(0o644)].concat())
}

#[test]
fn evil_serial_trees() {
    let all = Limits::default();
    let bytes = encode(&sample()).unwrap();
    // Too short, too long.
    for length in 0..bytes.len() {
        assert_eq!(code(&bytes[..length], all), "LAYER_TREE_FORM", "{length}");
    }
    assert_eq!(code(&[&bytes[..], b"\0"].concat(), all), "LAYER_TREE_FORM");
    decode(&root(&[fifo(b"a"), fifo(b"b")]), &all).unwrap();

    let with =
        |tag: u8, mode: u16, rest: &[u8]| root(&[entry(b"a", &[&[tag], &plain(mode)[..], rest].concat())]);
    let owned = |at: usize, bytes: &[u8]| {
        let mut metadata = plain(0o644);
        metadata[at..at + bytes.len()].copy_from_slice(bytes);
        root(&[entry(b"a", &[&[FIFO], &metadata[..]].concat())])
    };
    let attributes = |pairs: &[(&[u8], &[u8])]| {
        let mut metadata = plain(0o644);
        metadata[22..24].copy_from_slice(&u16::try_from(pairs.len()).unwrap().to_le_bytes());
        for (name, value) in pairs {
            metadata.extend([&[u8::try_from(name.len()).unwrap()][..], name].concat());
            metadata.extend([&u16::try_from(value.len()).unwrap().to_le_bytes()[..], value].concat());
        }
        root(&[entry(b"a", &[&[FIFO], &metadata[..]].concat())])
    };
    decode(&attributes(&[(b"user.a", b"1"), (b"user.b", b"1")]), &all).unwrap();
    let large = vec![0; 65_535];
    let target = vec![b'a'; 4096];
    let device = |major: u32, minor: u32| [major.to_le_bytes(), minor.to_le_bytes()].concat();
    let long = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat();
    decode(&with(SYMLINK, 0o777, &long(b"x")), &all).unwrap();
    decode(&with(CHAR_DEVICE, 0o644, &device(1, 3)), &all).unwrap();
    let evil = [
        root(&[fifo(b"b"), fifo(b"a")]),
        root(&[fifo(b"a"), fifo(b"a")]),
        root(&[fifo(b"")]),
        root(&[fifo(b".")]),
        root(&[fifo(b"..")]),
        root(&[fifo(b"a/b")]),
        root(&[fifo(b"a\0")]),
        root(&[fifo(b".wh.a")]),
        root(&[fifo(b".wh..wh..opq")]),
        with(9, 0o644, b""),
        with(FIFO, 0o10000, b""),
        owned(2, &[0xff; 4]),
        owned(6, &[0xff; 4]),
        owned(18, &1_000_000_000_u32.to_le_bytes()),
        attributes(&[(b"user.b", b"1"), (b"user.a", b"1")]),
        attributes(&[(b"user.a", b"1"), (b"user.a", b"1")]),
        attributes(&[(b"trusted.overlay.redirect", b"/etc")]),
        attributes(&[(b"user.overlay.redirect", b"/etc")]),
        attributes(&[(b"security.selinux", b"x")]),
        attributes(&[(b"user.", b"x")]),
        attributes(&[(b"user.a", &large), (b"user.b", &large)]),
        with(SYMLINK, 0o644, &long(b"x")),
        with(SYMLINK, 0o777, &long(b"")),
        with(SYMLINK, 0o777, &long(b"a\0b")),
        with(SYMLINK, 0o777, &long(&target)),
        with(CHAR_DEVICE, 0o644, &device(0, 0)),
        with(CHAR_DEVICE, 0o644, &device(4096, 0)),
        with(BLOCK_DEVICE, 0o644, &device(1, 1 << 20)),
        with(INLINE, 0o644, &[&[65][..], &[0; 65]].concat()),
        with(OBJECT, 0o644, &[&[0; 32][..], &64_u64.to_le_bytes()].concat()),
        with(OBJECT, 0o644, &[&[0; 32][..], &u64::MAX.to_le_bytes()].concat()),
        // Hard links to what does not come before, and to themselves.
        root(&[entry(b"a", &[LINK, 0, 0, 0, 0])]),
        root(&[fifo(b"a"), entry(b"b", &[LINK, 1, 0, 0, 0])]),
    ];
    for (index, bytes) in evil.iter().enumerate() {
        assert_eq!(code(bytes, all), "LAYER_TREE_FORM", "{index}");
    }
    // A count that nobody could hold.
    let mut counted = root(&[]);
    let length = counted.len();
    counted[length - 4..].fill(0xff);
    assert_eq!(code(&counted, all), "LAYER_TREE_FORM");
    // Directories in directories.
    let deep = |levels: usize| {
        let one =
            [&1_u32.to_le_bytes()[..], &entry(b"d", &[&[DIRECTORY], &plain(0o755)[..]].concat())].concat();
        [MAGIC.to_vec(), plain(0o755), one.repeat(levels), 0_u32.to_le_bytes().to_vec()].concat()
    };
    decode(&deep(DEPTH_MAX), &all).unwrap();
    assert_eq!(code(&deep(DEPTH_MAX + 1), all), "LAYER_TREE_FORM");
    assert_eq!(code(&deep(50_000), all), "LAYER_TREE_FORM");
    // Within the limits of the image.
    assert_eq!(code(&bytes, Limits { inodes: 9, ..all }), "LAYER_TREE_FORM");
    assert_eq!(code(&bytes, Limits { entries: 0, inodes: 9, ..all }), "LAYER_TREE_FORM");
    assert_eq!(code(&bytes, Limits { content_bytes: 64, ..all }), "LAYER_TREE_FORM");
    let few = Limits { metadata_bytes: 0, entries: 0, inodes: 100, ..all };
    decode(&bytes, &few).unwrap();
    let fat = attributes(&[(b"user.a", &large[..60_000])]);
    decode(&fat, &all).unwrap();
    assert_eq!(code(&fat, few), "LAYER_TREE_FORM");
}

#[test]
fn evil_bytes_of_serial_trees_do_not_panic() {
    let bytes = encode(&sample()).unwrap();
    let limits = Limits::default();
    let mut accepted = 0;
    for index in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, bytes[index] ^ 1] {
            let mut bad = bytes.clone();
            bad[index] = value;
            if let Ok(tree) = decode(&bad, &limits) {
                assert_eq!(encode(&tree).unwrap(), bad);
                accepted += 1;
            }
        }
    }
    assert!(accepted > 100);
}
