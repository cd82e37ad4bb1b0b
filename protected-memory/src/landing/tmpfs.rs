//! A private tmpfs instance behind a mount that is not attached anywhere.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, open_tree,
};

use super::{FileName, LandingError};
use crate::sys::mount_attributes::set_mount_read_only;

/// The name that the mount table shows as the source.
pub(crate) const SOURCE: &str = "innerkeep";

/// A fork in another thread of this process holds copies of descriptors until its exec: this long is waited for it.
const BUSY_ATTEMPTS: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// What was asked of the file system and what the kernel gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Granted {
    pub(crate) huge: bool,
    pub(crate) noswap: bool,
}

/// A tmpfs with one mount of it that has no path. Closing the last descriptor unmounts it.
#[derive(Debug)]
pub(crate) struct PrivateTmpfs {
    mount: OwnedFd,
    granted: Granted,
}

/// Size and use of a tmpfs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TmpfsOptions {
    pub(crate) size_bytes: u64,
    pub(crate) inodes: usize,
    /// Ask for huge pages and for `noswap`.
    pub(crate) for_plaintext: bool,
}

impl PrivateTmpfs {
    /// Makes the instance and its detached mount: nosuid, nodev, noexec.
    pub(crate) fn create(options: TmpfsOptions) -> Result<Self, LandingError> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(LandingError::mount("fsopen"))?;
        let set = |key, value: &str| fsconfig_set_string(&context, key, value);
        set("source", SOURCE).map_err(LandingError::mount("fsconfig source"))?;
        set("size", &options.size_bytes.to_string()).map_err(LandingError::mount("fsconfig size"))?;
        set("nr_inodes", &options.inodes.to_string()).map_err(LandingError::mount("fsconfig nr_inodes"))?;
        set("mode", "0755").map_err(LandingError::mount("fsconfig mode"))?;
        // Refused by kernels without huge pages; the report says so.
        let huge = options.for_plaintext && set("huge", "always").is_ok();
        // Unknown before Linux 6.4 and refused inside a user namespace; the preflight then judges swap.
        let noswap = options.for_plaintext && fsconfig_set_flag(&context, "noswap").is_ok();
        fsconfig_create(&context).map_err(LandingError::mount("fsconfig create"))?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(LandingError::mount("fsmount"))?;
        Ok(Self { mount, granted: Granted { huge, noswap } })
    }

    /// What the kernel gave.
    pub(crate) fn granted(&self) -> Granted {
        self.granted
    }

    /// The root directory of the mount.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Makes a new file for reading and writing.
    pub(crate) fn create_file(&self, name: &FileName) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.mount, name.as_str(), flags, Mode::RUSR | Mode::WUSR)?)
    }

    /// Opens a file for reading.
    pub(crate) fn open_file(&self, name: &FileName) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.mount, name.as_str(), flags, Mode::empty())?)
    }

    /// Opens a file for reading and writing.
    pub(crate) fn open_file_writable(&self, name: &FileName) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.mount, name.as_str(), flags, Mode::empty())?)
    }

    /// Makes the superblock read-only: through every mount of it, now and later.
    ///
    /// The kernel refuses while a writable descriptor or mapping of any of its files lives, in any process.
    pub(crate) fn make_read_only(&self) -> Result<(), LandingError> {
        let mut attempts = 1;
        loop {
            match self.reconfigure("ro") {
                Err(Errno::BUSY) if attempts < BUSY_ATTEMPTS => {
                    attempts += 1;
                    thread::sleep(BUSY_PAUSE);
                }
                Err(Errno::BUSY) => return Err(LandingError::DeviceKeepsMemory),
                other => return other.map_err(LandingError::mount("remount of the superblock read-only")),
            }
        }
    }

    /// Makes the superblock writable again, for the wipe. Mounts that were attached stay read-only themselves.
    pub(crate) fn make_writable(&self) -> io::Result<()> {
        self.reconfigure("rw")?;
        // Without effect unless this mount is itself the attached one, see `detached_clone`.
        set_mount_read_only(self.root(), false)
    }

    fn reconfigure(&self, flag: &str) -> Result<(), Errno> {
        let context = fspick(&self.mount, "", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC)?;
        fsconfig_set_flag(&context, flag)?;
        fsconfig_reconfigure(&context)
    }

    /// A second mount of the same superblock, itself read-only, detached, to be attached somewhere.
    ///
    /// Kernels before 6.15 do not clone a mount that is not attached: there the first mount is the one to attach, and
    /// descriptors opened through it go on working wherever it is.
    pub(crate) fn detached_clone(&self) -> io::Result<OwnedFd> {
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        match open_tree(&self.mount, "", flags) {
            Ok(mount) => {
                set_mount_read_only(mount.as_fd(), true)?;
                Ok(mount)
            }
            Err(Errno::INVAL) => self.first_mount(),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the kernel clones the mount although it is attached nowhere.
    pub(crate) fn clones_detached(&self) -> io::Result<bool> {
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        match open_tree(&self.mount, "", flags) {
            Ok(_) => Ok(true),
            Err(Errno::INVAL) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The first mount itself, read-only, to be attached. It can be attached once.
    pub(crate) fn first_mount(&self) -> io::Result<OwnedFd> {
        set_mount_read_only(self.root(), true)?;
        self.mount.try_clone()
    }
}
