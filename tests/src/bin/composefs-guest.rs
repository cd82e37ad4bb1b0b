//! Mounts of verified trees in a guest: `composefs-guest DEVICE` runs every check and prints `ok NAME` or `failed NAME: why` for each.
//!
//! It needs a block device with an ext4 that has fs-verity, which it mounts on `/disk`, and all privileges. It writes to the device as a host
//! would. `composefs-guest --memory` runs what needs no such device.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test program")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use cdh::composefs::mount::{Mounted, PrivateMemory, Verified, detach};
use cdh::composefs::pin::Pin;
use cdh::composefs::{ComposefsError, erofs, verity};
use cdh::image::tree::{Content, Inode, InodeId, Kind, Metadata, ObjectId, Timestamp, Tree};
use protected_memory::file_verity;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

const DISK: &str = "/disk";
const AT: &str = "/tree";
/// What the probe finds first: the shortest way to the first name.
const FIRST: &str = "a-first";
const LARGE: &str = "data/large";
const OTHER: &str = "data/other";

fn main() {
    let device = std::env::args().nth(1).expect("a device");
    fs::create_dir_all(AT).expect("a directory");
    let mut failed = 0;
    let mut told = |name: &str, outcome: Result<()>| match outcome.and_then(|()| nothing_left()) {
        Ok(()) => println!("ok {name}"),
        Err(error) => {
            failed += 1;
            println!("failed {name}: {error:#}");
            let _nothing_attached = detach(Path::new(AT));
        }
    };
    macro_rules! check {
        ($($name:ident($($argument:expr),*)),* $(,)?) => {
            $(told(stringify!($name), $name($($argument),*));)*
        };
    }
    check!(
        a_tree_in_memory_reads_as_it_was_made(),
        a_tree_that_is_written_to_leaves_the_verified_one(),
        evil_object_in_memory_is_another(),
        evil_writer_of_private_memory(),
        evil_image_marks_its_files_for_overlays(),
        a_store_without_fs_verity_is_refused(),
    );
    if device != "--memory" {
        let disk = Disk { device };
        check!(
            a_tree_on_a_disk_reads_as_it_was_made(&disk),
            a_store_is_used_again(&disk),
            evil_host_flips_a_bit_of_an_object(&disk),
            evil_host_flips_a_bit_of_the_probed_object(&disk),
            evil_host_flips_a_bit_of_the_image(&disk),
            evil_host_swaps_an_object(&disk),
            evil_host_takes_verity_from_an_object(&disk),
            evil_host_withholds_an_object(&disk),
            evil_image_of_the_host(&disk),
            evil_object_that_is_not_what_it_is_called(&disk),
        );
    }
    std::process::exit(failed);
}

/// After each check: nothing is mounted that was not, and no loop device shows a file.
fn nothing_left() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains("composefs") && !mounts.contains(" erofs "), "left: {mounts}");
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        ensure!(!entry.path().join("loop").exists(), "{} is in use", entry.path().display());
    }
    Ok(())
}

/// Bytes that are like no others.
fn contents(name: &str, size: usize) -> Vec<u8> {
    let mut state =
        name.bytes().fold(0x9e37_79b9_u64, |state, byte| state.wrapping_mul(31) ^ u64::from(byte));
    let next = |_| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 33).to_le_bytes()[0]
    };
    (0..size).map(next).collect()
}

/// A tree with one of everything, and the objects that it has.
struct Sample {
    tree: Tree,
    objects: BTreeMap<ObjectId, Vec<u8>>,
}

