use std::collections::HashMap;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use sha2::{Digest as _, Sha256, Sha512};

use super::*;
use crate::image::objects::Store;
use crate::image::tree::{InodeId, Timestamp};

/// The digest of expanded bytes.
pub fn diff_id(bytes: &[u8]) -> DiffId {
    DiffId::Sha256(Sha256::digest(bytes).into())
}

/// A store in a directory.
pub fn store(path: &Path) -> Store {
    let directory: OwnedFd = std::fs::File::open(path).unwrap().into();
    Store::new(directory, 0)
}

/// The tree of plain archives.
pub fn unpack(layers: &[Vec<u8>], limits: Limits) -> Result<Tree, LayerError> {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let mut unpacker = Unpacker::new(&store, limits);
    for layer in layers {
        unpacker = unpacker.layer(&layer[..], Compression::None, &diff_id(layer))?;
    }
    Ok(unpacker.finish())
}

/// An inode, by its path.
pub fn at<'t>(tree: &'t Tree, path: &str) -> Option<(InodeId, &'t Inode)> {
    let mut id = Tree::ROOT;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        id = tree.child(id, name.as_bytes())?;
    }
    Some((id, tree.get(id)?))
}

/// All paths of a tree, with what is there.
pub fn listing(tree: &Tree) -> BTreeMap<Vec<u8>, (InodeId, Inode)> {
    fn walk(tree: &Tree, id: InodeId, path: &[u8], out: &mut BTreeMap<Vec<u8>, (InodeId, Inode)>) {
        let inode = tree.get(id).unwrap().clone();
        for (name, child) in tree.entries(id).into_iter().flatten() {
            let path = if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() };
            walk(tree, *child, &path, out);
        }
        let kind = match inode.kind {
            Kind::Directory(_) => Kind::Directory(BTreeMap::new()),
            other => other,
        };
        out.insert(path.to_vec(), (id, Inode { kind, ..inode }));
    }
    let mut out = BTreeMap::new();
    walk(tree, Tree::ROOT, b"", &mut out);
    out
}

/// Paths alone.
pub fn paths(tree: &Tree) -> Vec<String> {
    listing(tree).into_keys().skip(1).map(|path| String::from_utf8(path).unwrap()).collect()
}

/// Writes archives, by the `tar` crate.
pub struct Tar(pub ::tar::Builder<Vec<u8>>);

impl Tar {
    pub fn new() -> Self {
        Self(::tar::Builder::new(Vec::new()))
    }

    pub fn entry(mut self, kind: ::tar::EntryType, path: &str, target: &str, data: &[u8]) -> Self {
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o700 } else { 0o640 });
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(9);
        header.set_size(data.len().try_into().unwrap());
        // By hand, since the crate refuses what evil layers have.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        if kind.is_character_special() || kind.is_block_special() {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    pub fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(::tar::EntryType::Regular, path, "", data)
    }

    pub fn dir(self, path: &str) -> Self {
        self.entry(::tar::EntryType::Directory, path, "", b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(::tar::EntryType::Symlink, path, target, b"")
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        self.entry(::tar::EntryType::Link, path, target, b"")
    }

    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn merged(layers: Vec<Tar>) -> Tree {
    let layers: Vec<Vec<u8>> = layers.into_iter().map(Tar::finish).collect();
    unpack(&layers, Limits::default()).unwrap()
}

fn layer(paths: &[&str]) -> Tar {
    paths.iter().fold(Tar::new(), |tar, path| match path.strip_suffix('/') {
        Some(path) => tar.dir(path),
        None => tar.file(path, if path.contains(".wh.") { b"" } else { b"x" }),
    })
}

#[test]
fn media_types_and_digests() {
    for (text, compression) in [
        ("application/vnd.oci.image.layer.v1.tar", Compression::None),
        ("application/vnd.oci.image.layer.v1.tar+gzip", Compression::Gzip),
        ("application/vnd.oci.image.layer.v1.tar+zstd", Compression::Zstd),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Compression::Gzip),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::Gzip),
        ("application/vnd.docker.image.rootfs.diff.tar", Compression::None),
    ] {
        assert_eq!(Compression::of_media_type(text).unwrap(), compression);
    }
    for text in [
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.v1.tar+bzip2",
        "application/octet-stream",
        "",
    ] {
        assert_eq!(Compression::of_media_type(text).unwrap_err().code(), "LAYER_MEDIA_TYPE");
    }
    for id in [diff_id(b"x"), DiffId::Sha512(Sha512::digest(b"x").into())] {
        assert_eq!(id.to_string().parse::<DiffId>().unwrap(), id);
    }
    let upper = diff_id(b"x").to_string().to_uppercase().replace("SHA", "sha");
    for text in ["", "sha256:", "sha256:00", "sha384:00", "md5:00", &upper, "deadbeef"] {
        assert_eq!(text.parse::<DiffId>().unwrap_err().code(), "LAYER_DIFF_ID_FORM");
    }
}

