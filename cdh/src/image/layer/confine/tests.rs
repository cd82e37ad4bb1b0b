use std::io::Seek as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::*;
use crate::composefs::ComposefsError;
use crate::composefs::mount::check_all;
use crate::composefs::verity::Hasher;
use crate::image::layer::tests::{Tar, diff_id, paths};

fn directory(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

/// What the parent does with the objects of a child that has ended.
fn verified(tree: &Tree, objects: &Path) -> Result<(), ComposefsError> {
    check_all(&directory(objects), tree)
}

/// A file without a name, open for reading only.
fn input(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    File::open(file.path())
}

fn job(layers: &[Vec<u8>]) -> Job {
    let layers = layers
        .iter()
        .map(|layer| JobLayer { compression: Compression::None, diff_id: diff_id(layer) })
        .collect();
    Job { layers, limits: Limits::default(), reserve: 0, transform: false }
}

#[test]
fn what_a_child_makes_is_what_its_parent_gets() {
    let root = tempfile::tempdir().unwrap();
    let layers = [
        Tar::new().file("usr/a", &[1; 5000]).file("b", b"x").finish(),
        Tar::new().link("c", "usr/a").finish(),
    ];
    let job = job(&layers);
    // The job travels as text.
    let text = serde_json::to_string(&job).unwrap();
    assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
    assert!(serde_json::from_str::<Job>(&text.replace("sha256:", "sha257:")).is_err());
    let mut answer = Vec::new();
    run(&job, layers.iter().map(|layer| input(layer)), directory(root.path()), &mut answer).unwrap();
    let tree = receive(&answer[..], &job).unwrap();
    assert_eq!(paths(&tree), ["b", "c", "usr", "usr/a"]);
    verified(&tree, root.path()).unwrap();
    Store::new(directory(root.path()), 0).open(Hasher::hash(&[1; 5000]), 5000).unwrap();

    let transformed = Job { transform: true, ..job };
    let mut answer = Vec::new();
    run(&transformed, layers.iter().map(|layer| input(layer)), directory(root.path()), &mut answer).unwrap();
    assert_eq!(receive(&answer[..], &transformed).unwrap().get(Tree::ROOT).unwrap().metadata.mode, 0o755);
}

#[test]
fn a_refusal_keeps_its_code() {
    let root = tempfile::tempdir().unwrap();
    let layers = [Tar::new().file("../x", b"x").finish()];
    let job = job(&layers);
    let mut answer = Vec::new();
    run(&job, vec![input(&layers[0])], directory(root.path()), &mut answer).unwrap();
    let error = receive(&answer[..], &job).unwrap_err();
    assert_eq!(error.code(), "LAYER_NAME");
    assert!(error.to_string().contains("../x"), "{error}");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    // A layer that is not the one of the configuration.
    let mut answer = Vec::new();
    run(&job, vec![input(b"")], directory(root.path()), &mut answer).unwrap();
    assert_eq!(receive(&answer[..], &job).unwrap_err().code(), "LAYER_DIFF_ID");
}

#[test]
fn evil_answers() {
    let job = Job {
        limits: Limits { metadata_bytes: 1000, entries: 0, inodes: 1, ..Limits::default() },
        ..job(&[])
    };
    for answer in [
        &b""[..],
        b"\x02",
        b"\x01",
        b"\x01\x05LAY",
        b"\x01\x05WRONGwords",
        b"\x01\x00words",
        b"\x01\x0bLAYER_WRONGx",
    ] {
        assert_eq!(receive(answer, &job).unwrap_err().code(), "LAYER_CHILD", "{answer:?}");
    }
    assert_eq!(receive(&b"\x00"[..], &job).unwrap_err().code(), "LAYER_TREE_FORM");
    // More than a tree may have, without end.
    let endless = std::io::repeat(TREE);
    assert_eq!(receive(endless, &job).unwrap_err().code(), "LAYER_CHILD");
    // Words that would write to somebody's terminal.
    let mut answer = b"\x01\x0aLAYER_NAME\x1b[2J\n\xff".to_vec();
    answer.extend([b'x'; 1900]);
    let error = receive(&answer[..], &job).unwrap_err();
    assert_eq!(error.code(), "LAYER_NAME");
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control) && text.len() < WORDS_MAX + 100, "{text}");
}

