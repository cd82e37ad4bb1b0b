//! The few operations on the kernel's files, apart so that tests can stand in for the host.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

/// What configfs-tsm lets a guest do.
pub(super) trait ReportFiles: Send + Sync {
    /// Makes a report's directory.
    fn make(&self, name: &str) -> io::Result<()>;

    /// Removes it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// At most `limit` bytes of an attribute, from one open file.
    fn read(&self, name: &str, attribute: &str, limit: usize) -> io::Result<Vec<u8>>;

    /// Writes an attribute with one call.
    fn write(&self, name: &str, attribute: &str, bytes: &[u8]) -> io::Result<()>;
}

/// The files of the kernel.
pub(super) struct Configfs {
    base: PathBuf,
}

impl Configfs {
    pub(super) fn new(base: PathBuf) -> Self {
        Self { base }
    }
}

impl ReportFiles for Configfs {
    fn make(&self, name: &str) -> io::Result<()> {
        fs::create_dir(self.base.join(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_dir(self.base.join(name))
    }

    fn read(&self, name: &str, attribute: &str, limit: usize) -> io::Result<Vec<u8>> {
        let file = File::open(self.base.join(name).join(attribute))?;
        let mut bytes = Vec::new();
        file.take(u64::try_from(limit).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, name: &str, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(self.base.join(name).join(attribute))?;
        let written = file.write(bytes)?;
        if written != bytes.len() {
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                "the kernel took a part of the report data",
            ));
        }
        Ok(())
    }
}