impl Sample {
    fn new() -> Self {
        let root = Metadata { mode: 0o755, mtime: moment(1000), ..Metadata::default() };
        let mut sample = Self { tree: Tree::new(root, 1000), objects: BTreeMap::new() };
        let data = sample.put(Tree::ROOT, "data", Kind::Directory(BTreeMap::new()));
        let first = sample.file(FIRST, 10_000);
        let first = sample.put(Tree::ROOT, FIRST, first);
        let large = sample.file(LARGE, 300_000);
        sample.put(data, "large", large);
        let other = sample.file(OTHER, 4096);
        sample.put(data, "other", other);
        sample.put(data, "short", Kind::Regular(Content::Inline((*b"short\n").into())));
        sample.put(data, "empty", Kind::Regular(Content::Inline(Box::default())));
        sample.put(data, "link", Kind::Symlink((*b"../a-first").into()));
        sample.put(data, "long-link", Kind::Symlink(vec![b'x'; 4090].into()));
        sample.put(data, "null", Kind::CharDevice { major: 1, minor: 3 });
        sample.put(data, "disk", Kind::BlockDevice { major: 0xabc, minor: 0x12345 });
        sample.put(data, "pipe", Kind::Fifo);
        sample.put(data, "socket", Kind::Socket);
        sample.tree.link(data, b"again", first).expect("a second name");
        let many = sample.put(Tree::ROOT, "many", Kind::Directory(BTreeMap::new()));
        for number in 0..600 {
            let content = Content::Inline(format!("{number}").into_bytes().into());
            sample.put(many, &format!("{number:064}"), Kind::Regular(content));
        }
        sample
    }

    fn file(&mut self, name: &str, size: usize) -> Kind {
        let bytes = contents(name, size);
        let id = verity::Hasher::hash(&bytes);
        self.objects.insert(id, bytes);
        Kind::Regular(Content::Object { id, size: size as u64 })
    }

    fn put(&mut self, parent: InodeId, name: &str, kind: Kind) -> InodeId {
        let count = u32::try_from(self.tree.len()).expect("few");
        let metadata = Metadata {
            mode: if count % 2 == 0 { 0o755 } else { 0o4750 },
            uid: if count % 5 == 0 { 100_000 } else { 7 },
            gid: count % 3,
            mtime: moment(1000 + i64::from(count % 4)),
            xattrs: BTreeMap::from([
                (b"security.capability".to_vec(), CAPABILITY.to_vec()),
                (b"trusted.own".to_vec(), name.as_bytes().to_vec()),
            ]),
        };
        self.tree.insert(parent, name.as_bytes(), Inode { metadata, kind }).expect("an inode")
    }

    fn id(&self, name: &str) -> ObjectId {
        *self.objects.iter().find(|(_, bytes)| **bytes == contents(name, bytes.len())).expect("an object").0
    }

    /// As an unpacker writes them.
    fn write_to(&self, directory: &Path) -> Result<()> {
        for (id, bytes) in &self.objects {
            let path = directory.join(path_of(*id));
            fs::create_dir_all(path.parent().context("a directory")?)?;
            fs::write(path, bytes)?;
        }
        Ok(())
    }

