//! The run directory: the runtime log, its write-ahead file, and the lock that evidence and extensions share.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::error::MeasureError;

const LOCK: &str = "lock";

/// The directory.
#[derive(Clone, Debug)]
pub(crate) struct RunDirectory {
    path: PathBuf,
}

/// Nobody else reads evidence or extends a register while this lives, in this process or another.
#[derive(Debug)]
pub(crate) struct RunLock {
    // Closing the file gives the lock up.
    _file: File,
}

impl RunDirectory {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the directory and takes the lock, waiting for whoever has it.
    pub(crate) fn lock(&self) -> Result<RunLock, MeasureError> {
        if !self.path.is_dir() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.path)
                .map_err(failed("make", &self.path))?;
        }
        let path = self.join(LOCK);
        let file =
            open_own(OpenOptions::new().write(true).create(true), &path).map_err(failed("open", &path))?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(RunLock { _file: file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed("lock", &path)(error.into())),
            }
        }
    }
}

/// Opens a file that only this user reads and writes, and that is no link.
pub(crate) fn open_own(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    options.mode(0o600).custom_flags(flags).open(path)
}

/// The error of an action on a path of the run directory.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MeasureError + use<> {
    let path = path.display().to_string();
    move |source| MeasureError::RunDirectory { action, path, source }
}
