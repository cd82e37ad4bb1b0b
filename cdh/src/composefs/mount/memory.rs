//! Memory of this process's own as a directory: a tmpfs that is mounted at no path.

use std::os::fd::{AsFd as _, OwnedFd};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsPickFlags, MountAttrFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick};

use super::system::Context;
use super::{BUSY_ATTEMPTS, BUSY_PAUSE};
use crate::composefs::ComposefsError;

/// A tmpfs that nobody else has a way to, and that is never swapped. Dropped, it is gone with what is in it.
#[derive(Debug)]
pub struct PrivateMemory {
    root: OwnedFd,
}

/// Half of the machine's memory in bytes, and a file for each of its pages: what is given to a directory in memory that nobody sizes.
#[must_use]
pub fn half_of_memory() -> (u64, u64) {
    let info = rustix::system::sysinfo();
    let bytes = info.totalram.saturating_mul(u64::from(info.mem_unit)) / 2;
    (bytes, bytes / 4096)
}

impl PrivateMemory {
    /// With room for so many bytes and files.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_SYSTEM`, also where the kernel cannot keep it from being swapped (before Linux 6.4).
    pub fn create(bytes: u64, files: u64) -> Result<Self, ComposefsError> {
        let root = Context::new("tmpfs")?
            .string("source", "innerkeep")?
            .string("size", &bytes.to_string())?
            .string("nr_inodes", &files.to_string())?
            .string("mode", "0755")?
            .flag("noswap")?
            .mount(MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV)?;
        Ok(Self { root })
    }

    /// Its root directory, to write to. Every descriptor that can write has to be closed before the memory is used.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_SYSTEM`.
    pub fn directory(&self) -> Result<OwnedFd, ComposefsError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.root, ".", flags, Mode::empty())
            .map_err(ComposefsError::system("open the root of", "private memory"))
    }

    /// Makes the file system read-only, through every mount of it. The kernel refuses while a descriptor or mapping can write.
    pub(super) fn close(self) -> Result<OwnedFd, ComposefsError> {
        let mut attempts = 1;
        loop {
            let closed =
                fspick(self.root.as_fd(), "", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC)
                    .and_then(|context| {
                        fsconfig_set_flag(&context, "ro")?;
                        fsconfig_reconfigure(&context)
                    });
            match closed {
                Ok(()) => return Ok(self.root),
                Err(Errno::BUSY) if attempts < BUSY_ATTEMPTS => {
                    attempts += 1;
                    thread::sleep(BUSY_PAUSE);
                }
                Err(Errno::BUSY) => {
                    return Err(ComposefsError::Store {
                        expected: "memory that nobody can write to",
                        found: "an open file".into(),
                    });
                }
                Err(error) => {
                    return Err(ComposefsError::system("make read-only", "private memory")(error));
                }
            }
        }
    }
}