    fn in_memory(&self, change: impl FnOnce(&Path) -> Result<()>) -> Result<Verified> {
        let memory = PrivateMemory::create(64 << 20, 10_000)?;
        let directory = memory.directory()?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&directory)));
        self.write_to(&path)?;
        change(&path)?;
        Ok(Verified::in_memory(&self.tree, memory, Some(&self.pin()?))?)
    }

    fn pin(&self) -> Result<Pin> {
        let image = erofs::write(&self.tree, &erofs::Options::default())?;
        Ok(Pin::Sha256(verity::Hasher::hash(&image)))
    }

    /// Everything below this path is what the tree says.
    fn compare(&self, below: &Path) -> Result<()> {
        let mut directories = vec![(Tree::ROOT, below.to_owned())];
        while let Some((id, path)) = directories.pop() {
            let entries = self.tree.entries(id).expect("a directory");
            let mut found: Vec<Vec<u8>> = fs::read_dir(&path)?
                .map(|entry| Ok(std::os::unix::ffi::OsStringExt::into_vec(entry?.file_name())))
                .collect::<Result<_>>()?;
            found.sort();
            let expected: Vec<Vec<u8>> = entries.keys().map(|name| name.to_vec()).collect();
            ensure!(found == expected, "{}: {} entries", path.display(), found.len());
            for (name, id) in entries {
                let path = path.join(String::from_utf8_lossy(name).as_ref());
                self.compare_one(*id, &path).with_context(|| path.display().to_string())?;
                if self.tree.entries(*id).is_some() {
                    directories.push((*id, path));
                }
            }
        }
        Ok(())
    }

    fn compare_one(&self, id: InodeId, path: &Path) -> Result<()> {
        let inode = self.tree.get(id).expect("an inode");
        let (found, expected) = (fs::symlink_metadata(path)?, &inode.metadata);
        ensure!(found.mode() & 0o7777 == u32::from(expected.mode), "mode {:o}", found.mode());
        ensure!((found.uid(), found.gid()) == (expected.uid, expected.gid), "owner {}", found.uid());
        ensure!(
            (found.mtime(), found.mtime_nsec())
                == (expected.mtime.seconds, i64::from(expected.mtime.nanoseconds)),
            "time {}",
            found.mtime()
        );
        for (name, value) in &expected.xattrs {
            let mut space = [0; 256];
            let length = rustix::fs::lgetxattr(path, name.as_slice(), &mut space)?;
            ensure!(&space[..length] == value.as_slice(), "attribute {}", String::from_utf8_lossy(name));
        }
        let kind = found.file_type();
        let device = |major: u32, minor: u32| found.rdev() == rustix::fs::makedev(major, minor);
        let fits = match &inode.kind {
            Kind::Directory(_) => kind.is_dir(),
            Kind::Regular(content) => {
                let expected = match content {
                    Content::Inline(bytes) => bytes,
                    Content::Object { id, .. } => self.objects[id].as_slice(),
                };
                u64::from(self.tree.names(id)) == found.nlink() && fs::read(path)? == expected
            }
            Kind::Symlink(target) => {
                let found = fs::read_link(path)?;
                std::os::unix::ffi::OsStrExt::as_bytes(found.as_os_str()) == &**target
            }
            Kind::CharDevice { major, minor } => kind.is_char_device() && device(*major, *minor),
            Kind::BlockDevice { major, minor } => kind.is_block_device() && device(*major, *minor),
            Kind::Fifo => kind.is_fifo(),
            Kind::Socket => kind.is_socket(),
        };
        ensure!(fits, "not what the tree says");
        Ok(())
    }
}

const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const fn moment(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanoseconds: 5 }
}

fn path_of(id: ObjectId) -> String {
    let digits = hex::encode(id.0);
    format!("{}/{}", &digits[..2], &digits[2..])
}

/// An outcome that has to be this refusal.
fn refused<T>(outcome: Result<T>, code: &str) -> Result<String> {
    match outcome {
        Ok(_) => bail!("expected {code}, found success"),
        Err(error) => match error.downcast_ref::<ComposefsError>() {
            Some(found) if found.code() == code => Ok(error.to_string()),
            _ => bail!("expected {code}, found {error:#}"),
        },
    }
}

/// The mount at its path for as long as this takes.
fn at<T>(mounted: &Mounted, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    mounted.attach(Path::new(AT))?;
    let outcome = work(Path::new(AT));
    detach(Path::new(AT))?;
    outcome
}

fn mounted(verified: &Verified) -> Result<Mounted> {
    let mounted = verified.mount()?;
    ensure!(mounted.objects_read(), "no object was read");
    Ok(mounted)
}

fn a_tree_in_memory_reads_as_it_was_made() -> Result<()> {
    let sample = Sample::new();
    let verified = sample.in_memory(|_| Ok(()))?;
    let mounted = mounted(&verified)?;
    at(&mounted, |tree| {
        sample.compare(tree)?;
        let written = fs::write(tree.join("new"), "x").map_err(|error| error.kind());
        ensure!(written == Err(ErrorKind::ReadOnlyFilesystem), "{written:?}");
        Ok(())
    })
}

