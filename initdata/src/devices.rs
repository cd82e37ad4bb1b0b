//! The block devices of this machine.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;

use crate::discovery::{DeviceName, Devices};

/// Block devices below a directory of device files.
#[derive(Clone, Debug)]
pub struct BlockDevices {
    directory: PathBuf,
}

impl BlockDevices {
    /// Those in `/dev`.
    #[must_use]
    pub fn system() -> Self {
        Self::below("/dev")
    }

    /// Those in another directory.
    #[must_use]
    pub fn below(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }
}

impl Devices for BlockDevices {
    type Device = File;

    fn list(&mut self) -> io::Result<Vec<DeviceName>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_str().and_then(DeviceName::parse);
            let is_device = || entry.file_type().is_ok_and(|kind| kind.is_block_device());
            names.extend(name.filter(|_| is_device()));
        }
        names.sort();
        Ok(names)
    }

    fn open(&mut self, name: &DeviceName) -> io::Result<File> {
        let device = File::open(self.directory.join(name.as_str()))?;
        if !device.metadata()?.file_type().is_block_device() {
            return Err(io::Error::other("no block device any more"));
        }
        Ok(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_block_devices_are_listed() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("vda"), b"initdata").unwrap();
        std::os::unix::fs::symlink("/dev/null", directory.path().join("vdb")).unwrap();
        let mut devices = BlockDevices::below(directory.path());
        assert_eq!(devices.list().unwrap(), []);
        let name = DeviceName::parse("vda").unwrap();
        assert!(devices.open(&name).is_err(), "a file is no device");
        assert!(BlockDevices::below(directory.path().join("absent")).list().is_err());
    }
}
