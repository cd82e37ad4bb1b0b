//! A container's directory: `ID/` in the agent's run directory, with the root of the container's files in `rootfs/`.
//!
//! The host names the root's place. It is one below the shared directory, or below a storage of this container: never the
//! guest's own files, and never reached by a link.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::ids::{AbsolutePath, ContainerId};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change, move_mount, open_tree,
    unmount,
};

use crate::containers::ContainerError;

/// Where host and guest share files, below the run directory.
const SHARED: &str = "shared/containers";
/// How often mounts are looked for: whoever is in another namespace cannot add any.
const MAXIMUM_LAYERS: usize = 1024;

/// The directory of a container.
#[derive(Debug)]
pub(crate) struct Bundle {
    run: PathBuf,
    path: PathBuf,
    /// Whether the root is bound there by us.
    bound: AtomicBool,
}

impl Bundle {
    /// Makes the directory, which must not be there yet.
    ///
    /// # Errors
    /// `CONTAINER_DIRECTORY_TAKEN`, `CONTAINER_BUNDLE`.
    pub(crate) fn make(run: &Path, container: &ContainerId) -> Result<Self, ContainerError> {
        let path = run.join(container.as_str());
        DirBuilder::new().recursive(true).mode(0o755).create(run).map_err(ContainerError::bundle("make"))?;
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self { run: run.to_owned(), path, bound: AtomicBool::new(false) }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(ContainerError::DirectoryTaken),
            Err(error) => Err(ContainerError::bundle("make")(error)),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the root of the container's files is.
    pub(crate) fn root(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// Puts the root there. What a storage has mounted there stays, if it is what the specification names; else the directory of the
    /// specification is bound there, without the mounts in it. `storages`: where storages of this container are mounted.
    ///
    /// # Errors
    /// `CONTAINER_ROOT`, `CONTAINER_BUNDLE`.
    pub(crate) fn put_root(&self, asked: &str, storages: &[PathBuf]) -> Result<(), ContainerError> {
        let target = self.root();
        match fs::symlink_metadata(&target) {
            Ok(found) if found.is_dir() => {
                // Policy judged the root that the specification names, and what was verified is looked up by that name.
                // GUARD: root-as-named -> evil_host_root_beside_the_one_that_is_named
                if !AbsolutePath::parse(asked).is_ok_and(|asked| asked.as_path() == target) {
                    return Err(ContainerError::Root);
                }
                return Ok(());
            }
            Ok(_) => return Err(ContainerError::Root),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ContainerError::bundle("look at")(error)),
        }
        let source = self.open_root(asked, storages)?;
        DirBuilder::new().mode(0o755).create(&target).map_err(ContainerError::bundle("make"))?;
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let bind = || -> Result<(), Errno> {
            let tree = open_tree(&source, "", flags)?;
            move_mount(&tree, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
            mount_change(&target, MountPropagationFlags::PRIVATE)
        };
        self.bound.store(true, Ordering::Release);
        bind().map_err(|error| ContainerError::bundle("bind the root into")(error.into()))
    }

    /// Takes the root off again, if it was bound: before the storages below it.
    ///
    /// # Errors
    /// `CONTAINER_BUNDLE`.
    pub(crate) fn release_root(&self) -> Result<(), ContainerError> {
        if !self.bound.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let target = self.root();
        match unmount(&target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Nothing is mounted there, or nothing is there.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            Err(error) => {
                self.bound.store(true, Ordering::Release);
                Err(ContainerError::bundle("unmount the root of")(error.into()))
            }
        }
    }

    fn open_root(&self, asked: &str, storages: &[PathBuf]) -> Result<OwnedFd, ContainerError> {
        let asked = AbsolutePath::parse(asked).map_err(|_| ContainerError::Root)?;
        // GUARD: root-place -> evil_host_root_of_the_guest
        if !self.may_be_root(asked.as_path(), storages) {
            return Err(ContainerError::Root);
        }
        let below = asked.as_path().strip_prefix("/").map_err(|_| ContainerError::Root)?;
        let from = File::open("/").map_err(ContainerError::bundle("open"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::BENEATH;
        openat2(&from, below, flags, Mode::empty(), resolve).map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR | Errno::NOENT | Errno::XDEV => ContainerError::Root,
            other => ContainerError::bundle("open the root for")(other.into()),
        })
    }

    /// Below the shared directory, below this container's own, or a storage of it.
    fn may_be_root(&self, asked: &Path, storages: &[PathBuf]) -> bool {
        let is_below = |directory: &Path| {
            asked.strip_prefix(directory).is_ok_and(|rest| {
                rest.components().next().is_some_and(|part| matches!(part, Component::Normal(_)))
            })
        };
        is_below(&self.run.join(SHARED))
            || is_below(&self.path)
            || storages.iter().any(|storage| asked == storage || is_below(storage))
    }

    /// Takes everything away: what is mounted below it, and the directory. Files of others that were mounted stay.
    ///
    /// # Errors
    /// `CONTAINER_BUNDLE`: something is left.
    pub(crate) fn remove(&self) -> Result<(), ContainerError> {
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        if fs::symlink_metadata(&self.path).is_err_and(|error| gone(&error)) {
            return Ok(());
        }
        for _ in 0..MAXIMUM_LAYERS {
            let Some(last) = mounts_below(&self.path)?.pop() else { break };
            unmount(&last, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                .map_err(|error| ContainerError::bundle("unmount below")(error.into()))?;
        }
        // GUARD: bundle-unmounted -> evil_host_files_below_a_mount_are_kept
        if !mounts_below(&self.path)?.is_empty() {
            return Err(ContainerError::bundle("unmount below")(Errno::BUSY.into()));
        }
        match fs::remove_dir_all(&self.path) {
            Err(error) if !gone(&error) => Err(ContainerError::bundle("remove")(error)),
            _ => Ok(()),
        }
    }
}

/// What is mounted at a place and below it, in the order of mounting.
fn mounts_below(place: &Path) -> Result<Vec<PathBuf>, ContainerError> {
    let table =
        fs::read_to_string("/proc/self/mountinfo").map_err(ContainerError::bundle("list mounts below"))?;
    let targets =
        table.lines().filter_map(|line| line.split(' ').nth(4)).map(|text| PathBuf::from(unescaped(text)));
    Ok(targets.filter(|target| target.starts_with(place)).collect())
}

/// A field of mountinfo: `\040` and its like are characters.
fn unescaped(field: &str) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let octal = behind.get(..3).filter(|_| *first == b'\\').and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests;
