//! Mounts: made detached, attached to a place that is held open, and taken off only where they are still ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount,
    open_tree, unmount,
};

use super::StorageError;
use super::beneath::{Beneath, by_number};
use super::options::Options;
use super::place::Place;
use crate::sys::mount_attributes;

/// A mount that was just in use is tried again before it is taken off lazily.
const ATTEMPTS: usize = 10;
const PAUSE: Duration = Duration::from_millis(5);

/// The kernel's number of a mount. It is not used again while the mount lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MountId(u64);

impl MountId {
    /// Of the mount that a file lies on.
    pub(crate) fn of(file: BorrowedFd<'_>) -> Result<Self, Errno> {
        let found = statx(file, "", AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID)?;
        if found.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
            return Err(Errno::NOSYS);
        }
        Ok(Self(found.stx_mnt_id))
    }
}

/// A mount that is attached nowhere. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Detached {
    mount: OwnedFd,
}

impl Detached {
    /// A new instance of a file system.
    pub(crate) fn new(kind: &str, source: &str, options: &Options) -> Result<Self, StorageError> {
        let at = Path::new(kind);
        let context =
            fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(StorageError::errno("open file system", at))?;
        let set = |key: &str, value: &str| {
            fsconfig_set_string(&context, key, value)
                .map_err(|error| StorageError::errno("set a parameter of", &at.join(key))(error))
        };
        if !source.is_empty() {
            set("source", source)?;
        }
        if options.read_only {
            fsconfig_set_flag(&context, "ro").map_err(StorageError::errno("set read-only", at))?;
        }
        for flag in &options.flags {
            let failed = StorageError::errno("set a parameter of", &at.join(flag));
            fsconfig_set_flag(&context, flag.as_str()).map_err(failed)?;
        }
        for (key, value) in &options.values {
            set(key, value)?;
        }
        fsconfig_create(&context).map_err(StorageError::errno("make file system", at))?;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, options.attributes());
        Ok(Self { mount: mount.map_err(StorageError::errno("mount", at))? })
    }

    /// A mount that somebody else made.
    pub(crate) fn of(mount: OwnedFd, options: &Options) -> Result<Self, StorageError> {
        mount_attributes::set(mount.as_fd(), options.attributes(), false)
            .map_err(StorageError::io("set attributes of", Path::new("image")))?;
        Ok(Self { mount })
    }

    /// What is at a place, once more.
    pub(crate) fn bind(source: BorrowedFd<'_>, options: &Options) -> Result<Self, StorageError> {
        let mut flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        if options.recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let at = Path::new("bind");
        let mount = open_tree(source, "", flags).map_err(StorageError::errno("clone", at))?;
        mount_attributes::set(mount.as_fd(), options.attributes(), options.recursive)
            .map_err(StorageError::io("set attributes of", at))?;
        Ok(Self { mount })
    }

    /// Its root directory.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Attaches it there.
    pub(crate) fn attach(self, target: BorrowedFd<'_>) -> Result<MountId, Errno> {
        let id = MountId::of(self.mount.as_fd())?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&self.mount, "", target, "", flags)?;
        Ok(id)
    }
}

/// Takes a mount off, if it is this one.
pub(crate) fn detach(run: &Path, place: &Place, id: MountId) -> Result<(), StorageError> {
    let failed = |error: std::io::Error| StorageError::io("unmount", &place.on_the_wire())(error);
    let root = Beneath::open(run).map_err(failed)?;
    for attempt in 0..=ATTEMPTS {
        let (parent, name) = root.parent(place.as_path()).map_err(failed)?;
        {
            let found = root.place(place.as_path()).map_err(failed)?;
            let found = MountId::of(found.as_fd()).map_err(|error| failed(error.into()))?;
            // GUARD: unmount-ours -> a_mount_of_somebody_else_stays
            if found != id {
                return Err(failed(std::io::Error::other("another mount is there")));
            }
        }
        let target = by_number(&parent).join(name);
        let last = if attempt == ATTEMPTS { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        match unmount(&target, UnmountFlags::NOFOLLOW | last) {
            Ok(()) => return Ok(()),
            Err(Errno::BUSY) if attempt < ATTEMPTS => sleep(PAUSE),
            Err(error) => return Err(failed(error.into())),
        }
    }
    Ok(())
}

/// Gives the file system that is mounted at a place other parameters.
pub(crate) fn reconfigure(
    run: &Path,
    place: &Place,
    id: MountId,
    options: &Options,
) -> Result<(), StorageError> {
    let at = place.on_the_wire();
    let failed = |error: std::io::Error| StorageError::io("change parameters of", &at)(error);
    let root = Beneath::open(run).map_err(failed)?;
    let mount = root.place(place.as_path()).map_err(failed)?;
    if MountId::of(mount.as_fd()).map_err(|error| failed(error.into()))? != id {
        return Err(failed(std::io::Error::other("another mount is there")));
    }
    let reconfigured = || -> Result<(), Errno> {
        let context = fspick(&mount, "", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC)?;
        for (key, value) in &options.values {
            fsconfig_set_string(&context, key.as_str(), value.as_str())?;
        }
        fsconfig_reconfigure(&context)
    };
    reconfigured().map_err(|error| failed(error.into()))?;
    mount_attributes::set(mount.as_fd(), options.attributes(), false).map_err(failed)
}
