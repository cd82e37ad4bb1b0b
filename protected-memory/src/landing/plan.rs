//! What is to land: names and sizes, all known before the first byte.

use super::{FileName, LandingError};
use crate::HUGE_PAGE_BYTES;

/// The most files of one landing.
pub const LANDING_MAX_FILES: usize = 4096;

/// The largest landing: what a file offset can express.
const LANDING_MAX_BYTES: u64 = i64::MAX as u64;

/// The files of one landing with their final sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LandingPlan {
    files: Vec<PlannedFile>,
    tmpfs_bytes: u64,
}

/// One file of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlannedFile {
    pub(crate) name: FileName,
    pub(crate) size: u64,
}

impl LandingPlan {
    /// Makes a plan from names and sizes in bytes. The order gives the index of each file.
    ///
    /// # Errors
    ///
    /// No file at all, more than [`LANDING_MAX_FILES`], a name used twice, or sizes whose sum overflows.
    pub fn new(files: impl IntoIterator<Item = (FileName, u64)>) -> Result<Self, LandingError> {
        let refuse = |reason| Err(LandingError::InvalidPlan { reason });
        let mut planned: Vec<PlannedFile> = Vec::new();
        let mut tmpfs_bytes = HUGE_PAGE_BYTES as u64;
        for (name, size) in files {
            // GUARD: plan-file-count -> evil_file_count_is_refused
            if planned.len() == LANDING_MAX_FILES {
                return refuse("more than 4096 files");
            }
            // GUARD: plan-name-twice -> evil_name_used_twice_is_refused
            if planned.iter().any(|file| file.name == name) {
                return refuse("a file name is used twice");
            }
            let total = size
                .checked_next_multiple_of(HUGE_PAGE_BYTES as u64)
                .and_then(|size| size.checked_add(tmpfs_bytes));
            let Some(total) = total.filter(|total| *total <= LANDING_MAX_BYTES) else {
                return refuse("the sum of the sizes overflows");
            };
            tmpfs_bytes = total;
            planned.push(PlannedFile { name, size });
        }
        if planned.is_empty() {
            return refuse("no file");
        }
        Ok(Self { files: planned, tmpfs_bytes })
    }

    /// The bytes that the landing takes from the machine's memory: whole huge pages.
    pub fn needed_bytes(&self) -> u64 {
        self.tmpfs_bytes
    }

    pub(crate) fn files(&self) -> &[PlannedFile] {
        &self.files
    }
}

#[cfg(test)]
mod tests;