fn a_tree_that_is_written_to_leaves_the_verified_one() -> Result<()> {
    let sample = Sample::new();
    let verified = sample.in_memory(|_| Ok(()))?;
    let mounted = mounted(&verified)?;
    let writable = mounted.writable(16 << 20, 1000)?;
    writable.attach(Path::new(AT))?;
    let outcome = (|| {
        let tree = Path::new(AT);
        sample.compare(tree)?;
        ensure!(fs::symlink_metadata(tree)?.mode() & 0o7777 == 0o755, "the root's mode");
        fs::write(tree.join("new"), "new")?;
        fs::remove_file(tree.join("data/short"))?;
        let mut file = File::options().append(true).open(tree.join(FIRST))?;
        file.write_all(b"more")?;
        ensure!(fs::read(tree.join(FIRST))?.len() == 10_004, "copied and longer");
        Ok(())
    })();
    detach(Path::new(AT))?;
    outcome?;
    drop(writable);
    at(&mounted, |tree| sample.compare(tree))
}

fn evil_object_in_memory_is_another() -> Result<()> {
    let sample = Sample::new();
    for name in [FIRST, LARGE, OTHER] {
        let outcome = sample.in_memory(|directory| {
            let file =
                File::options().read(true).write(true).open(directory.join(path_of(sample.id(name))))?;
            let mut byte = [0];
            file.read_exact_at(&mut byte, 4000)?;
            Ok(file.write_all_at(&[byte[0] ^ 1], 4000)?)
        });
        refused(outcome, "COMPOSEFS_MISMATCH")?;
    }
    let outcome =
        sample.in_memory(|directory| Ok(fs::remove_file(directory.join(path_of(sample.id(OTHER))))?));
    refused(outcome, "COMPOSEFS_SYSTEM")?;
    Ok(())
}

fn evil_writer_of_private_memory() -> Result<()> {
    let sample = Sample::new();
    let mut kept = None;
    let outcome = sample.in_memory(|directory| {
        let path = directory.join(path_of(sample.id(LARGE)));
        kept = Some(File::options().write(true).open(path)?);
        Ok(())
    });
    refused(outcome, "COMPOSEFS_STORE")?;
    drop(kept);
    Ok(())
}

/// Attributes by which an image would send the upper overlay elsewhere.
fn evil_image_marks_its_files_for_overlays() -> Result<()> {
    let mut sample = Sample::new();
    let stolen = sample.id(LARGE);
    let head = [0, 36, 0, 1];
    let metadata = Metadata {
        mode: 0o644,
        xattrs: BTreeMap::from([
            (b"trusted.overlay.metacopy".to_vec(), [&head[..], &stolen.0].concat()),
            (b"trusted.overlay.redirect".to_vec(), b"/data/large".to_vec()),
        ]),
        ..Metadata::default()
    };
    let kind = Kind::Regular(Content::Inline((*b"plain").into()));
    sample.tree.insert(Tree::ROOT, b"marked", Inode { metadata, kind }).expect("an inode");
    let verified = sample.in_memory(|_| Ok(()))?;
    let mounted = mounted(&verified)?;
    at(&mounted, |tree| {
        ensure!(fs::read(tree.join("marked"))? == b"plain", "the verified tree");
        Ok(())
    })?;
    let writable = mounted.writable(1 << 20, 100)?;
    writable.attach(Path::new(AT))?;
    let found = fs::read(Path::new(AT).join("marked"));
    detach(Path::new(AT))?;
    ensure!(found.as_ref().map_or(true, |bytes| bytes == b"plain"), "{:?}", found.map(|bytes| bytes.len()));
    Ok(())
}