#[test]
fn metadata_is_data() {
    let tree = merged(vec![
        Tar::new()
            .dir("./")
            .dir("/dev/")
            .entry(::tar::EntryType::Char, "dev/null", "", b"")
            .entry(::tar::EntryType::Block, "dev/sda", "", b"")
            .entry(::tar::EntryType::Fifo, "dev/pipe", "", b"")
            .symlink("./dev/../x".trim_end_matches("/../x"), "ignored"),
    ]);
    // The last entry for a name counts.
    assert!(matches!(&at(&tree, "dev").unwrap().1.kind, Kind::Symlink(_)));
    let tree = merged(vec![
        Tar::new()
            .dir("./")
            .dir("/dev/")
            .entry(::tar::EntryType::Char, "dev/null", "", b"")
            .entry(::tar::EntryType::Block, "dev/sda", "", b"")
            .entry(::tar::EntryType::Fifo, "dev/pipe", "", b"")
            .symlink("link", "../../outside")
            .file("a//b/./c", &[1; 64])
            .file("large", &[1; 65])
            .link("again", "/large"),
    ]);
    let kind = |path: &str| at(&tree, path).unwrap().1.kind.clone();
    assert_eq!(kind("dev/null"), Kind::CharDevice { major: 1, minor: 3 });
    assert_eq!(kind("dev/sda"), Kind::BlockDevice { major: 1, minor: 3 });
    assert_eq!(kind("dev/pipe"), Kind::Fifo);
    assert_eq!(kind("link"), Kind::Symlink(b"../../outside"[..].into()));
    assert_eq!(kind("a/b/c"), Kind::Regular(Content::Inline(vec![1; 64].into())));
    let id = crate::composefs::verity::Hasher::hash(&[1; 65]);
    assert_eq!(kind("large"), Kind::Regular(Content::Object { id, size: 65 }));
    assert_eq!(at(&tree, "large").unwrap().0, at(&tree, "again").unwrap().0);
    let mode = |path: &str| at(&tree, path).unwrap().1.metadata.mode;
    assert_eq!((mode(""), mode("dev"), mode("link"), mode("large")), (0o700, 0o700, 0o777, 0o640));
    // Parents without an entry.
    let implied = &at(&tree, "a/b").unwrap().1.metadata;
    assert_eq!(implied, &Metadata { mode: 0o755, ..Metadata::default() });
    assert_eq!(at(&tree, "large").unwrap().1.metadata.uid, 7);
}

