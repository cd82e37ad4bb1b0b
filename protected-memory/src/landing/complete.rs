//! The state of a landing after its last writer: verified, read-only, and wiped at its end.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::AsFd;

use rustix::fs::{Mode, fchmod, fstat};
use rustix::io::Errno;

use super::file::{FileRecord, wipe_through_descriptor};
use super::tmpfs::PrivateTmpfs;
use super::{Landing, LandingError};
use crate::HUGE_PAGE_BYTES;
use crate::sys::mapping::Mapping;

/// The state in which nobody can write and the landing can be attached.
pub struct Complete {
    pub(super) files: Vec<FileRecord>,
    pub(super) tmpfs: PrivateTmpfs,
    pub(super) wiped: bool,
}

impl Complete {
    pub(super) fn record(&self, index: usize) -> Result<&FileRecord, LandingError> {
        self.files.get(index).ok_or(LandingError::UnknownFile { index, count: self.files.len() })
    }

    /// The file has its planned size and cannot be opened for writing.
    pub(super) fn verify_file(&self, index: usize) -> Result<(), LandingError> {
        let FileRecord { name, size, .. } = self.record(index)?;
        let file = self.tmpfs.open_file(name).map_err(LandingError::system("opening of the landed file"))?;
        let stat = fstat(&file).map_err(LandingError::system("stat of the landed file"))?;
        let found = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        // GUARD: landed-size -> evil_device_truncates_landing_is_refused
        if found != *size {
            return Err(LandingError::DeviceChangedSize { name: name.to_string(), expected: *size, found });
        }
        let writable = self.tmpfs.open_file_writable(name).map_err(|error| Errno::from_io_error(&error));
        // GUARD: superblock-refuses-writers -> superblock_that_is_still_writable_is_refused
        if !matches!(writable, Err(Some(Errno::ROFS))) {
            return Err(LandingError::SuperblockWritable);
        }
        Ok(())
    }

    pub(super) fn wipe(&mut self) -> Result<(), LandingError> {
        if self.wiped {
            return Ok(());
        }
        self.tmpfs.make_writable().map_err(LandingError::wipe("remount of the superblock writable"))?;
        let results: Vec<_> = self.files.iter().map(|file| self.wipe_file(file)).collect();
        self.wiped = true;
        results.into_iter().collect()
    }

    fn wipe_file(&self, record: &FileRecord) -> Result<(), LandingError> {
        let step = "opening of a landed file";
        let file = self.tmpfs.open_file(&record.name).map_err(LandingError::wipe(step))?;
        fchmod(&file, Mode::RUSR | Mode::WUSR)
            .map_err(LandingError::wipe("change of a landed file's mode"))?;
        let file = self.tmpfs.open_file_writable(&record.name).map_err(LandingError::wipe(step))?;
        // Mapped, at memory speed; but a device that kept its descriptor could shorten the file under a mapping.
        let len = usize::try_from(record.size).unwrap_or(0);
        if len > 0
            && !record.given_to_device
            && let Ok(mut mapping) = Mapping::writable(file.as_fd(), len, HUGE_PAGE_BYTES)
        {
            mapping.wipe();
            return Ok(());
        }
        wipe_through_descriptor(&file, record.size)
            .map_err(LandingError::wipe("overwriting of a landed file"))
    }
}

impl Drop for Complete {
    fn drop(&mut self) {
        // GUARD: wipe-after-refusal -> evil_device_keeps_mapping_is_refused_and_wiped
        let _ = self.wipe();
    }
}

impl fmt::Debug for Complete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Complete").field("files", &self.files).finish_non_exhaustive()
    }
}

/// A landed file, mapped for reading.
pub struct LandedBytes<'a> {
    pub(super) mapping: Option<Mapping>,
    pub(super) landing: PhantomData<&'a Landing<Complete>>,
}

impl LandedBytes<'_> {
    /// The contents.
    pub fn bytes(&self) -> &[u8] {
        self.mapping.as_ref().map(Mapping::bytes).unwrap_or_default()
    }
}

impl fmt::Debug for LandedBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LandedBytes(..)")
    }
}
