//! Storages in a mount namespace of their own: each body runs in a process that `unshare` made.

use std::fs;
use std::future::Future;
use std::process::Command;
use std::time::Duration;

use rustix::mount::{MountFlags, mount};

use super::*;
use crate::log::Level;

const ISOLATED: &str = "INNERKEEP_TEST_ISOLATED";
const SHARED: &str = "/run/kata-containers/shared/containers";

/// Runs the body in a process with a mount namespace of its own.
pub(super) fn isolated<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    if std::env::var_os(ISOLATED).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(body());
        return;
    }
    // Of a module below this one, with its path.
    let path =
        if name.contains("::") { format!("storage::{name}") } else { format!("storage::tests::{name}") };
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture"]);
    let output = command.arg(path).env(ISOLATED, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(super) struct Room {
    pub(super) directory: tempfile::TempDir,
    pub(super) storages: Storages,
    pub(super) hotplug: Hotplug,
}

impl Room {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("run/shared/containers")).unwrap();
        let log = Log::console();
        log.set_level(Level::Critical);
        let reaper = Arc::new(Reaper::start(&log).unwrap());
        let storages = Storages::new(&at("run"), &at("sys"), &at("dev"), reaper, &log);
        let hotplug = Hotplug::looking(&at("sys"), &at("dev"), Duration::ZERO);
        Self { directory, storages, hotplug }
    }

    /// A place of the wire, here.
    fn at(&self, path: &str) -> PathBuf {
        let below = Path::new(path).strip_prefix(RUN).unwrap();
        self.directory.path().join("run").join(below)
    }

    pub(super) async fn add(&self, storage: Storage, container: &ContainerId) -> Result<(), StorageError> {
        self.storages.add(&[storage], Some(container), &self.hotplug).await.map(Added::keep)
    }

    async fn code(&self, storage: Storage, container: &ContainerId) -> &'static str {
        let before = self.table();
        let code = self.add(storage, container).await.unwrap_err().code();
        assert_eq!(self.table(), before, "as before");
        code
    }

    /// What is mounted below the room.
    pub(super) fn table(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let room = self.directory.path().to_str().unwrap().to_owned();
        table.lines().filter(|line| line.contains(&room)).map(str::to_owned).collect()
    }
}

pub(super) fn id(name: &str) -> ContainerId {
    ContainerId::parse(name).unwrap()
}

