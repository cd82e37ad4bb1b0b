//! A directory that exists in the private mount namespace only.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::mount::{MoveMountFlags, move_mount};

use super::{ConfineError, PrivateNamespaces};
use crate::landing::tmpfs::{PrivateTmpfs, TmpfsOptions};
use crate::landing::{AttachTarget, Attachment, Complete, FileName, LANDING_MAX_FILES, Landing};
use crate::sys::mount_attributes::set_mount_read_only;

/// Directories that may be covered, in this namespace only, because nothing is in them.
const CANDIDATES: &[&str] =
    &["/mnt", "/media", "/srv", "/run/lock", "/var/opt", "/var/local", "/usr/local/src", "/opt"];

/// A small read-only tmpfs over an empty directory.
#[derive(Debug)]
pub(crate) struct Room {
    tmpfs: PrivateTmpfs,
    path: PathBuf,
}

/// Where a consumer finds a landing.
#[derive(Debug)]
#[must_use]
pub struct ConsumerMount {
    attachment: Attachment,
}

impl ConsumerMount {
    /// The directory with the landing's files.
    pub fn path(&self) -> &Path {
        self.attachment.path()
    }

    /// The path of one file.
    pub fn file(&self, name: &FileName) -> PathBuf {
        self.path().join(name.as_str())
    }

    /// The mount itself.
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }
}

impl PrivateNamespaces {
    /// Attaches a complete landing at a fresh directory `label` that exists in this mount namespace only.
    ///
    /// # Errors
    ///
    /// [`ConfineError::NoAttachPoint`] if no usual directory is empty ([`Self::attach_below`] takes one by name); the
    /// label is in use.
    pub fn attach(
        &mut self,
        landing: &Landing<Complete>,
        label: &FileName,
    ) -> Result<ConsumerMount, ConfineError> {
        if let Some(room) = &self.room {
            return room.attach(landing, label);
        }
        let Some(directory) = CANDIDATES.iter().map(Path::new).find(|path| is_empty_directory(path)) else {
            return Err(ConfineError::NoAttachPoint { candidates: CANDIDATES.join(", ") });
        };
        self.attach_below(directory, landing, label)
    }

    /// As [`Self::attach`], covering `directory` in this mount namespace. The first call decides the directory.
    ///
    /// # Errors
    ///
    /// The directory is missing, has a symbolic link in its path, or cannot be covered; the label is in use.
    pub fn attach_below(
        &mut self,
        directory: &Path,
        landing: &Landing<Complete>,
        label: &FileName,
    ) -> Result<ConsumerMount, ConfineError> {
        let room = match &mut self.room {
            Some(room) => room,
            room @ None => room.insert(Room::open(directory)?),
        };
        room.attach(landing, label)
    }
}

impl Room {
    fn open(path: &Path) -> Result<Self, ConfineError> {
        let failed = |step| move |source| ConfineError::AttachPoint { path: path.into(), step, source };
        let options = TmpfsOptions { size_bytes: 1 << 20, inodes: LANDING_MAX_FILES, for_plaintext: false };
        let tmpfs = PrivateTmpfs::create(options)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let target =
            openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS)
                .map_err(|error| failed("opening of the directory to cover")(error.into()))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(tmpfs.root(), "", target.as_fd(), "", flags)
            .map_err(|error| failed("mount")(error.into()))?;
        Ok(Self { tmpfs, path: path.into() })
    }

    fn attach(&self, landing: &Landing<Complete>, label: &FileName) -> Result<ConsumerMount, ConfineError> {
        let path = self.path.join(label.as_str());
        let failed =
            |step| move |source: io::Error| ConfineError::AttachPoint { path: path.clone(), step, source };
        let root = self.tmpfs.root();
        set_mount_read_only(root, false).map_err(failed.clone()("remount writable"))?;
        let made = mkdirat(root, label.as_str(), Mode::from_raw_mode(0o555));
        set_mount_read_only(root, true).map_err(failed.clone()("remount read-only"))?;
        made.map_err(|error| failed("creation of the directory")(error.into()))?;
        let attachment = landing.attach(AttachTarget::in_root(root, Path::new(label.as_str())))?;
        Ok(ConsumerMount { attachment })
    }
}

fn is_empty_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
        && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}
