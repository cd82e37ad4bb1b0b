//! Into a container that is made and not started: a landed artifact gets a path there, and nowhere else.
//!
//! Nothing runs in the container yet, so nobody races with what is done here. A thread that runs nothing else enters its mount namespace; what it
//! is handed is open already, `/proc` of this agent among it.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use protected_memory::landing::{AttachTarget, Attachment, DetachedMount};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::entitled::By;
use super::error::SealedError;
use super::mounts;
use crate::sys::mount_namespace;

/// One artifact for a container.
#[derive(Debug)]
pub(super) struct Item {
    /// A mount of it that has no path.
    pub(super) mount: DetachedMount,
    /// The directory in the container.
    pub(super) path: String,
    /// Why the container gets it.
    pub(super) by: By,
}

/// Attaches all of them, or none. `place` is device and inode of the root that was verified.
pub(super) fn attach(
    proc: &Path,
    process: i32,
    place: (u64, u64),
    items: Vec<Item>,
) -> Result<(), SealedError> {
    within(proc, process, |proc| inside(proc, place, items))
}

/// Does something in the mount namespace of a process. It is handed this agent's `/proc`.
fn within(
    proc: &Path,
    process: i32,
    work: impl FnOnce(BorrowedFd<'_>) -> Result<(), SealedError> + Send,
) -> Result<(), SealedError> {
    let number = Pid::from_raw(process).ok_or(SealedError::Unknown)?;
    let process = pidfd_open(number, PidfdFlags::empty())
        .map_err(SealedError::system("open the container's process"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = openat(CWD, proc, flags, Mode::empty()).map_err(SealedError::system("open /proc"))?;
    let done = mount_namespace::within(process.as_fd(), || work(proc.as_fd()));
    done.map_err(SealedError::system("enter the container's mount namespace"))?
}

/// Looks, as [`attach`] does before it attaches: whether the verified root is the process's, and what lies over it.
pub(super) fn look(proc: &Path, process: i32, place: (u64, u64), by: By) -> Result<(), SealedError> {
    within(proc, process, |proc| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, "/", flags, Mode::empty())
            .map_err(SealedError::system("open the container's root"))?;
        require_place(root.as_fd(), place)?;
        // GUARD: sealed-value-host-files -> evil_host_files_over_the_root_of_a_secret
        mounts::judge(&table(proc)?, by)?;
        Ok(())
    })
}

/// In the container's mount namespace.
fn inside(proc: BorrowedFd<'_>, place: (u64, u64), items: Vec<Item>) -> Result<(), SealedError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        openat(CWD, "/", flags, Mode::empty()).map_err(SealedError::system("open the container's root"))?;
    require_place(root.as_fd(), place)?;
    let table = table(proc)?;
    let mut attached = Vec::new();
    for item in items {
        match one(proc, root.as_fd(), &table, item) {
            Ok(attachment) => attached.push(attachment),
            Err(error) => {
                for attachment in attached {
                    // What stays is read-only, and the container is not started.
                    let _ = attachment.detach();
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

fn one(
    proc: BorrowedFd<'_>,
    root: BorrowedFd<'_>,
    table: &str,
    Item { mount, path, by }: Item,
) -> Result<Attachment, SealedError> {
    mounts::judge(table, by)?;
    drop(target(root, Path::new(&path))?);
    Ok(mount.attach(AttachTarget::in_root(root, Path::new(&path)).with_proc(proc))?)
}

/// What is `/` there is what was verified when the container was made.
pub(super) fn require_place(root: BorrowedFd<'_>, place: (u64, u64)) -> Result<(), SealedError> {
    let found = fstat(root).map_err(SealedError::system("look at the container's root"))?;
    // GUARD: sealed-root-in-place -> evil_host_other_root_under_the_process
    if (found.st_dev, found.st_ino) != place {
        return Err(SealedError::Root);
    }
    Ok(())
}

/// The directory, in the verified root itself.
pub(super) fn target(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, SealedError> {
    let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // GUARD: sealed-target-in-root -> evil_host_mounts_on_the_way_to_the_artifact
    resolve |= ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), resolve).map_err(|source| SealedError::Target {
        path: path.to_string_lossy().into_owned(),
        source: source.into(),
    })
}

fn table(proc: BorrowedFd<'_>) -> Result<String, SealedError> {
    const WHAT: &str = "read the container's mounts";
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file =
        openat(proc, "thread-self/mountinfo", flags, Mode::empty()).map_err(SealedError::system(WHAT))?;
    let mut table = String::new();
    File::from(file)
        .take(mounts::MAXIMUM_TABLE_BYTES)
        .read_to_string(&mut table)
        .map_err(SealedError::system(WHAT))?;
    Ok(table)
}