fn a_store_without_fs_verity_is_refused() -> Result<()> {
    let sample = Sample::new();
    let memory = PrivateMemory::create(64 << 20, 1000)?;
    let directory = memory.directory()?;
    sample.write_to(Path::new(&format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&directory))))?;
    let image = memory.directory()?;
    refused(Verified::publish(&sample.tree, directory, None).map_err(Into::into), "COMPOSEFS_STORE")?;
    let objects = memory.directory()?;
    let file: OwnedFd = rustix::fs::openat(
        &image,
        path_of(sample.id(FIRST)),
        rustix::fs::OFlags::RDONLY,
        rustix::fs::Mode::empty(),
    )?;
    refused(Verified::open(&file, objects, &sample.pin()?).map_err(Into::into), "COMPOSEFS_STORE")?;
    Ok(())
}

/// The host's disk.
struct Disk {
    device: String,
}

/// Mounted.
struct Store;

impl Disk {
    fn mount(&self) -> Result<Store> {
        fs::create_dir_all(DISK)?;
        mount(self.device.as_str(), DISK, "ext4", MountFlags::empty(), None).context("mount the disk")?;
        Ok(Store)
    }

    /// A fresh store with a published tree, and the pin of its image.
    fn published(&self, sample: &Sample) -> Result<Pin> {
        let _store = self.mount()?;
        let _none_yet = fs::remove_dir_all(Store::objects());
        fs::create_dir(Store::objects())?;
        sample.write_to(&Store::objects())?;
        let pin = sample.pin()?;
        let verified = Verified::publish(&sample.tree, Store::directory()?, Some(&pin))?;
        ensure!(Pin::Sha256(verified.digest()) == pin, "the digest is the pin's");
        Ok(pin)
    }

    /// Flips one bit where the disk holds these bytes, while the guest has nothing of it in memory.
    fn flip(&self, bytes: &[u8]) -> Result<()> {
        rustix::fs::sync();
        let disk = File::options().read(true).write(true).open(&self.device)?;
        let mut all = Vec::new();
        (&disk).read_to_end(&mut all)?;
        let place = all
            .chunks(4096)
            .position(|block| block.starts_with(&bytes[..bytes.len().min(4096)]))
            .context("the disk does not hold these bytes")?;
        let at = place as u64 * 4096 + 100;
        let mut byte = [0];
        disk.read_exact_at(&mut byte, at)?;
        disk.write_all_at(&[byte[0] ^ 0x10], at)?;
        disk.sync_all()?;
        fs::write("/proc/sys/vm/drop_caches", "3")?;
        Ok(())
    }
}

impl Store {
    fn objects() -> PathBuf {
        Path::new(DISK).join("objects")
    }

    fn directory() -> Result<OwnedFd> {
        Ok(File::open(Self::objects())?.into())
    }

    fn object(id: ObjectId) -> PathBuf {
        Self::objects().join(path_of(id))
    }

    fn open(pin: &Pin) -> Result<Verified> {
        let Pin::Sha256(id) = *pin else { bail!("a pin by SHA-256") };
        let image: OwnedFd = File::open(Self::object(id))?.into();
        Ok(Verified::open(&image, Self::directory()?, pin)?)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        unmount(DISK, UnmountFlags::empty()).expect("nothing uses the disk");
    }
}

fn eio(path: &Path) -> Result<()> {
    match fs::read(path).map_err(|error| error.raw_os_error()) {
        Err(Some(code)) if code == Errno::IO.raw_os_error() => Ok(()),
        other => bail!("{}: {:?}", path.display(), other.map(|bytes| bytes.len())),
    }
}

fn is(sample: &Sample, tree: &Path, name: &str) -> Result<()> {
    let expected = &sample.objects[&sample.id(name)];
    ensure!(fs::read(tree.join(name)).context(name.to_owned())? == *expected, "{name} reads otherwise");
    Ok(())
}