#[test]
fn a_whiteout_hides_only_lower_layers() {
    let lower = || layer(&["d/", "d/a", "d/b", "d/sub/", "d/sub/x", "d/sub/y", "e"]);
    let cases: [(&[&str], &[&str]); 10] = [
        (&["d/.wh.a"], &["d", "d/b", "d/sub", "d/sub/x", "d/sub/y", "e"]),
        (&[".wh.d"], &["e"]),
        (
            &[".wh.nothing", "none/.wh.nothing", "none/.wh..wh..opq"],
            &["d", "d/a", "d/b", "d/sub", "d/sub/x", "d/sub/y", "e"],
        ),
        (&["d/.wh..wh..opq", "d/new"], &["d", "d/new", "e"]),
        (&["d/a", "d/.wh.a"], &["d", "d/a", "d/b", "d/sub", "d/sub/x", "d/sub/y", "e"]),
        (&["d/", ".wh.d", "d/new"], &["d", "d/new", "e"]),
        (&["d/sub/new", "d/.wh..wh..opq"], &["d", "d/sub", "d/sub/new", "e"]),
        (&["d/sub/", "d/sub/new", ".wh.d"], &["d", "d/sub", "d/sub/new", "e"]),
        (&[".wh..wh..opq", "f"], &["f"]),
        (&["d/sub/.wh.x", "d/.wh..wh..opq"], &["d", "e"]),
    ];
    for (upper, expected) in cases {
        assert_eq!(paths(&merged(vec![lower(), layer(upper)])), expected, "{upper:?}");
        let reversed: Vec<&str> = upper.iter().rev().copied().collect();
        assert_eq!(paths(&merged(vec![lower(), layer(&reversed)])), expected, "{reversed:?}");
    }
    // A directory that only has new entries below it is not the lower one.
    for upper in [["d/sub/new", "d/.wh..wh..opq"], ["d/.wh..wh..opq", "d/sub/new"]] {
        let tree = merged(vec![lower(), layer(&upper)]);
        assert_eq!(at(&tree, "d/sub").unwrap().1.metadata.mode, 0o755, "{upper:?}");
        assert_eq!(at(&tree, "d").unwrap().1.metadata.mode, 0o700);
    }
    // What this layer hides, the next one may have again.
    let tree = merged(vec![lower(), layer(&[".wh.d"]), layer(&["d/again"]), layer(&["d/.wh..wh..opq"])]);
    assert_eq!(paths(&tree), ["d", "e"]);
}

