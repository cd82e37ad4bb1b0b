use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::composefs::fuzzing;
use crate::composefs::verity::{Hasher, Sha512Hasher};
use crate::image::tree::{Content, Inode, InodeId, Kind, Metadata, Timestamp};
use reader::{Reader, Seen};

mod dump;
mod reader;

fn vectors() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/composefs"))
}

/// The objects of a tree with these SHA-512 digests.
fn wide(tree: &Tree, digest: impl Fn(&ObjectId) -> [u8; 64]) -> HashMap<ObjectId, Sha512Id> {
    let mut names = HashMap::new();
    let mut directories = vec![Tree::ROOT];
    while let Some(directory) = directories.pop() {
        for id in tree.entries(directory).unwrap().values() {
            match &tree.get(*id).unwrap().kind {
                Kind::Directory(_) => directories.push(*id),
                Kind::Regular(Content::Object { id, .. }) => {
                    names.insert(*id, Sha512Id(digest(id)));
                }
                _ => (),
            }
        }
    }
    names
}

fn image(tree: &Tree, format: Format) -> Vec<u8> {
    write(tree, &Options { format, ..Options::default() }).unwrap()
}

fn digest(tree: &Tree, format: Format) -> String {
    hex::encode(Hasher::hash(&image(tree, format)).0)
}

/// The tree of which the C library and two crates make the same images.
#[test]
fn the_image_that_all_writers_agree_on() {
    let zeros = vec![0; 10_000];
    let tree = dump::parse(&format!(
        "/ 0 40755 1 0 0 0 1000.0 - - -\n/usr 0 40755 1 0 0 0 1000.0 - - -\n\
         /usr/hello 13 100644 1 0 0 0 1000.0 - hello,\\x20world\\x0a -\n/big 10000 100644 1 0 0 0 1000.0 - - {}\n",
        hex::encode(Hasher::hash(&zeros).0)
    ));
    assert_eq!(image(&tree, Format::V1).len(), 16_384);
    assert_eq!(digest(&tree, Format::V0), "b60d04141ab79172a7556f06aecc2d2421adcb7a35fbb70ac9a41f4967767a5c");
    assert_eq!(digest(&tree, Format::V1), "037c1c71d052ee30052068cff7bab683c3ce7ed4e891c1f45279c160be8c6f00");
    let names = wide(&tree, |_| Sha512Hasher::hash(&zeros).0);
    let image = write(&tree, &Options { names: Names::Sha512(&names), ..Options::default() }).unwrap();
    assert_eq!(
        hex::encode(Sha512Hasher::hash(&image).0),
        "5e6dfbf621443d26b7eeeef8cd9854e60c038ba5f62769d453603bc1c0cdac6ae34951fa1baf952e2f9484f4c5c08ff2e761c55c479a907f346c32db8e69aace"
    );
}

/// Trees of every kind, and what the crate `composefs` makes of them (`tests/oracle/composefs`).
#[test]
fn the_images_of_another_writer() {
    let digests = std::fs::read_to_string(vectors().join("digests")).unwrap();
    assert!(digests.lines().count() >= 20);
    for line in digests.lines() {
        let [name, size, v0, v1, wide_v1] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let dump = std::fs::read_to_string(vectors().join(format!("{name}.dump"))).unwrap();
        let tree = dump::parse(&dump);
        assert_eq!(image(&tree, Format::V1).len().to_string(), size, "{name}");
        assert_eq!(digest(&tree, Format::V0), v0, "{name}");
        assert_eq!(digest(&tree, Format::V1), v1, "{name}");
        let names = wide(&tree, |id| [id.0, id.0].concat().try_into().unwrap());
        let image = write(&tree, &Options { names: Names::Sha512(&names), ..Options::default() }).unwrap();
        assert_eq!(hex::encode(Sha512Hasher::hash(&image).0), wide_v1, "{name}");
    }
}