fn a_tree_on_a_disk_reads_as_it_was_made(disk: &Disk) -> Result<()> {
    let sample = Sample::new();
    disk.published(&sample)?;
    let _store = disk.mount()?;
    // Once more over what is there.
    let verified = Verified::publish(&sample.tree, Store::directory()?, Some(&sample.pin()?))?;
    let mounted = mounted(&verified)?;
    at(&mounted, |tree| sample.compare(tree))?;
    let kept = File::options().write(true).open(Store::object(sample.id(LARGE)));
    ensure!(kept.is_err(), "an object can be written to");
    Ok(())
}

fn a_store_is_used_again(disk: &Disk) -> Result<()> {
    let sample = Sample::new();
    let pin = disk.published(&sample)?;
    let _store = disk.mount()?;
    let mounted = mounted(&Store::open(&pin)?)?;
    at(&mounted, |tree| sample.compare(tree))
}

fn evil_host_flips_a_bit_of_an_object(disk: &Disk) -> Result<()> {
    let sample = Sample::new();
    let pin = disk.published(&sample)?;
    // One block of many.
    disk.flip(&contents(LARGE, 300_000)[40_960..])?;
    let _store = disk.mount()?;
    let mounted = mounted(&Store::open(&pin)?)?;
    at(&mounted, |tree| {
        eio(&tree.join(LARGE))?;
        // What is before and after that block is there.
        let file = File::open(tree.join(LARGE))?;
        let mut block = [0; 4096];
        file.read_exact_at(&mut block, 36_864)?;
        file.read_exact_at(&mut block, 45_056)?;
        let found = file.read_exact_at(&mut block, 40_960).map_err(|error| error.raw_os_error());
        ensure!(found == Err(Some(Errno::IO.raw_os_error())), "{found:?}");
        for name in [FIRST, OTHER] {
            is(&sample, tree, name)?;
        }
        ensure!(fs::read(tree.join("data/short"))? == b"short\n", "short");
        Ok(())
    })?;
    // Nor does it get into what can be written to.
    let writable = mounted.writable(1 << 20, 100)?;
    writable.attach(Path::new(AT))?;
    let outcome = eio(&Path::new(AT).join(LARGE));
    let copied = File::options().append(true).open(Path::new(AT).join(LARGE)).map(drop);
    detach(Path::new(AT))?;
    outcome?;
    ensure!(copied.is_err(), "a bad block was copied up");
    Ok(())
}

fn evil_host_flips_a_bit_of_the_probed_object(disk: &Disk) -> Result<()> {
    let sample = Sample::new();
    let pin = disk.published(&sample)?;
    disk.flip(&contents(FIRST, 10_000))?;
    let _store = disk.mount()?;
    let verified = Store::open(&pin)?;
    refused(verified.mount().map_err(Into::into), "COMPOSEFS_MOUNTED")?;
    Ok(())
}

fn evil_host_flips_a_bit_of_the_image(disk: &Disk) -> Result<()> {
    let sample = Sample::new();
    let pin = disk.published(&sample)?;
    disk.flip(&erofs::write(&sample.tree, &erofs::Options::default())?)?;
    let _store = disk.mount()?;
    let verified = Store::open(&pin)?;
    let told = refused(verified.mount().map_err(Into::into), "COMPOSEFS_SYSTEM")?;
    ensure!(told.contains("erofs"), "{told}");
    Ok(())
}

fn evil_host_swaps_an_object(disk: &Disk) -> Result<()> {
    let sample = Sample::new();
    let pin = disk.published(&sample)?;
    let _store = disk.mount()?;
    let path = Store::object(sample.id(OTHER));
    fs::remove_file(&path)?;
    // Of the same length, and with fs-verity of its own.
    fs::write(&path, contents("stranger", 4096))?;
    file_verity::enable(File::open(&path)?)?;
    let mounted = mounted(&Store::open(&pin)?)?;
    at(&mounted, |tree| {
        eio(&tree.join(OTHER))?;
        is(&sample, tree, FIRST)?;
        is(&sample, tree, LARGE)
    })
}

