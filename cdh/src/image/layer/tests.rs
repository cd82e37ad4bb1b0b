use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use sha2::{Digest as _, Sha256, Sha512};

use super::*;
use crate::image::objects::Store;
use crate::image::tree::InodeId;

mod model;
mod others;

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