/// What a reader should see of a tree, by path; names of one inode share a number here.
fn expected(tree: &Tree, format: Format) -> BTreeMap<Vec<u8>, (InodeId, Seen)> {
    let mut all = BTreeMap::new();
    let mut todo = vec![(Vec::new(), Tree::ROOT)];
    while let Some((path, id)) = todo.pop() {
        let inode = tree.get(id).unwrap();
        let children: Vec<_> = tree.entries(id).into_iter().flatten().collect();
        for (name, child) in &children {
            todo.push(([path.as_slice(), name].join(&b'/'), **child));
        }
        let metadata = &inode.metadata;
        let mut xattrs: BTreeMap<Vec<u8>, Vec<u8>> = metadata
            .xattrs
            .iter()
            .map(|(name, value)| match name.strip_prefix(b"trusted.overlay.") {
                Some(rest) => ([b"trusted.overlay.overlay.", rest].concat(), value.clone()),
                None => (name.clone(), value.clone()),
            })
            .collect();
        let mut add = |name: &str, value: &[u8]| {
            assert!(xattrs.insert(name.as_bytes().to_vec(), value.to_vec()).is_none());
        };
        let is_whiteout = |id: InodeId| {
            matches!(tree.get(id).unwrap().kind, Kind::CharDevice { major: 0, minor: 0 })
                && !is_stub(tree, id)
        };
        if path.is_empty() {
            add("trusted.overlay.opaque", b"y");
        }
        if children.iter().any(|(_, id)| is_whiteout(**id)) {
            add("trusted.overlay.overlay.whiteouts", b"");
            add("user.overlay.whiteouts", b"");
            if format == Format::V1 {
                add("trusted.overlay.overlay.opaque", b"x");
                add("user.overlay.opaque", b"x");
            }
        }
        let device = |major: u32, minor: u32| (minor & 0xff) | (major << 8) | ((minor & 0xfff00) << 12);
        let (kind, size, content, device): (u16, u64, &[u8], u32) = match &inode.kind {
            Kind::Directory(_) => (4, 0, &[], 0),
            Kind::Regular(Content::Inline(bytes)) => (0o10, bytes.len() as u64, bytes, 0),
            Kind::Regular(Content::Object { id, size }) => {
                add("trusted.overlay.metacopy", &[&[0, 36, 0, 1], &id.0[..]].concat());
                let digits = hex::encode(id.0);
                add("trusted.overlay.redirect", format!("/{}/{}", &digits[..2], &digits[2..]).as_bytes());
                (0o10, *size, &[], 0)
            }
            Kind::Symlink(target) => (0o12, target.len() as u64, target, 0),
            Kind::CharDevice { .. } if is_whiteout(id) => {
                add("trusted.overlay.overlay.whiteout", b"");
                add("user.overlay.whiteout", b"");
                (0o10, 0, &[], 0)
            }
            Kind::CharDevice { major, minor } => (2, 0, &[], device(*major, *minor)),
            Kind::BlockDevice { major, minor } => (6, 0, &[], device(*major, *minor)),
            Kind::Fifo => (1, 0, &[], 0),
            Kind::Socket => (0o14, 0, &[], 0),
        };
        let seen = Seen {
            mode: kind << 12 | metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            mtime: (metadata.mtime.seconds.cast_unsigned(), metadata.mtime.nanoseconds),
            size,
            xattrs,
            content: content.to_vec(),
            device,
            ..Seen::default()
        };
        all.insert(path, (id, seen));
    }
    all
}

/// A device 0:0 of the root with a name of two digits, and with all that its neighbours there have.
fn is_stub(tree: &Tree, id: InodeId) -> bool {
    let (root, own) = (&tree.get(Tree::ROOT).unwrap().metadata, &tree.get(id).unwrap().metadata);
    let mut xattrs = root.xattrs.clone();
    xattrs.retain(|name, _| name == b"security.selinux");
    let alike = Metadata { mode: 0o644, xattrs, ..root.clone() };
    let named = |name: &[u8]| name.len() == 2 && name.iter().all(|digit| b"0123456789abcdef".contains(digit));
    *own == alike && tree.entries(Tree::ROOT).unwrap().iter().any(|(name, child)| *child == id && named(name))
}

/// What the second reader finds is what the tree holds, and beside it the devices that hide the object store.
fn assert_reads_back(tree: &Tree, format: Format, image: &[u8]) {
    let mut read = Reader::read(image, u32::from(format == Format::V1));
    let expected = expected(tree, format);
    let mut numbers: HashMap<InodeId, u64> = HashMap::new();
    for (path, (id, mut seen)) in expected {
        let found = read.remove(&path).unwrap_or_else(|| panic!("{path:?} is missing"));
        assert_eq!(*numbers.entry(id).or_insert(found.nid), found.nid, "{path:?}");
        seen.nid = found.nid;
        // Of directories both are the reader's to judge.
        (seen.links, seen.size) = (found.links, if seen.mode >> 12 == 4 { found.size } else { seen.size });
        assert!(seen.mode >> 12 == 4 || found.links == tree.names(id));
        assert_eq!(found.without_entries(), seen, "{path:?}");
    }
    let distinct: std::collections::HashSet<_> = numbers.values().collect();
    assert_eq!(distinct.len(), numbers.len());
    for (path, stub) in read {
        assert_eq!((path.len(), stub.mode, stub.device, stub.links), (3, 0o020_644, 0, 1), "{path:?}");
    }
}

