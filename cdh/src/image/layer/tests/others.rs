//! Archives and images that other programs write, and what other programs make of them.

use std::collections::HashMap;
use std::io::Write as _;
use std::process::Command;

use proptest::prelude::*;

use super::super::*;
use super::{at, diff_id, listing, paths, store, unpack};
use crate::composefs::verity::Hasher;
use crate::image::tree::Timestamp;

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
            Node::File(data, ..) => {
                Kind::Regular(Content::Object { id: Hasher::hash(data), size: data.len() as u64 })
            }
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
            let id = Hasher::hash(&bytes);
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
                    assert_eq!((Hasher::hash(&bytes), bytes.len() as u64), (*id, *size));
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