fn evil_host_takes_verity_from_an_object(disk: &Disk) -> Result<()> {
    let sample = Sample::new();
    let pin = disk.published(&sample)?;
    let _store = disk.mount()?;
    for name in [OTHER, FIRST] {
        let path = Store::object(sample.id(name));
        let bytes = fs::read(&path)?;
        fs::remove_file(&path)?;
        fs::write(&path, bytes)?;
        if name == OTHER {
            let mounted = mounted(&Store::open(&pin)?)?;
            at(&mounted, |tree| {
                eio(&tree.join(OTHER))?;
                is(&sample, tree, LARGE)
            })?;
        } else {
            refused(Store::open(&pin)?.mount().map_err(Into::into), "COMPOSEFS_MOUNTED")?;
        }
    }
    Ok(())
}

fn evil_host_withholds_an_object(disk: &Disk) -> Result<()> {
    let sample = Sample::new();
    let pin = disk.published(&sample)?;
    let _store = disk.mount()?;
    fs::remove_file(Store::object(sample.id(OTHER)))?;
    let partial = mounted(&Store::open(&pin)?)?;
    at(&partial, |tree| {
        ensure!(fs::read(tree.join(OTHER)).is_err(), "it is read from nowhere");
        is(&sample, tree, LARGE)
    })?;
    drop(partial);
    fs::remove_file(Store::object(sample.id(FIRST)))?;
    refused(Store::open(&pin)?.mount().map_err(Into::into), "COMPOSEFS_MOUNTED")?;
    // And publishing again does not pass over it.
    let outcome = Verified::publish(&sample.tree, Store::directory()?, Some(&pin));
    refused(outcome.map_err(Into::into), "COMPOSEFS_SYSTEM")?;
    Ok(())
}

fn evil_image_of_the_host(disk: &Disk) -> Result<()> {
    let sample = Sample::new();
    let pin = disk.published(&sample)?;
    let _store = disk.mount()?;
    let Pin::Sha256(id) = pin else { bail!("a pin by SHA-256") };
    let mut other = Sample::new();
    let kind = Kind::Regular(Content::Inline((*b"root::0:0::/:/bin/sh").into()));
    other.put(Tree::ROOT, "passwd", kind);
    let theirs = erofs::write(&other.tree, &erofs::Options::default())?;
    fs::remove_file(Store::object(id))?;
    fs::write(Store::object(id), &theirs)?;
    // As a file, and with fs-verity.
    refused(Store::open(&pin), "COMPOSEFS_STORE")?;
    file_verity::enable(File::open(Store::object(id))?)?;
    refused(Store::open(&pin), "COMPOSEFS_MISMATCH")?;
    // By the name of another pin, and a tree that is not what is pinned.
    let another = Pin::Sha256(sample.id(LARGE));
    let image: OwnedFd = File::open(Store::object(id))?.into();
    refused(Verified::open(&image, Store::directory()?, &another).map_err(Into::into), "COMPOSEFS_MISMATCH")?;
    let outcome = Verified::publish(&other.tree, Store::directory()?, Some(&pin));
    refused(outcome.map_err(Into::into), "COMPOSEFS_MISMATCH")?;
    let outcome = other.in_memory(|_| Ok(())).map(drop);
    outcome.context("a tree of its own pin")
}

fn evil_object_that_is_not_what_it_is_called(disk: &Disk) -> Result<()> {
    let sample = Sample::new();
    disk.published(&sample)?;
    let _store = disk.mount()?;
    let path = Store::object(sample.id(OTHER));
    fs::remove_file(&path)?;
    fs::write(&path, contents("stranger", 4096))?;
    let outcome = Verified::publish(&sample.tree, Store::directory()?, None);
    refused(outcome.map_err(Into::into), "COMPOSEFS_MISMATCH")?;
    Ok(())
}