#[test]
fn what_is_written_can_be_read() {
    for entry in std::fs::read_dir(vectors()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "dump") {
            let tree = dump::parse(&std::fs::read_to_string(&path).unwrap());
            for format in [Format::V0, Format::V1] {
                assert_reads_back(&tree, format, &image(&tree, format));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_is_written_can_be_read(data in proptest::collection::vec(any::<u8>(), 0..1500)) {
        let tree = fuzzing::tree(&data);
        for format in [Format::V0, Format::V1] {
            match write(&tree, &Options { format, ..Options::default() }) {
                Ok(image) => assert_reads_back(&tree, format, &image),
                Err(error) => prop_assert!(
                    matches!(error.code(), "COMPOSEFS_TREE" | "COMPOSEFS_WHITEOUT"),
                    "{}", error
                ),
            }
        }
    }
}

fn code(tree: &Tree) -> &'static str {
    write(tree, &Options::default()).map_or_else(|error| error.code(), |_| "written")
}

fn with(inode: Inode) -> Tree {
    let mut tree = Tree::new(Metadata::default(), 10);
    tree.insert(Tree::ROOT, b"x", inode).unwrap();
    tree
}

fn of(kind: Kind) -> Tree {
    with(Inode { metadata: Metadata::default(), kind })
}

fn bearing(xattrs: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Tree {
    let metadata = Metadata { xattrs: xattrs.into_iter().collect(), ..Metadata::default() };
    with(Inode { metadata, kind: Kind::Fifo })
}

#[test]
fn evil_tree_larger_than_its_limit() {
    let tree = of(Kind::Fifo);
    let length = image(&tree, Format::V1).len() as u64;
    let write_with = |limit| write(&tree, &Options { limit, ..Options::default() });
    assert_eq!(write_with(length).unwrap().len() as u64, length);
    assert_eq!(write_with(length - 1).unwrap_err().code(), "COMPOSEFS_TOO_LARGE");
}

#[test]
fn evil_tree_attributes_that_no_image_holds() {
    let name = |length: usize| [b"user.", vec![b'n'; length - 5].as_slice()].concat();
    assert_eq!(code(&bearing([(name(255), vec![0; 65_535])])), "written");
    assert_eq!(code(&bearing([(name(256), vec![])])), "COMPOSEFS_TREE");
    assert_eq!(code(&bearing([(name(10), vec![0; 65_536])])), "COMPOSEFS_TREE");
    assert_eq!(code(&bearing([(vec![], vec![])])), "COMPOSEFS_TREE");
    assert_eq!(code(&bearing([(b"user.a\0b".to_vec(), vec![])])), "COMPOSEFS_TREE");
    // Longer by its new name.
    let renamed = [b"trusted.overlay.", [b'n'; 235].as_slice()].concat();
    assert_eq!(code(&bearing([(renamed, vec![])])), "COMPOSEFS_TREE");
    // More bytes than an inode can say: each value by itself fits.
    let many = |count| (0..count).map(|at| (format!("user.{at}").into_bytes(), vec![0; 65_000]));
    assert_eq!(code(&bearing(many(4))), "written");
    assert_eq!(code(&bearing(many(5))), "COMPOSEFS_TREE");
    // More shared ones than an inode can count.
    for (count, outcome) in [(255, "written"), (256, "COMPOSEFS_TREE")] {
        let shared = (0..count).map(|at| (format!("user.{at}").into_bytes(), vec![]));
        let mut tree = bearing(shared);
        let first = tree.get(tree.child(Tree::ROOT, b"x").unwrap()).unwrap().clone();
        tree.insert(Tree::ROOT, b"y", first).unwrap();
        assert_eq!(code(&tree), outcome);
    }
}

#[test]
fn evil_tree_names_that_no_image_holds() {
    let outcome = |name: &[u8]| {
        let mut tree = Tree::new(Metadata::default(), 10);
        let fifo = || Inode { metadata: Metadata::default(), kind: Kind::Fifo };
        // With one device fewer there is room for the inode that is counted twice here.
        tree.insert(Tree::ROOT, b"00", fifo()).unwrap();
        let id = tree.insert(Tree::ROOT, b"f", fifo()).unwrap();
        let kind = Kind::Directory(BTreeMap::from([(name.into(), id)]));
        tree.insert(Tree::ROOT, b"d", Inode { metadata: Metadata::default(), kind }).unwrap();
        code(&tree)
    };
    assert_eq!(outcome(b"name"), "written");
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'n'; 256]] {
        assert_eq!(outcome(name), "COMPOSEFS_TREE", "{name:?}");
    }
}