#[test]
fn layers_replace_and_keep() {
    let tree = merged(vec![
        Tar::new().dir("d").file("d/kept", b"1").file("f", b"1").link("f2", "f").dir("g").file("g/x", b"1"),
        Tar::new().dir("d").file("f", b"2").file("g", b"2").link("h", "f2"),
    ]);
    assert_eq!(paths(&tree), ["d", "d/kept", "f", "f2", "g", "h"]);
    let bytes = |path: &str| match &at(&tree, path).unwrap().1.kind {
        Kind::Regular(Content::Inline(bytes)) => bytes.to_vec(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (bytes("f"), bytes("f2"), bytes("g"), bytes("h")),
        (b"2".to_vec(), b"1".to_vec(), b"2".to_vec(), b"1".to_vec())
    );
    assert_eq!(at(&tree, "f2").unwrap().0, at(&tree, "h").unwrap().0);
}

#[test]
fn only_what_an_image_means_is_kept_of_attributes() {
    let mut tar = ::tar::Builder::new(Vec::new());
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    tar.append_pax_extensions([
        ("SCHILY.xattr.user.mine", &b"1=2"[..]),
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.security.selinux", b"label"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.system.posix_acl_access", b"acl"),
    ])
    .unwrap();
    let tree = merged(vec![Tar(tar).file("usr", b"x")]);
    let kept = &at(&tree, "usr").unwrap().1.metadata.xattrs;
    assert_eq!(
        kept.keys().map(Vec::as_slice).collect::<Vec<_>>(),
        [&b"security.capability"[..], b"user.mine"]
    );
    assert_eq!(kept[&b"user.mine"[..]], b"1=2");

    let mut tar = ::tar::Builder::new(Vec::new());
    tar.append_pax_extensions([
        ("SCHILY.xattr.user.a", &b"1"[..]),
        ("SCHILY.xattr.security.capability", &capability),
    ])
    .unwrap();
    let mut tree = merged(vec![Tar(tar).dir("usr").dir("run").file("run/pid", b"1").file("x", b"1")]);
    transform_for_oci(&mut tree).unwrap();
    assert_eq!(paths(&tree), ["run", "usr", "x"]);
    let root = &tree.get(Tree::ROOT).unwrap().metadata;
    assert_eq!((root.mode, root.uid, root.mtime.seconds, root.xattrs.len()), (0o700, 7, 9, 1));
    assert_eq!(transform_for_oci(&mut merged(vec![Tar::new()])).unwrap_err().code(), "LAYER_NO_USR");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

#[test]
fn compressed_layers_have_any_number_of_members() {
    let plain = Tar::new().file("a", &[5; 300_000]).file("b", b"y").finish();
    let (front, back) = plain.split_at(100_000);
    let skippable = [&[0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..]].concat();
    let sha512 = DiffId::Sha512(Sha512::digest(&plain).into());
    for (bytes, compression) in [
        (plain.clone(), Compression::None),
        (gzip(&plain), Compression::Gzip),
        ([gzip(front), gzip(b""), gzip(back)].concat(), Compression::Gzip),
        (zstd(&plain), Compression::Zstd),
        ([skippable.clone(), zstd(front), skippable, zstd(b""), zstd(back)].concat(), Compression::Zstd),
    ] {
        for id in [diff_id(&plain), sha512] {
            let root = tempfile::tempdir().unwrap();
            let store = store(root.path());
            let unpacker = Unpacker::new(&store, Limits::default());
            let unpacker = unpacker.layer(&bytes[..], compression, &id).unwrap();
            assert_eq!(unpacker.amounts(), (plain.len() as u64, 300_001));
            assert_eq!(paths(&unpacker.finish()), ["a", "b"]);
        }
    }
}

/// A tree of random shape, with paths whose names are long sometimes.
#[derive(Clone, Debug)]
enum Node {
    Dir(BTreeMap<Vec<u8>, Node>, u16, u32),
    File(Vec<u8>, u16, u32, i64),
    Symlink(Vec<u8>),
    Fifo(u16),
    Char(u32, u32),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("a byte of a name", |byte| !matches!(byte, b'/' | 0));
    prop_oneof![4 => prop::collection::vec(byte.clone(), 1..8), 1 => prop::collection::vec(byte, 90..250)]
        .prop_filter("a name", |name| name != b"." && name != b".." && !name.starts_with(b".wh."))
}

fn node() -> impl Strategy<Value = Node> {
    let mode = 0_u16..0o10000;
    let leaf = prop_oneof![
        (prop::collection::vec(any::<u8>(), 0..200), mode.clone(), 0..u32::MAX, -(1_i64 << 40)..(1 << 40))
            .prop_map(|(data, mode, uid, mtime)| Node::File(data, mode, uid, mtime)),
        prop::collection::vec(1_u8..=255, 1..300).prop_map(Node::Symlink),
        mode.clone().prop_map(Node::Fifo),
        (1..=MAJOR_MAX, 0..=MINOR_MAX).prop_map(|(major, minor)| Node::Char(major, minor)),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        (prop::collection::btree_map(name(), inner, 0..6), mode.clone(), 0..u32::MAX)
            .prop_map(|(entries, mode, uid)| Node::Dir(entries, mode, uid))
    })
}

