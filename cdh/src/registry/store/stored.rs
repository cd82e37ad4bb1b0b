//! A blob that is there.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use crate::registry::digest::{Digest, Hasher};
use crate::registry::error::RegistryError;

const PIECE: usize = 1 << 20;

/// A blob that was whole and right when it was opened. It is not collected while this is held.
#[derive(Debug)]
pub struct StoredBlob {
    file: File,
    digest: Digest,
    size: u64,
    path: PathBuf,
}

impl StoredBlob {
    pub(super) fn new(file: File, digest: Digest, size: u64, path: PathBuf) -> Self {
        Self { file, digest, size, path }
    }

    /// Its digest.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The open file. What is read of it is as trustworthy as the disk.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Reads all of it once, hashing what it hands out.
    #[must_use]
    pub fn reader(&self) -> VerifiedReader<'_> {
        VerifiedReader { blob: self, offset: 0, hasher: Some(self.digest.hasher()) }
    }

    pub(super) fn has_its_size(&self) -> Result<bool, RegistryError> {
        let found = self.file.metadata().map_err(RegistryError::store("look at", &self.path))?.len();
        Ok(found == self.size)
    }

    pub(super) fn has_its_digest(&self) -> Result<bool, RegistryError> {
        let mut reader = self.reader();
        let mut buffer = vec![0; PIECE];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(false),
                Err(error) => return Err(RegistryError::store("read", &self.path)(error)),
            }
        }
    }

    pub(super) fn touch(&self) -> rustix::io::Result<()> {
        let at = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let times = Timestamps { last_access: at(UTIME_OMIT), last_modification: at(UTIME_NOW) };
        rustix::fs::futimens(&self.file, &times)
    }
}

/// The bytes of a blob. They are authentic when the reader said that they end: a changed blob ends in an error of kind
/// `InvalidData` instead, whose inner error has the code `STORE_DIGEST`.
#[derive(Debug)]
pub struct VerifiedReader<'a> {
    blob: &'a StoredBlob,
    offset: u64,
    hasher: Option<Hasher>,
}

impl Read for VerifiedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let left = usize::try_from(self.blob.size - self.offset).unwrap_or(usize::MAX);
        let room = buffer.len().min(left);
        let part = buffer.get_mut(..room).unwrap_or_default();
        let count = if room == 0 { 0 } else { self.blob.file.read_at(part, self.offset)? };
        if count > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(part.get(..count).unwrap_or_default());
            }
            self.offset += u64::try_from(count).unwrap_or(u64::MAX);
            return Ok(count);
        }
        let refused = |found: String| {
            let expected = self.blob.digest;
            io::Error::new(io::ErrorKind::InvalidData, RegistryError::Stored { expected, found })
        };
        if self.offset < self.blob.size {
            return Err(refused(format!("{} of {} bytes", self.offset, self.blob.size)));
        }
        let Some(hasher) = self.hasher.take() else { return Ok(0) };
        let found = hasher.finish();
        // GUARD: store-read-digest -> evil_host_changes_a_blob_that_is_read
        if found != self.blob.digest {
            return Err(refused(found.to_string()));
        }
        Ok(0)
    }
}
