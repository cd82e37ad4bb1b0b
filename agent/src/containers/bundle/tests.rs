use super::*;
use crate::namespaces::tests::in_namespaces;
use std::os::unix::fs::symlink;

fn id(text: &str) -> ContainerId {
    ContainerId::parse(text).unwrap()
}

fn run() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    // As the kernel names it: mountinfo has no links.
    let run = fs::canonicalize(directory.path()).unwrap().join("run");
    fs::create_dir_all(run.join(SHARED).join("c1/rootfs")).unwrap();
    fs::write(run.join(SHARED).join("c1/rootfs/file"), "contents").unwrap();
    (directory, run)
}

#[test]
fn evil_host_directory_that_is_there_already() {
    let (_kept, run) = run();
    fs::create_dir(run.join("c1")).unwrap();
    assert_eq!(Bundle::make(&run, &id("c1")).unwrap_err().code(), "CONTAINER_DIRECTORY_TAKEN");
    symlink("/etc", run.join("c2")).unwrap();
    assert_eq!(Bundle::make(&run, &id("c2")).unwrap_err().code(), "CONTAINER_DIRECTORY_TAKEN");
    let bundle = Bundle::make(&run, &id("c3")).unwrap();
    bundle.remove().unwrap();
    bundle.remove().unwrap();
    assert!(!run.join("c3").exists() && run.join("c1").exists() && run.join("c2").exists());
}

// COMPAT: CreateContainer stricter: the root lies in the shared directory or in a storage of this container
#[test]
fn evil_host_root_of_the_guest() {
    let (_kept, run) = run();
    fs::create_dir_all(run.join("other/rootfs")).unwrap();
    let bundle = Bundle::make(&run, &id("c1")).unwrap();
    let shared = run.join(SHARED);
    // Stands for the guest's own files: whatever is mounted in a temporary directory is removed with it.
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("etc")).unwrap();
    symlink(outside.path(), shared.join("c1/link")).unwrap();
    symlink("rootfs", shared.join("c1/link-inside")).unwrap();
    let own = |path: &Path| path.to_str().unwrap().to_owned();
    for place in ["/", "/etc", "/proc", "/usr/../etc"] {
        assert!(!bundle.may_be_root(Path::new(place), &[]), "{place:?}");
    }
    for place in [
        own(outside.path()),
        own(&outside.path().join("etc")),
        String::new(),
        "rootfs".to_owned(),
        own(&run),
        own(&shared),
        format!("{}/../c1", own(&shared)),
        own(&run.join("other/rootfs")),
        own(&shared.join("c1/link")),
        own(&shared.join("c1/link/etc")),
        own(&shared.join("c1/link-inside")),
        own(&shared.join("c1/rootfs/file")),
        own(&shared.join("missing")),
    ] {
        let outcome = bundle.put_root(&place, &[]);
        // Before anything else: this directory is removed at the end, and with it whatever is mounted in it.
        bundle.release_root().unwrap();
        assert_eq!(outcome.unwrap_err().code(), "CONTAINER_ROOT", "{place:?}");
        assert!(!bundle.root().exists(), "{place:?}");
    }
    // A storage of this container is its own.
    assert!(bundle.may_be_root(&run.join("other/rootfs"), &[run.join("other")]));
    assert!(bundle.may_be_root(&run.join("other"), &[run.join("other")]));
    assert!(!bundle.may_be_root(&run.join("other2"), &[run.join("other")]));
}

#[test]
fn what_a_storage_put_there_is_the_root() {
    let (_kept, run) = run();
    let bundle = Bundle::make(&run, &id("c1")).unwrap();
    fs::create_dir(bundle.root()).unwrap();
    let own = bundle.root().to_str().unwrap().to_owned();
    bundle.put_root(&own, &[]).unwrap();
    bundle.release_root().unwrap();
    assert!(bundle.root().is_dir(), "it was not ours to take off");
    fs::remove_dir(bundle.root()).unwrap();
    symlink("/etc", bundle.root()).unwrap();
    assert_eq!(bundle.put_root(&own, &[]).unwrap_err().code(), "CONTAINER_ROOT");
}

// COMPAT: CreateContainer stricter: a root that a storage put in place has to be the one that is named
/// A storage lies where the container's root will be, and the specification names another root, which was verified, say.
#[test]
fn evil_host_root_beside_the_one_that_is_named() {
    let (_kept, run) = run();
    let bundle = Bundle::make(&run, &id("c1")).unwrap();
    fs::create_dir(bundle.root()).unwrap();
    fs::write(bundle.root().join("evil"), "").unwrap();
    let verified = run.join(SHARED).join("c1/rootfs");
    let (verified, storage) = (verified.to_str().unwrap(), bundle.root());
    for asked in [verified, "/wherever", "", "rootfs", "/"] {
        let error = bundle.put_root(asked, std::slice::from_ref(&storage)).unwrap_err();
        assert_eq!(error.code(), "CONTAINER_ROOT", "{asked:?}");
    }
    assert!(bundle.root().join("evil").exists() && !bundle.root().join("file").exists());
}

#[test]
fn names_in_the_table_of_mounts() {
    assert_eq!(unescaped("/a\\040b\\134c"), "/a b\\c");
    assert_eq!(unescaped("/a\\04"), "/a\\04");
    let all = mounts_below(Path::new("/")).unwrap();
    assert!(all.contains(&PathBuf::from("/proc")), "{all:?}");
}

#[test]
fn a_root_is_bound_without_what_is_mounted_in_it_and_taken_off() {
    in_namespaces(&["--mount"], || {
        let (_kept, run) = run();
        let source = run.join(SHARED).join("c1/rootfs");
        fs::create_dir(source.join("inner")).unwrap();
        mount_tmpfs(&source.join("inner"));
        fs::write(source.join("inner/secret"), "").unwrap();
        let before = mounts_below(&run).unwrap();
        let bundle = Bundle::make(&run, &id("c1")).unwrap();
        bundle.put_root(source.to_str().unwrap(), &[]).unwrap();
        assert_eq!(fs::read_to_string(bundle.root().join("file")).unwrap(), "contents");
        assert!(!bundle.root().join("inner/secret").exists());
        bundle.release_root().unwrap();
        bundle.release_root().unwrap();
        assert_eq!(mounts_below(&run).unwrap(), before);
        bundle.remove().unwrap();
        assert!(source.join("file").exists() && source.join("inner/secret").exists());
    });
}

/// What is mounted below the directory is not the container's: it is taken off, never emptied.
#[test]
fn evil_host_files_below_a_mount_are_kept() {
    in_namespaces(&["--mount"], || {
        let (_kept, run) = run();
        let source = run.join(SHARED).join("c1/rootfs");
        let bundle = Bundle::make(&run, &id("c1")).unwrap();
        bundle.put_root(source.to_str().unwrap(), &[]).unwrap();
        let upper = bundle.path().join("upper");
        fs::create_dir(&upper).unwrap();
        for _ in 0..2 {
            mount_tmpfs(&upper);
        }
        bundle.remove().unwrap();
        assert!(!bundle.path().exists() && source.join("file").exists());
        assert_eq!(mounts_below(bundle.path()).unwrap(), Vec::<PathBuf>::new());
    });
}

fn mount_tmpfs(place: &Path) {
    let status = std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(place).status();
    assert!(status.unwrap().success());
}