/// Python's `tarfile` writes each of its formats; a line of JSON for each entry tells it what.
const PYTHON: &str = r#"
import sys, json, tarfile, io
form = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}[sys.argv[1]]
out = tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=form, encoding="utf-8", errors="surrogateescape")
text = lambda h: bytes.fromhex(h).decode("utf-8", "surrogateescape")
for line in sys.stdin:
    e = json.loads(line)
    t = tarfile.TarInfo(text(e["path"])); t.type = e["type"].encode(); t.mode = e["mode"]; t.uid = e["uid"]; t.gid = 5
    t.mtime = e["mtime"]; t.linkname = text(e["target"]); t.devmajor = e["major"]; t.devminor = e["minor"]
    data = bytes.fromhex(e["data"]); t.size = len(data)
    out.addfile(t, io.BytesIO(data))
out.close()
"#;

fn python(form: &str, lines: &str) -> Vec<u8> {
    let mut child = Command::new("python3")
        .args(["-c", PYTHON, form])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines = lines.to_owned();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    output.stdout
}

type Expected = BTreeMap<Vec<u8>, (Metadata, Kind)>;

fn flatten(path: &[u8], entries: &BTreeMap<Vec<u8>, Node>, lines: &mut String, expected: &mut Expected) {
    for (name, node) in entries {
        let path = if path.is_empty() { name.clone() } else { [path, b"/", name].concat() };
        let (kind, mode, uid, mtime, target, data, device) = match node {
            Node::Dir(_, mode, uid) => ("5", *mode, *uid, 3, &[][..], &[][..], (0, 0)),
            Node::File(data, mode, uid, mtime) => ("0", *mode, *uid, *mtime, &[][..], &data[..], (0, 0)),
            Node::Symlink(target) => ("2", 0o777, 0, 4, &target[..], &[][..], (0, 0)),
            Node::Fifo(mode) => ("6", *mode, 1, -5, &[][..], &[][..], (0, 0)),
            Node::Char(major, minor) => ("3", 0o600, 1, 6, &[][..], &[][..], (*major, *minor)),
        };
        lines.push_str(&format!(
            r#"{{"path":"{}","type":"{kind}","mode":{mode},"uid":{uid},"mtime":{mtime},"target":"{}","data":"{}","major":{},"minor":{}}}"#,
            hex::encode(&path), hex::encode(target), hex::encode(data), device.0, device.1,
        ));
        lines.push('\n');
        let kind = match node {
            Node::Dir(..) => Kind::Directory(BTreeMap::new()),
            Node::File(data, ..) if data.len() <= INLINE_MAX => {
                Kind::Regular(Content::Inline(data.clone().into()))
            }
            Node::File(data, ..) => Kind::Regular(Content::Object {
                id: crate::composefs::verity::Hasher::hash(data),
                size: data.len() as u64,
            }),
            Node::Symlink(target) => Kind::Symlink(target.clone().into()),
            Node::Fifo(_) => Kind::Fifo,
            Node::Char(major, minor) => Kind::CharDevice { major: *major, minor: *minor },
        };
        let mtime = Timestamp { seconds: mtime, nanoseconds: 0 };
        let metadata = Metadata { mode, uid, gid: 5, mtime, xattrs: BTreeMap::new() };
        expected.insert(path.clone(), (metadata, kind));
        if let Node::Dir(entries, ..) = node {
            flatten(&path, entries, lines, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn random_trees_come_back_from_archives(entries in prop::collection::btree_map(name(), node(), 0..8)) {
        let (mut lines, mut expected) = (String::new(), Expected::new());
        flatten(b"", &entries, &mut lines, &mut expected);
        for form in ["gnu", "pax"] {
            let tree = unpack(&[python(form, &lines)], Limits::default()).unwrap();
            let found: Expected = listing(&tree)
                .into_iter()
                .filter(|(path, _)| !path.is_empty())
                .map(|(path, (_, inode))| (path, (inode.metadata, inode.kind)))
                .collect();
            prop_assert_eq!(&found, &expected);
            let serial = codec::encode(&tree).unwrap();
            let again = codec::decode(&serial, &Limits::default()).unwrap();
            prop_assert_eq!(codec::encode(&again).unwrap(), serial);
            let listed = |tree: &Tree| listing(tree).into_iter().map(|(path, (_, inode))| (path, inode)).collect::<Vec<_>>();
            prop_assert_eq!(listed(&again), listed(&tree));
        }
    }
}

#[test]
fn gnu_tar_and_its_sparse_files() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    // Holes in front, between and behind, in more runs than a header has room for.
    let mut contents = vec![0; 3 << 20];
    let sparse = std::fs::File::create(path("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    for run in 0..30 {
        let offset = 65_536 + run * 90_112;
        let bytes = vec![u8::try_from(run + 1).unwrap(); 4096];
        contents[offset..offset + 4096].copy_from_slice(&bytes);
        std::os::unix::fs::FileExt::write_all_at(&sparse, &bytes, offset as u64).unwrap();
    }
    std::fs::File::create(path("hole")).unwrap().set_len(1 << 20).unwrap();
    let long = "n".repeat(200);
    std::fs::write(path(&long), b"long").unwrap();
    std::os::unix::fs::symlink("t".repeat(180), path("longlink")).unwrap();
    std::fs::hard_link(path(&long), path("same")).unwrap();
    for options in [
        &["--format=gnu", "--sparse"][..],
        &["--format=gnu"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
        &["--format=pax"],
        &["--format=pax", "--xattrs", "--sparse"],
    ] {
        let output = Command::new("tar")
            .args(options)
            .args(["--hole-detection=raw", "--sort=name", "-cf", "-", "-C"])
            .arg(root.path())
            .arg(".")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        if options.contains(&"--sparse") {
            assert!(output.stdout.len() < 1 << 20, "{options:?}: {} bytes", output.stdout.len());
        }
        let objects = tempfile::tempdir().unwrap();
        let store = store(objects.path());
        let unpacker = Unpacker::new(&store, Limits::default());
        let tree =
            unpacker.layer(&output.stdout[..], Compression::None, &diff_id(&output.stdout)).unwrap().finish();
        assert_eq!(paths(&tree), ["hole", "longlink", &long, "same", "sparse"], "{options:?}");
        let expected = [("sparse", contents.clone()), ("hole", vec![0; 1 << 20])];
        for (name, bytes) in expected {
            let id = crate::composefs::verity::Hasher::hash(&bytes);
            let kind = Kind::Regular(Content::Object { id, size: bytes.len() as u64 });
            assert_eq!(at(&tree, name).unwrap().1.kind, kind, "{options:?} {name}");
            let mut found = Vec::new();
            store.open(id, bytes.len() as u64).unwrap().read_to_end(&mut found).unwrap();
            assert!(found == bytes);
        }
        assert_eq!(at(&tree, &long).unwrap().0, at(&tree, "same").unwrap().0);
        if options[0] == "--format=pax" {
            let nanoseconds =
                std::os::unix::fs::MetadataExt::mtime_nsec(&std::fs::metadata(path("sparse")).unwrap());
            assert_eq!(i64::from(at(&tree, "sparse").unwrap().1.metadata.mtime.nanoseconds), nanoseconds);
        }
    }
}

/// The same layers, unpacked by somebody else's program into files.
#[test]
fn umoci_unpacks_the_same() {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
    let root = tempfile::tempdir().unwrap();
    let umoci = |arguments: &[&str]| {
        let output = Command::new("umoci").args(arguments).current_dir(root.path()).output().unwrap();
        assert!(output.status.success(), "umoci {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    umoci(&["init", "--layout", "image"]);
    umoci(&["new", "--image", "image:x"]);
    umoci(&["unpack", "--rootless", "--image", "image:x", "bundle"]);
    let rootfs = root.path().join("bundle/rootfs");
    let change = |script: &str| {
        let status = Command::new("sh").args(["-ec", script]).current_dir(&rootfs).status().unwrap();
        assert!(status.success());
    };
    change("mkdir -p usr/bin etc/deep/er var/empty; echo hello >usr/bin/hello; chmod 4755 usr/bin/hello; ln usr/bin/hello usr/bin/hi
        ln -s ../usr/bin/hello etc/link; head -c 100000 /dev/urandom >etc/large; echo x >etc/deep/er/x; echo y >etc/deep/y; mkfifo var/pipe
        touch -d @1234567.5 etc/large; mkdir gone; echo 1 >gone/1; ln etc/large var/large");
    umoci(&["repack", "--refresh-bundle", "--image", "image:x", "bundle"]);
    change(
        "rm -rf gone etc/deep; mkdir etc/deep; echo new >etc/deep/new; rm usr/bin/hi; echo changed >etc/large; rm etc/link; mkdir etc/link; echo f >etc/link/f",
    );
    umoci(&["repack", "--refresh-bundle", "--image", "image:x", "bundle"]);
    change("echo third >third; rm etc/deep/new; chmod 700 var; rm -r etc/link; ln -s / etc/link");
    umoci(&["repack", "--image", "image:x", "bundle"]);
    umoci(&["unpack", "--rootless", "--image", "image:x", "again"]);

    let json = |digest: &str| -> serde_json::Value {
        let path = root.path().join("image/blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(root.path().join("image/index.json")).unwrap()).unwrap();
    let manifest = json(index["manifests"][0]["digest"].as_str().unwrap());
    let config = json(manifest["config"]["digest"].as_str().unwrap());
    let objects = tempfile::tempdir().unwrap();
    let store = store(objects.path());
    let mut unpacker = Unpacker::new(&store, Limits::default());
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3);
    for (layer, diff_id) in layers.iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap()) {
        let digest = layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let blob = std::fs::File::open(root.path().join("image/blobs/sha256").join(digest)).unwrap();
        let compression = Compression::of_media_type(layer["mediaType"].as_str().unwrap()).unwrap();
        unpacker = unpacker.layer(blob, compression, &diff_id.as_str().unwrap().parse().unwrap()).unwrap();
    }
    let mut ours = listing(&unpacker.finish());
    ours.remove(&b""[..]);

    let other = root.path().join("again/rootfs");
    let (mut left, mut compared, mut inodes) = (vec![other.clone()], 0, HashMap::new());
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&other).unwrap().as_os_str().as_bytes().to_vec();
            let found = std::fs::symlink_metadata(&path).unwrap();
            let (id, inode) = ours.remove(&name).unwrap_or_else(|| panic!("umoci has {}", path.display()));
            let kind = found.file_type();
            match &inode.kind {
                Kind::Directory(_) => {
                    assert!(kind.is_dir());
                    left.push(path.clone());
                }
                Kind::Symlink(target) => {
                    assert_eq!(std::fs::read_link(&path).unwrap().as_os_str().as_bytes(), &target[..])
                }
                Kind::Fifo => assert!(kind.is_fifo()),
                Kind::Regular(Content::Inline(bytes)) => {
                    assert_eq!(std::fs::read(&path).unwrap(), bytes.to_vec())
                }
                Kind::Regular(Content::Object { id, size }) => {
                    let bytes = std::fs::read(&path).unwrap();
                    assert_eq!(
                        (crate::composefs::verity::Hasher::hash(&bytes), bytes.len() as u64),
                        (*id, *size)
                    );
                }
                other => panic!("{other:?}"),
            }
            if !kind.is_symlink() {
                assert_eq!(
                    found.permissions().mode() & 0o7777,
                    u32::from(inode.metadata.mode),
                    "{}",
                    path.display()
                );
                assert_eq!(found.mtime(), inode.metadata.mtime.seconds, "{}", path.display());
            }
            if !kind.is_dir() {
                assert_eq!(*inodes.entry(found.ino()).or_insert(id), id, "{}", path.display());
            }
            compared += 1;
        }
    }
    assert!(ours.is_empty(), "umoci lacks {:?}", ours.keys());
    assert!(compared >= 12);
}
