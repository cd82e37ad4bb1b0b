//! Copies of small directories, kept up to date by looking every two seconds.
//!
//! Names and links are copied as they are, links as links: what a link of the host's leads to is never read. The copy is written beneath its
//! own directory, through no link that a container may have put there.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, fstat, openat, readlinkat, renameat,
    statat, symlinkat,
};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, spawn_blocking};

use super::StorageError;
use super::beneath::Beneath;
use super::mount::Detached;
use super::place::Place;
use crate::log::{Key, Log};

const SUBSYSTEM: &str = "watchable-bind";
/// Upstream's.
const PERIOD: Duration = Duration::from_secs(2);
/// Upstream's: files and links, and their bytes in all.
const MAXIMUM_FILES: usize = 16;
const MAXIMUM_BYTES: u64 = 1 << 20;
/// Directories, and how deep.
const MAXIMUM_DIRECTORIES: usize = 16;
const MAXIMUM_DEPTH: usize = 4;
/// Files that are being copied: no name that kubelet makes.
const PARTIAL: &str = ".innerkeep-partial";

/// One name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Directory(Owner),
    /// With what shows that it is another file, or other bytes.
    File(Owner, [i128; 3]),
    Link(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    mode: u32,
    uid: u32,
    gid: u32,
}

/// What is in a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    items: BTreeMap<PathBuf, Item>,
    files: usize,
    directories: usize,
    bytes: u64,
}

