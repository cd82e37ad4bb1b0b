//! A blob that is being written.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::Errno;

use super::{Store, StoredBlob, blob_path, partial_path};
use crate::registry::digest::{Digest, Hasher};
use crate::registry::error::RegistryError;

/// Piece in which a part is read back.
const PIECE: usize = 1 << 20;

/// What [`Store::begin`] found.
#[derive(Debug)]
pub enum Begun {
    /// Somebody else is writing this blob now.
    Busy,
    /// The blob's part, with what is there of it.
    Partial(Box<Partial>),
    /// The blob is there by now.
    Whole,
}

/// The part of a blob that is there. Dropped, it stays for the next attempt.
#[derive(Debug)]
pub struct Partial {
    file: File,
    digest: Digest,
    size: u64,
    offset: u64,
    hasher: Hasher,
    path: String,
    root: std::path::PathBuf,
}

impl Store {
    /// Begins or continues a blob, alone: what is there of it is read and hashed.
    ///
    /// # Errors
    ///
    /// `STORE_IO`, `STORE_SPACE`.
    pub fn begin(&self, digest: &Digest, size: u64) -> Result<Begun, RegistryError> {
        let path = partial_path(digest);
        let failed = |purpose| RegistryError::store(purpose, self.root.join(&path));
        let file = self.file(&path, OFlags::RDWR | OFlags::CREATE)?;
        let file = file.ok_or_else(|| failed("create")(Errno::NOENT.into()))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Begun::Busy),
            Err(error) => return Err(failed("lock")(error.into())),
        }
        // Who held the lock before may have finished or removed it.
        if !self.is_at(&file, &path) {
            return Ok(Begun::Busy);
        }
        if self.is_there(digest, size)? {
            self.remove(&path)?;
            return Ok(Begun::Whole);
        }
        let root = self.root.clone();
        let mut partial =
            Partial { file, digest: *digest, size, offset: 0, hasher: digest.hasher(), path, root };
        partial.resume()?;
        partial.allocate()?;
        Ok(Begun::Partial(Box::new(partial)))
    }
}

impl Partial {
    /// Digest of the whole blob.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Size of the whole blob.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes are there.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Forgets what is there.
    ///
    /// # Errors
    ///
    /// `STORE_IO`.
    pub fn reset(&mut self) -> Result<(), RegistryError> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(self.failed("empty"))?;
        self.offset = 0;
        self.hasher = self.digest.hasher();
        Ok(())
    }

    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// `REGISTRY_TOO_LARGE` for more than the blob's size, `STORE_SPACE`, `STORE_IO`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        // GUARD: partial-size -> evil_part_grows_beyond_its_size
        if length > self.size - self.offset {
            return Err(RegistryError::TooLarge { what: "blob", maximum: self.size, found: self.size + 1 });
        }
        if let Err(error) = self.file.write_all(bytes) {
            // The next attempt starts where bytes and hash agree.
            let _ = self.file.set_len(self.offset);
            return Err(if error.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) {
                RegistryError::Space { needs: self.size - self.offset, has: 0 }
            } else {
                self.failed("write")(error)
            });
        }
        self.hasher.update(bytes);
        self.offset += length;
        Ok(())
    }

    /// Refuses what is there, if it is not the blob.
    ///
    /// # Errors
    ///
    /// `REGISTRY_DIGEST`.
    pub fn verify(&self) -> Result<(), RegistryError> {
        self.digest.require("blob", &self.hasher.clone().finish())
    }

    /// Gives the blob its name, if all of it is there and its digest is right.
    ///
    /// # Errors
    ///
    /// `REGISTRY_DIGEST`; `STORE_IO`.
    pub fn finish(self, store: &Store) -> Result<StoredBlob, RegistryError> {
        // GUARD: store-finish-verified -> a_part_gets_no_name
        self.verify()?;
        // Before the name is there, the bytes are: a crash leaves a part.
        self.file.sync_all().map_err(self.failed("sync"))?;
        let path = blob_path(&self.digest);
        rustix::fs::renameat(&store.directory, &self.path, &store.directory, &path)
            .map_err(|error| self.failed("rename")(error.into()))?;
        for directory in [format!("blobs/{}", self.digest.algorithm()), "partial".to_owned()] {
            store.sync(&directory)?;
        }
        store.lock(&self.file, FlockOperation::LockShared, &path)?;
        store.hashed().insert(self.digest);
        Ok(StoredBlob::new(self.file, self.digest, self.size, store.root.join(path)))
    }

    fn resume(&mut self) -> Result<(), RegistryError> {
        let length = self.file.metadata().map_err(self.failed("look at"))?.len();
        if length > self.size {
            return self.reset();
        }
        let mut buffer = vec![0; PIECE];
        loop {
            let room = buffer.len().min(usize::try_from(self.size - self.offset).unwrap_or(usize::MAX));
            let count =
                self.file.read(buffer.get_mut(..room).unwrap_or_default()).map_err(self.failed("read"))?;
            if count == 0 {
                break;
            }
            self.hasher.update(buffer.get(..count).unwrap_or_default());
            self.offset += u64::try_from(count).unwrap_or(u64::MAX);
        }
        // Whatever else was appended meanwhile is cut off.
        self.file.set_len(self.offset).map_err(self.failed("cut"))?;
        self.file.seek(SeekFrom::Start(self.offset)).map(drop).map_err(self.failed("seek"))
    }

    /// Takes the space now, without making the part look longer.
    fn allocate(&self) -> Result<(), RegistryError> {
        if self.size == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, self.size) {
            Err(Errno::NOSPC) => Err(RegistryError::Space { needs: self.size - self.offset, has: 0 }),
            // Not all file systems can: then the space that was looked at has to do.
            _ => Ok(()),
        }
    }

    fn failed(&self, purpose: &'static str) -> impl FnOnce(std::io::Error) -> RegistryError + use<> {
        RegistryError::store(purpose, self.root.join(&self.path))
    }
}