#[test]
fn evil_tree_metadata_that_no_image_holds() {
    let metadata = Metadata { mode: 0o10_000, ..Metadata::default() };
    assert_eq!(code(&with(Inode { metadata, kind: Kind::Fifo })), "COMPOSEFS_TREE");
    let mtime = Timestamp { seconds: 0, nanoseconds: 1_000_000_000 };
    let metadata = Metadata { mtime, ..Metadata::default() };
    assert_eq!(code(&with(Inode { metadata, kind: Kind::Fifo })), "COMPOSEFS_TREE");
}

#[test]
fn evil_tree_contents_that_no_image_holds() {
    let object = |size| of(Kind::Regular(Content::Object { id: ObjectId([1; 32]), size }));
    let inline = |size| of(Kind::Regular(Content::Inline(vec![1; size].into())));
    let link = |target: &[u8]| of(Kind::Symlink(target.into()));
    for fits in [
        object(65),
        object(OBJECT_MAX),
        inline(0),
        inline(64),
        link(b"t"),
        link(&[b't'; 4095]),
        of(Kind::BlockDevice { major: 0xfff, minor: 0xf_ffff }),
    ] {
        assert_eq!(code(&fits), "written");
        assert_reads_back(&fits, Format::V1, &image(&fits, Format::V1));
    }
    for refused in [
        object(0),
        object(64),
        object(OBJECT_MAX + 1),
        object(u64::MAX),
        inline(65),
        link(b""),
        link(&[b't'; 4096]),
        link(b"a\0b"),
        of(Kind::BlockDevice { major: 0x1000, minor: 0 }),
        of(Kind::CharDevice { major: 0, minor: 0x10_0000 }),
    ] {
        assert_eq!(code(&refused), "COMPOSEFS_TREE");
    }
}

#[test]
fn evil_tree_that_holds_itself() {
    // One directory by two names, and one that is its own root.
    for twice in [true, false] {
        let mut tree = Tree::new(Metadata::default(), 10);
        let directory = |entries| Inode { metadata: Metadata::default(), kind: Kind::Directory(entries) };
        let inner = tree.insert(Tree::ROOT, b"a", directory(BTreeMap::new())).unwrap();
        let target = if twice { inner } else { Tree::ROOT };
        let again = BTreeMap::from([((*b"again").into(), target)]);
        tree.insert(Tree::ROOT, b"b", directory(again)).unwrap();
        assert_eq!(code(&tree), "COMPOSEFS_TREE");
    }
}

#[test]
fn evil_tree_whiteouts_without_a_form() {
    let whiteout = || Inode { metadata: Metadata::default(), kind: Kind::CharDevice { major: 0, minor: 0 } };
    assert_eq!(code(&with(whiteout())), "written");
    let mut tree = with(whiteout());
    let id = tree.child(Tree::ROOT, b"x").unwrap();
    tree.link(Tree::ROOT, b"y", id).unwrap();
    assert_eq!(code(&tree), "COMPOSEFS_WHITEOUT");
    for name in ["user.overlay.whiteout", "trusted.overlay.whiteout"] {
        let mut inode = whiteout();
        inode.metadata.xattrs.insert(name.into(), vec![]);
        assert_eq!(code(&with(inode)), "COMPOSEFS_WHITEOUT");
    }
    for name in ["user.overlay.whiteouts", "trusted.overlay.whiteouts", "trusted.overlay.opaque"] {
        let mut tree = with(whiteout());
        tree.metadata_mut(Tree::ROOT).unwrap().xattrs.insert(name.into(), vec![]);
        assert_eq!(code(&tree), "COMPOSEFS_WHITEOUT");
    }
}

#[test]
fn an_object_without_a_longer_name() {
    let tree = of(Kind::Regular(Content::Object { id: ObjectId([1; 32]), size: 100 }));
    let none = HashMap::new();
    let error = write(&tree, &Options { names: Names::Sha512(&none), ..Options::default() }).unwrap_err();
    assert_eq!(error.code(), "COMPOSEFS_UNNAMED");
}

/// Else the property above would hold of nothing.
#[test]
fn most_trees_of_any_bytes_are_written() {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        state.to_le_bytes()[5]
    };
    let written = (0..200)
        .filter(|_| {
            let length = usize::from(next()) * 5;
            let tree = fuzzing::tree(&(0..length).map(|_| next()).collect::<Vec<_>>());
            write(&tree, &Options::default()).is_ok()
        })
        .count();
    assert!(written > 120, "{written} of 200");
}