impl Snapshot {
    /// Looks. `None` if it is not a directory, or too large to be copied.
    pub(super) fn of(run: &Path, source: &Place) -> Result<Option<Self>, StorageError> {
        let failed = |error: io::Error| StorageError::io("look at", &source.on_the_wire())(error);
        let root = Beneath::open(run).map_err(failed)?;
        let found = root.place(source.as_path()).map_err(failed)?;
        let found = fstat(&found).map_err(|error| failed(error.into()))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            return Ok(None);
        }
        let directory = root.list(source.as_path()).map_err(failed)?;
        let mut snapshot = Self::default();
        match snapshot.add(&directory, Path::new(""), MAXIMUM_DEPTH) {
            Ok(true) => Ok(Some(snapshot)),
            Ok(false) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Returns whether it is small enough.
    fn add(&mut self, directory: &OwnedFd, path: &Path, depth: usize) -> io::Result<bool> {
        let Some(depth) = depth.checked_sub(1) else { return Ok(false) };
        for entry in rustix::fs::Dir::read_from(directory)? {
            let entry = entry?;
            let name = path_of(entry.file_name().to_bytes());
            if name == Path::new(".") || name == Path::new("..") {
                continue;
            }
            let found = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let owner = Owner { mode: found.st_mode & 0o7777, uid: found.st_uid, gid: found.st_gid };
            let (item, below) = match FileType::from_raw_mode(found.st_mode) {
                FileType::Directory => {
                    self.directories += 1;
                    (Item::Directory(owner), true)
                }
                FileType::RegularFile => {
                    self.files += 1;
                    self.bytes = self.bytes.saturating_add(u64::try_from(found.st_size).unwrap_or(u64::MAX));
                    let changed =
                        i128::from(found.st_mtime) * 1_000_000_000 + i128::from(found.st_mtime_nsec);
                    (Item::File(owner, [changed, found.st_size.into(), found.st_ino.into()]), false)
                }
                FileType::Symlink => {
                    self.files += 1;
                    (Item::Link(readlinkat(directory, &name, Vec::new())?.into_bytes()), false)
                }
                // Sockets and devices of the host are nothing here.
                _ => continue,
            };
            // GUARD: watched-is-small -> evil_host_watched_directory_that_grows
            if self.files > MAXIMUM_FILES
                || self.directories > MAXIMUM_DIRECTORIES
                || self.bytes > MAXIMUM_BYTES
            {
                return Ok(false);
            }
            let own = path.join(&name);
            if below {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = openat(directory, &name, flags, Mode::empty())?;
                self.items.insert(own.clone(), item);
                if !self.add(&directory, &own, depth)? {
                    return Ok(false);
                }
            } else {
                self.items.insert(own, item);
            }
        }
        Ok(true)
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// Copies what is different: directories and files, then links, which may lead to those, then what is no longer there goes.
fn copy(run: &Path, source: &Place, target: &Beneath, old: &Snapshot, new: &Snapshot) -> io::Result<()> {
    let from = Beneath::open(run)?;
    let changed = || new.items.iter().filter(|(path, item)| old.items.get(*path) != Some(*item));
    for (path, item) in changed() {
        match item {
            Item::Directory(owner) => {
                if !matches!(old.items.get(path), Some(Item::Directory(_)) | None) {
                    target.remove_all(path)?;
                }
                let directory = target.make_directories(path, Mode::RWXU, &mut Vec::new())?;
                give(&directory, *owner)?;
            }
            Item::File(owner, _) => copy_file(&from, &source.as_path().join(path), target, path, *owner)?,
            Item::Link(_) => {}
        }
    }
    for (path, item) in changed() {
        if let Item::Link(to) = item {
            let (parent, name) = target.parent(path)?;
            let partial = Path::new(PARTIAL);
            target.remove_all(&sibling(path))?;
            symlinkat(path_of(to), &parent, partial)?;
            chownat(&parent, partial, Some(Uid::ROOT), Some(Gid::ROOT), AtFlags::SYMLINK_NOFOLLOW)?;
            if matches!(old.items.get(path), Some(Item::Directory(_))) {
                target.remove_all(path)?;
            }
            renameat(&parent, partial, &parent, name)?;
        }
    }
    for path in old.items.keys().rev().filter(|path| !new.items.contains_key(*path)) {
        target.remove_all(path)?;
    }
    Ok(())
}

fn sibling(path: &Path) -> PathBuf {
    path.with_file_name(PARTIAL)
}

fn give(file: &OwnedFd, owner: Owner) -> io::Result<()> {
    fchown(file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
    Ok(fchmod(file, Mode::from_raw_mode(owner.mode))?)
}

fn copy_file(from: &Beneath, source: &Path, target: &Beneath, path: &Path, owner: Owner) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let source = from.at(source, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&source)?.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    std::fs::File::from(source).take(MAXIMUM_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAXIMUM_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    target.remove_all(&sibling(path))?;
    let (parent, name) = target.parent(path)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&parent, PARTIAL, flags, Mode::RUSR | Mode::WUSR)?;
    let mut file = std::fs::File::from(file);
    file.write_all(&bytes)?;
    give(&file.into(), owner)?;
    let existing = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW);
    if existing.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory) {
        target.remove_all(path)?;
    }
    Ok(renameat(&parent, PARTIAL, &parent, name)?)
}

/// Who looks every two seconds.
#[derive(Debug)]
pub(crate) struct Watcher {
    task: AbortHandle,
    /// Attached nowhere; goes with this.
    _own: Detached,
}

impl Watcher {
    /// Makes the first copy, and goes on from there; `own` is where copies are written.
    pub(super) fn start(
        run: &Path,
        source: Place,
        own: Detached,
        first: Snapshot,
        runtime: &Handle,
        log: &Log,
    ) -> Result<Self, StorageError> {
        let failed = |error: io::Error| StorageError::io("copy", &source.on_the_wire())(error);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            openat(own.root(), ".", flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let target = Beneath::of(directory);
        copy(run, &source, &target, &Snapshot::default(), &first).map_err(failed)?;
        let (run, log) = (run.to_owned(), log.clone());
        let task = runtime.spawn(watch(run, source, target, first, log)).abort_handle();
        Ok(Self { task, _own: own })
    }

    pub(super) fn stop(self) {
        drop(self);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(run: PathBuf, source: Place, target: Beneath, mut last: Snapshot, log: Log) {
    let mut target = Some(target);
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(own) = target.take() else { return };
        let (run, source) = (run.clone(), source.clone());
        let looked = spawn_blocking(move || {
            let result = update(&run, &source, &own, &mut last);
            (own, last, result)
        });
        let Ok((own, snapshot, result)) = looked.await else { return };
        (target, last) = (Some(own), snapshot);
        match result {
            Ok(true) => {}
            Ok(false) => {
                log.warn(SUBSYSTEM, "the directory is too large by now: it is no longer copied", &[]);
                return;
            }
            // A directory that changes while one looks is looked at again.
            Err(error) => {
                let fields = [(Key::Code, error.code().into())];
                log.say(crate::log::Level::Debug, SUBSYSTEM, "not copied this time", &fields);
            }
        }
    }
}

/// Returns whether it goes on.
fn update(run: &Path, source: &Place, target: &Beneath, last: &mut Snapshot) -> Result<bool, StorageError> {
    let Some(new) = Snapshot::of(run, source)? else { return Ok(false) };
    if new != *last {
        let copied = copy(run, source, target, last, &new);
        copied.map_err(StorageError::io("copy", &source.on_the_wire()))?;
        *last = new;
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
