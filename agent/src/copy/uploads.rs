//! Files of which more pieces are to come.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::CopyError;
use super::place::{Target, size};

/// Files that are not complete, at one time.
pub(super) const MAXIMUM_FILES: usize = 64;
/// Bytes that they were said to have, in all.
const MAXIMUM_BYTES: u64 = 4 << 30;
/// How long the next piece may take. Runtimes send one behind the other.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// By place.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    files: HashMap<PathBuf, Upload>,
}

#[derive(Debug)]
struct Upload {
    target: Target,
    file: File,
    length: u64,
    /// Bytes that are there.
    filled: u64,
    touched: Instant,
}

impl Uploads {
    /// Whoever stopped sending is not waited for.
    pub(super) fn forget_old(&mut self, now: Instant) {
        self.files.retain(|_, upload| now.duration_since(upload.touched) < PATIENCE);
    }

    /// What comes now is something else.
    pub(super) fn forget(&mut self, place: &Path) {
        self.files.remove(place);
    }

    /// Takes a piece; returns the file if it is the last one. After an error nothing is left of the file.
    pub(super) fn take(
        &mut self,
        shared: &Path,
        target: &Target,
        length: u64,
        offset: u64,
        data: &[u8],
        now: Instant,
    ) -> Result<Option<OwnedFd>, CopyError> {
        let before = self.files.remove(&target.place);
        let mut upload = match before {
            Some(upload) if offset != 0 => upload,
            // A file begins with its first piece, whatever was begun before.
            _ => self.begin(shared, target, length, now)?,
        };
        // GUARD: copy-same-file -> evil_host_changes_the_file_on_the_way
        if upload.length != length || upload.target != *target {
            return Err(CopyError::Length { what: "the same length, mode and owner in all pieces" });
        }
        // GUARD: copy-in-order -> evil_host_overlapping_pieces
        if upload.filled != offset {
            return Err(CopyError::Offset { expected: upload.filled, found: offset });
        }
        upload.file.write_all_at(data, offset).map_err(CopyError::io("write the file"))?;
        upload.filled += data.len() as u64;
        upload.touched = now;
        if upload.filled < upload.length {
            self.files.insert(target.place.clone(), upload);
            return Ok(None);
        }
        let file = OwnedFd::from(upload.file);
        let found = size(&file)?;
        if found != length {
            return Err(CopyError::Length { what: "what was written" });
        }
        Ok(Some(file))
    }

    fn begin(&self, shared: &Path, target: &Target, length: u64, now: Instant) -> Result<Upload, CopyError> {
        // GUARD: copy-files-at-once -> evil_host_files_that_are_never_complete
        if self.files.len() >= MAXIMUM_FILES {
            return Err(CopyError::Many { maximum: MAXIMUM_FILES as u64, what: "files" });
        }
        let promised = self.files.values().map(|upload| upload.length).sum::<u64>().saturating_add(length);
        // GUARD: copy-bytes-at-once -> evil_host_files_that_are_never_complete
        if promised > MAXIMUM_BYTES {
            return Err(CopyError::Many { maximum: MAXIMUM_BYTES, what: "bytes of files" });
        }
        let file = File::from(target.nameless(shared)?);
        Ok(Upload { target: target.clone(), file, length, filled: 0, touched: now })
    }
}