#[test]
fn evil_objects_of_a_child() {
    let layers = [Tar::new().file("a", &[1; 5000]).file("b", &[2; 5000]).finish()];
    let job = job(&layers);
    let digits = hex::encode(Hasher::hash(&[1; 5000]).0);
    let evil: [fn(&Path); 6] = [
        |path| std::fs::remove_file(path).unwrap(),
        |path| std::fs::write(path, [3; 5000]).unwrap(),
        |path| {
            // One bit, the length kept.
            let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.seek(std::io::SeekFrom::End(-1)).unwrap();
            file.write_all(&[0]).unwrap();
        },
        |path| std::fs::write(path, [1; 5001]).unwrap(),
        |path| {
            std::fs::rename(path, path.with_extension("x")).unwrap();
            std::os::unix::fs::symlink(path.with_extension("x"), path).unwrap();
        },
        |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        },
    ];
    for (index, forge) in evil.into_iter().enumerate() {
        let root = tempfile::tempdir().unwrap();
        let mut answer = Vec::new();
        run(&job, vec![input(&layers[0])], directory(root.path()), &mut answer).unwrap();
        let tree = receive(&answer[..], &job).unwrap();
        verified(&tree, root.path()).unwrap();
        forge(&root.path().join(&digits[..2]).join(&digits[2..]));
        let code = verified(&tree, root.path()).unwrap_err().code();
        // Gone, a link, a directory: not opened. Another file: not what it is called.
        let expected = if (1..=3).contains(&index) { "COMPOSEFS_MISMATCH" } else { "COMPOSEFS_SYSTEM" };
        assert!(code == expected || (index == 5 && code == "COMPOSEFS_MISMATCH"), "{index}: {code}");
    }
    // A tree that states another length for the same object.
    let root = tempfile::tempdir().unwrap();
    let mut answer = Vec::new();
    run(&job, vec![input(&layers[0])], directory(root.path()), &mut answer).unwrap();
    let at = answer.windows(8).position(|bytes| bytes == 5000_u64.to_le_bytes()).unwrap();
    answer[at..at + 8].copy_from_slice(&4999_u64.to_le_bytes());
    let tree = receive(&answer[..], &job).unwrap();
    let error = verified(&tree, root.path()).unwrap_err();
    assert!(error.to_string().contains("expected 4999 bytes"), "{error}");
}

/// What a child does, in the working directory: for [`unpacking_needs_no_privilege`], which runs it.
#[test]
#[ignore = "needs a directory that another test prepares"]
fn unpacks_what_lies_here() {
    let job: Job = serde_json::from_slice(&std::fs::read("job").unwrap()).unwrap();
    let input = File::open("layer").unwrap();
    // Nobody may make devices here, or files of others: the layer has both.
    assert!(
        rustix::fs::mknodat(
            rustix::fs::CWD,
            "device",
            rustix::fs::FileType::CharacterDevice,
            0o600.into(),
            259
        )
        .is_err()
    );
    run(&job, vec![Ok(input)], directory(Path::new("objects")), &mut File::create("answer").unwrap())
        .unwrap();
}

#[test]
fn unpacking_needs_no_privilege() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let root = tempfile::tempdir().unwrap();
    let layers = [Tar::new()
        .dir("dev")
        .entry(::tar::EntryType::Char, "dev/null", "", b"")
        .file("root", &[1; 5000])
        .file("small", b"x")
        .finish()];
    let job = job(&layers);
    let path = |name: &str| root.path().join(name);
    std::fs::write(path("job"), serde_json::to_vec(&job).unwrap()).unwrap();
    std::fs::write(path("layer"), &layers[0]).unwrap();
    std::fs::create_dir(path("objects")).unwrap();
    let program = std::env::current_exe().unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let mut command = if is_root {
        // A user of its own, no capability, no network: and a copy of the program that it can read.
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::copy(&program, path("program")).unwrap();
        for name in ["", "objects"] {
            chown(path(name), Some(65_534), Some(65_534)).unwrap();
        }
        let mut command = std::process::Command::new("unshare");
        command.args([
            "--net",
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--no-new-privs",
        ]);
        command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(path("program"));
        command
    } else {
        std::process::Command::new(&program)
    };
    let output = command
        .args(["--ignored", "--exact", "image::layer::confine::tests::unpacks_what_lies_here"])
        .current_dir(root.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = receive(File::open(path("answer")).unwrap(), &job).unwrap();
    assert_eq!(paths(&tree), ["dev", "dev/null", "root", "small"]);
    let device = tree.child(Tree::ROOT, b"dev").and_then(|dev| tree.child(dev, b"null")).unwrap();
    assert_eq!(tree.get(device).unwrap().kind, crate::image::tree::Kind::CharDevice { major: 1, minor: 3 });
    assert_eq!(tree.get(device).unwrap().metadata.uid, 7);
    verified(&tree, &path("objects")).unwrap();
}