pub(super) fn storage(driver: &str, kind: &str, source: &str, place: &str, options: &[&str]) -> Storage {
    Storage {
        driver: driver.to_owned(),
        fstype: kind.to_owned(),
        source: source.to_owned(),
        mount_point: place.to_owned(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Storage::default()
    }
}

fn shm(place: &str, options: &[&str]) -> Storage {
    storage("ephemeral", "tmpfs", "shm", place, options)
}

const SHM: &str = "/run/kata-containers/sandbox/shm";

// COMPAT: CreateSandbox, CreateContainer better: options of `ephemeral` storages are in force
#[test]
fn ephemeral_storages_have_their_options_and_users() {
    isolated("ephemeral_storages_have_their_options_and_users", || async {
        let room = Room::new();
        let (one, two) = (id("one"), id("two"));
        let asked = shm(SHM, &["noexec", "nosuid", "mode=1770", "size=64k", "fsgid=321"]);
        room.add(asked.clone(), &one).await.unwrap();
        let line = room.table().pop().unwrap();
        assert!(line.contains("nosuid,nodev,noexec") && line.contains("size=64k"), "{line}");
        use std::os::unix::fs::MetadataExt as _;
        let found = fs::metadata(room.at(SHM)).unwrap();
        assert_eq!((found.mode() & 0o7777, found.gid()), (0o3770, 321));
        room.add(asked.clone(), &two).await.unwrap();
        assert_eq!(room.table().len(), 1);
        room.storages.release(&one).await.unwrap();
        assert_eq!(room.table().len(), 1);
        // Another size, in place.
        room.storages.update(&[shm(SHM, &["size=128k"])], &room.hotplug).await.unwrap();
        assert!(room.table()[0].contains("size=128k"), "{:?}", room.table());
        let other = storage("local", "local", "local", SHM, &[]);
        let error = room.storages.update(&[other], &room.hotplug).await.unwrap_err();
        assert_eq!(error.code(), "STORAGE_NOT_EPHEMERAL");
        room.storages.release(&two).await.unwrap();
        assert!(room.table().is_empty() && !room.at(SHM).exists());
    });
}

// COMPAT: CreateSandbox, CreateContainer better: a storage that fails takes the others back
#[test]
fn what_failed_leaves_nothing() {
    isolated("what_failed_leaves_nothing", || async {
        let room = Room::new();
        let good = shm(&format!("{SHARED}/a/b"), &[]);
        for bad in [
            shm(&format!("{SHARED}/c"), &["size=nonsense"]),
            shm(&format!("{SHARED}/c"), &["upperdir=/x"]),
            storage("blk", "ext4", "02/03", &format!("{SHARED}/c"), &[]),
            storage("nobody", "", "", &format!("{SHARED}/c"), &[]),
        ] {
            let wanted = [good.clone(), bad];
            let added = room.storages.add(&wanted, Some(&id("one")), &room.hotplug).await;
            assert!(added.is_err());
            assert!(room.table().is_empty() && !room.at(&format!("{SHARED}/a")).exists());
        }
        let added =
            room.storages.add(std::slice::from_ref(&good), Some(&id("one")), &room.hotplug).await.unwrap();
        assert_eq!(room.table().len(), 1);
        drop(added);
        assert!(room.table().is_empty());
        // Shared ones stay with the sandbox.
        room.add(Storage { shared: true, ..good }, &id("one")).await.unwrap();
        room.storages.release(&id("one")).await.unwrap();
        assert_eq!(room.table().len(), 1);
    });
}

#[test]
fn evil_host_mounts_over_a_storage() {
    isolated("evil_host_mounts_over_a_storage", || async {
        let room = Room::new();
        room.add(shm(&format!("{SHARED}/a/b"), &[]), &id("one")).await.unwrap();
        assert_eq!(room.code(shm(&format!("{SHARED}/a"), &[]), &id("one")).await, "STORAGE_PLACE");
        assert_eq!(room.code(shm(SHARED, &[]), &id("one")).await, "STORAGE_PLACE");
    });
}

#[test]
fn evil_host_another_storage_at_the_same_place() {
    isolated("evil_host_another_storage_at_the_same_place", || async {
        let room = Room::new();
        room.add(shm(SHM, &[]), &id("one")).await.unwrap();
        let other = storage("virtio-fs", "virtiofs", "tag", SHM, &[]);
        assert_eq!(room.code(other, &id("two")).await, "STORAGE_CONFLICT");
    });
}

#[test]
fn evil_host_mounts_through_a_link() {
    isolated("evil_host_mounts_through_a_link", || async {
        let room = Room::new();
        let outside = room.directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, room.at(&format!("{SHARED}/link"))).unwrap();
        for place in ["link", "link/below"] {
            assert_eq!(room.code(shm(&format!("{SHARED}/{place}"), &[]), &id("one")).await, "STORAGE_IO");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    });
}

#[test]
fn a_mount_of_somebody_else_stays() {
    isolated("a_mount_of_somebody_else_stays", || async {
        let room = Room::new();
        room.add(shm(SHM, &[]), &id("one")).await.unwrap();
        mount("other", room.at(SHM), "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>).unwrap();
        assert_eq!(room.storages.release(&id("one")).await.unwrap_err().code(), "STORAGE_IO");
        assert_eq!(room.table().len(), 2);
    });
}

#[test]
fn evil_host_mounts_into_a_verified_root() {
    isolated("evil_host_mounts_into_a_verified_root", || async {
        let room = Room::new();
        let root = "/run/kata-containers/one/rootfs";
        let own = id("one");
        room.add(shm(root, &[]), &own).await.unwrap();
        let verified = VerifiedRoot::Verity { root_hash: [1; 32], salt: Vec::new(), data_blocks: 1 };
        room.storages.inner.table().set_root(root, verified.clone());
        assert_eq!(room.storages.verified_root(Path::new(root), &own), Some(verified));
        assert_eq!(room.code(shm(&format!("{root}/etc"), &[]), &own).await, "STORAGE_PLACE");
        assert_eq!(room.storages.verified_root(Path::new("/run/kata-containers/one"), &own), None);
    });
}

#[test]
fn evil_host_shares_a_verified_root() {
    isolated("evil_host_shares_a_verified_root", || async {
        let room = Room::new();
        let root = format!("{SHARED}/root");
        let verified = VerifiedRoot::Verity { root_hash: [1; 32], salt: Vec::new(), data_blocks: 1 };
        room.add(shm(&root, &[]), &id("one")).await.unwrap();
        room.storages.inner.table().set_root(&root, verified);
        assert_eq!(room.storages.verified_root(Path::new(&root), &id("two")), None);
        room.add(shm(&root, &[]), &id("two")).await.unwrap();
        for user in ["one", "two"] {
            assert_eq!(room.storages.verified_root(Path::new(&root), &id(user)), None);
        }
    });
}

#[test]
fn evil_mount_over_a_verified_root() {
    isolated("evil_mount_over_a_verified_root", || async {
        let room = Room::new();
        let root = "/run/kata-containers/one/rootfs";
        let verified = VerifiedRoot::Verity { root_hash: [1; 32], salt: Vec::new(), data_blocks: 1 };
        room.add(shm(root, &[]), &id("one")).await.unwrap();
        room.storages.inner.table().set_root(root, verified);
        mount("evil", room.at(root), "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>).unwrap();
        assert_eq!(room.storages.verified_root(Path::new(root), &id("one")), None);
    });
}

#[test]
fn evil_host_prepares_the_upper_layer() {
    isolated("evil_host_prepares_the_upper_layer", || async {
        let room = Room::new();
        let lower = format!("{SHARED}/lower");
        fs::create_dir_all(room.at(&lower)).unwrap();
        fs::create_dir_all(room.at("/run/kata-containers/one/upper")).unwrap();
        fs::write(room.at("/run/kata-containers/one/upper/evil"), "x").unwrap();
        let lower = format!("lowerdir={lower}");
        let options = [lower.as_str(), "io.katacontainers.fs-opt.overlay-rw"];
        let asked = storage("overlayfs", "overlay", "none", "/run/kata-containers/one/rootfs", &options);
        assert_eq!(room.code(asked, &id("one")).await, "STORAGE_IO");
        assert!(room.at("/run/kata-containers/one/upper/evil").exists());
    });
}

#[tokio::test]
async fn evil_host_verity_without_a_disk() {
    let room = Room::new();
    let hash = format!("X-kata.dmverity.roothash={}", "ab".repeat(32));
    let options = ["X-kata.dmverity-enabled=true", hash.as_str(), "X-kata.dmverity.hashoffset=4096"];
    assert_eq!(room.code(shm(SHM, &options), &id("one")).await, "STORAGE_VERITY");
    let made = Storage {
        driver_options: vec!["create_filesystem".to_owned()],
        ..storage("blk", "ext4", "02", &format!("{SHARED}/x"), &options)
    };
    assert_eq!(room.code(made, &id("one")).await, "STORAGE_VERITY");
}

#[tokio::test]
async fn evil_host_mounts_another_type() {
    let room = Room::new();
    for (driver, kind) in [
        ("ephemeral", "proc"),
        ("virtio-fs", "sysfs"),
        ("overlayfs", "tmpfs"),
        ("bind", "configfs"),
        ("local", "tmpfs"),
        ("watchable-bind", "securityfs"),
    ] {
        let options: &[&str] =
            if driver == "overlayfs" { &["lowerdir=/run/kata-containers/sandbox/x"] } else { &[] };
        let asked = storage(driver, kind, "x", &format!("{SHARED}/x"), options);
        assert_eq!(room.code(asked, &id("one")).await, "STORAGE_FILE_SYSTEM", "{driver}");
    }
}

#[tokio::test]
async fn what_nobody_serves_is_refused() {
    let room = Room::new();
    let place = format!("{SHARED}/x");
    let asked = storage("image_guest_pull", "", "x", &place, &[]);
    assert_eq!(room.code(asked, &id("one")).await, "CDH_ABSENT");
    assert_eq!(DRIVERS.len(), 12);
}

/// A storage whose driver has these options.
fn driven(driver: &str, source: &str, options: &[&str]) -> Storage {
    Storage {
        driver_options: options.iter().map(|&option| option.to_owned()).collect(),
        ..storage(driver, "ext4", source, &format!("{SHARED}/x"), &[])
    }
}

#[tokio::test]
async fn evil_host_encryption_of_what_is_there() {
    let room = Room::new();
    for (driver, options) in [
        ("blk", &["encryption_key=ephemeral"][..]),
        ("blk", &["create_filesystem", "encryption_key=mine"]),
        ("blk", &["create_filesystem", "encryption_key"]),
        ("blk", &["create_filesystem=false", "encryption_key=ephemeral"]),
        ("local", &["encryption_key=ephemeral"]),
        ("ephemeral", &["create_filesystem", "encryption_key=ephemeral"]),
    ] {
        let asked = driven(driver, "02", options);
        assert_eq!(room.code(asked, &id("one")).await, "STORAGE_OPTION", "{driver} {options:?}");
    }
}

/// Upstream's agent mounts nothing and says nothing.
#[tokio::test]
async fn encryption_without_device_mapper_fails() {
    let room = Room::new();
    let at = |name: &str| room.directory.path().join(name);
    fs::create_dir_all(at("sys/class/block/vda")).unwrap();
    fs::create_dir_all(at("dev")).unwrap();
    fs::write(at("sys/class/block/vda/dev"), "254:0\n").unwrap();
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    mknodat(CWD, at("dev/vda"), FileType::BlockDevice, Mode::RUSR, makedev(254, 0)).unwrap();
    let options = ["create_filesystem", "encryption_key=ephemeral"];
    assert_eq!(room.code(driven("blk", "/dev/vda", &options), &id("one")).await, "DM_ABSENT");
    let other = Storage { fstype: "xfs".to_owned(), ..driven("blk", "/dev/vda", &options) };
    assert_eq!(room.code(other, &id("one")).await, "STORAGE_FILE_SYSTEM");
}

#[tokio::test]
async fn evil_host_mounts_what_lies_below_a_verified_device() {
    let room = Room::new();
    let at = |name: &str| room.directory.path().join(name);
    fs::create_dir_all(at("sys/class/block/vda/holders/dm-0")).unwrap();
    fs::create_dir_all(at("dev")).unwrap();
    fs::write(at("sys/class/block/vda/dev"), "254:0\n").unwrap();
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    mknodat(CWD, at("dev/vda"), FileType::BlockDevice, Mode::RUSR, makedev(254, 0)).unwrap();
    let asked = storage("blk", "ext4", "/dev/vda", &format!("{SHARED}/x"), &[]);
    assert_eq!(room.code(asked, &id("one")).await, "STORAGE_DEVICE_TAKEN");
}

/// A container of the sandbox has the pause program of the image, and whoever comes after it finds the place taken.
#[test]
fn evil_host_image_where_a_storage_is() {
    isolated("evil_host_image_where_a_storage_is", || async {
        let room = Room::new();
        let bundle = room.directory.path().join("pause");
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        fs::write(bundle.join("config.json"), r#"{"process": {"args": ["/pause"], "cwd": "/"}}"#).unwrap();
        fs::write(bundle.join("rootfs/pause"), b"program").unwrap();
        let pause = Arc::new(pause::Pause::read_at(&bundle, false).unwrap());
        let root = "/run/kata-containers/one/rootfs";
        let asked = storage("image_guest_pull", "overlay", "pause", root, &["nosuid"]);
        let add = async |storage: &Storage, user: &ContainerId| {
            let images = Images::of_test(image::Image::Pause(Arc::clone(&pause)));
            let storages = std::slice::from_ref(storage);
            let beside = Beside { images: Some(&images), ..Beside::default() };
            room.storages.add_with(storages, Some(user), &room.hotplug, &beside).await.map(Added::keep)
        };
        add(&asked, &id("one")).await.unwrap();
        assert_eq!(fs::read(room.at(root).join("pause")).unwrap(), b"program");
        assert!(room.table()[0].contains("nosuid,nodev"), "{:?}", room.table());
        assert_eq!(
            room.storages.verified_root(Path::new(root), &id("one")),
            None,
            "it is for nobody's secrets"
        );
        let before = room.table();
        assert_eq!(add(&asked, &id("one")).await.unwrap_err().code(), "STORAGE_PLACE");
        let shared = format!("{SHARED}/root");
        let asked = Storage { mount_point: shared.clone(), ..asked };
        add(&asked, &id("one")).await.unwrap();
        assert_eq!(add(&asked, &id("two")).await.unwrap_err().code(), "STORAGE_PLACE");
        assert_eq!(room.table().len(), before.len() + 1);
        room.storages.release(&id("one")).await.unwrap();
        assert!(room.table().is_empty() && !room.at(root).exists());
    });
}
