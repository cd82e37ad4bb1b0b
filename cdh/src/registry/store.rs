//! Blobs in a directory, by digest: what images share, and what is left of transfers that were cut off.
//!
//! ```text
//!  ROOT/blobs/sha256/<hex>     whole, and was verified before it got this name
//!  ROOT/partial/sha256-<hex>   being written by whoever holds its lock; read back and hashed before it is continued
//! ```
//!
//! A blob gets its name by a rename, after its digest was right and its bytes are on the disk; a process that is killed leaves a
//! part, never half a blob. What lies under a name is still only a claim: another process, or the host whose disk this is, may
//! have changed it. So a hit is hashed again ([`Trust`]), and [`StoredBlob::reader`] hashes what it hands out.
//!
//! Locks are `flock`: exclusive on a part that is written and on what is removed, shared on blobs that are in use.

mod collect;
mod partial;
mod stored;

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::digest::Digest;
use super::error::RegistryError;

pub use collect::Collected;
pub use partial::{Begun, Partial};
pub use stored::{StoredBlob, VerifiedReader};

/// Who could have changed what the store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Private memory or an authenticated disk of this guest: each blob is hashed at the first hit of this process.
    Private,
    /// A disk that the host can write: each blob is hashed at every hit.
    HostWritable,
}

/// Limits of a store.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Most bytes of all blobs and parts.
    pub bytes: u64,
    /// Most blobs.
    pub entries: usize,
    /// Bytes that stay free on the file system.
    pub keep_free: u64,
    /// Who else can write.
    pub trust: Trust,
    /// Whether what was used longest ago makes room for what is new.
    pub evict: bool,
}

impl Default for StoreOptions {
    /// 64 GiB, 16384 blobs, 64 MiB free, a disk that the host can write.
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            entries: 16_384,
            keep_free: 64 << 20,
            trust: Trust::HostWritable,
            evict: true,
        }
    }
}

/// A directory of blobs.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    directory: File,
    options: StoreOptions,
    /// Blobs that this process hashed, if nobody else can write.
    hashed: Mutex<HashSet<Digest>>,
}

const DIRECTORIES: [&str; 4] = ["blobs", "blobs/sha256", "blobs/sha512", "partial"];

impl Store {
    /// Opens a store, or makes one in a directory that exists.
    ///
    /// # Errors
    ///
    /// `STORE_IO`.
    pub fn open(root: &Path, options: StoreOptions) -> Result<Self, RegistryError> {
        let failed = || RegistryError::store("open the blob store", root);
        let directory = File::open(root).map_err(failed())?;
        for name in DIRECTORIES {
            match rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed()(error.into())),
            }
        }
        let store = Self { root: root.to_owned(), directory, options, hashed: Mutex::default() };
        for name in DIRECTORIES {
            store
                .file(name, OFlags::RDONLY | OFlags::DIRECTORY)?
                .ok_or_else(|| failed()(Errno::NOENT.into()))?;
        }
        Ok(store)
    }

    /// Its directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A blob, if it is there and is what its name says. A damaged one is removed.
    ///
    /// # Errors
    ///
    /// `STORE_IO`.
    pub fn get(&self, digest: &Digest, size: u64) -> Result<Option<StoredBlob>, RegistryError> {
        let path = blob_path(digest);
        let Some(file) = self.file(&path, OFlags::RDONLY)? else { return Ok(None) };
        self.lock(&file, FlockOperation::LockShared, &path)?;
        let blob = StoredBlob::new(file, *digest, size, self.root.join(&path));
        let known = self.options.trust == Trust::Private && self.hashed().contains(digest);
        let mut fits = blob.has_its_size()?;
        // GUARD: store-hit-hashed -> evil_host_changes_a_stored_blob
        if fits && !known {
            fits = blob.has_its_digest()?;
        }
        if !fits {
            self.remove(&path)?;
            return Ok(None);
        }
        self.hashed().insert(*digest);
        // The time of the last use decides what is collected first; a store that cannot be written is still read.
        let _ = blob.touch();
        Ok(Some(blob))
    }

    /// Stores bytes that are here already, and verifies them on the way.
    ///
    /// # Errors
    ///
    /// `REGISTRY_DIGEST`, `STORE_IO`, `STORE_SPACE`.
    pub fn insert(&self, digest: &Digest, bytes: &[u8]) -> Result<(), RegistryError> {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.get(digest, size)?.is_some() {
            return Ok(());
        }
        digest.verify("blob", bytes)?;
        self.prepare(&[(*digest, size)])?;
        match self.begin(digest, size)? {
            // Somebody else is writing the same bytes.
            Begun::Busy | Begun::Whole => Ok(()),
            Begun::Partial(mut partial) => {
                partial.reset()?;
                partial.write(bytes)?;
                partial.finish(self).map(drop)
            }
        }
    }

    /// Space for blobs: limits and disk are looked at before the first byte, and what was used longest ago is removed. Returns
    /// those that are not there.
    ///
    /// # Errors
    ///
    /// `STORE_SPACE`, saying what is needed and what is there; `REGISTRY_TOO_LARGE` for a limit of the store.
    pub fn prepare(&self, wanted: &[(Digest, u64)]) -> Result<Vec<(Digest, u64)>, RegistryError> {
        let mut missing = Vec::new();
        let mut seen = HashSet::new();
        for (digest, size) in wanted {
            if seen.insert(*digest) && !self.is_there(digest, *size)? {
                missing.push((*digest, *size));
            }
        }
        let needs = missing.iter().fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
        // GUARD: store-bytes -> evil_image_is_larger_than_the_store
        if needs > self.options.bytes {
            let (what, maximum) = ("blobs of an image", self.options.bytes);
            return Err(RegistryError::TooLarge { what, maximum, found: needs });
        }
        let room = (self.options.bytes - needs, self.options.entries.saturating_sub(missing.len()));
        let (bytes, entries) = if self.options.evict { room } else { (u64::MAX, usize::MAX) };
        let left = self.collect_to(&seen, bytes, entries)?;
        let resumed: u64 = missing.iter().map(|(digest, size)| self.part_size(digest).min(*size)).sum();
        let filled = left.bytes.saturating_sub(resumed).saturating_add(needs);
        // GUARD: store-bytes-left -> evil_image_is_larger_than_the_store
        if filled > self.options.bytes {
            let (what, maximum) = ("blobs in the store", self.options.bytes);
            return Err(RegistryError::TooLarge { what, maximum, found: filled });
        }
        let left_entries = left.entries + missing.len();
        // GUARD: store-entries -> evil_image_of_more_blobs_than_the_store
        if left_entries > self.options.entries {
            let (what, maximum) =
                ("blobs in the store", u64::try_from(self.options.entries).unwrap_or(u64::MAX));
            return Err(RegistryError::TooLarge {
                what,
                maximum,
                found: u64::try_from(left_entries).unwrap_or(u64::MAX),
            });
        }
        let needs = needs.saturating_sub(resumed).saturating_add(self.options.keep_free);
        let mut has = self.free()?;
        if has < needs && self.options.evict {
            self.collect_to(&seen, left.bytes.saturating_sub(needs - has), self.options.entries)?;
            has = self.free()?;
        }
        // GUARD: store-space -> fetching_needs_space_before_the_first_byte
        if has < needs {
            return Err(RegistryError::Space { needs, has });
        }
        Ok(missing)
    }

    /// Removes what is in no use and not among `keep`.
    ///
    /// # Errors
    ///
    /// `STORE_IO`.
    pub fn collect(&self, keep: &HashSet<Digest>) -> Result<Collected, RegistryError> {
        self.collect_to(keep, 0, 0)
    }

    fn free(&self) -> Result<u64, RegistryError> {
        let found = rustix::fs::fstatvfs(&self.directory)
            .map_err(|error| RegistryError::store("ask for the free space of", &self.root)(error.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn is_there(&self, digest: &Digest, size: u64) -> Result<bool, RegistryError> {
        let Some(file) = self.file(&blob_path(digest), OFlags::RDONLY)? else { return Ok(false) };
        let length = file.metadata().map_err(RegistryError::store("look at", &self.root))?.len();
        Ok(length == size)
    }

    fn part_size(&self, digest: &Digest) -> u64 {
        let part = self.file(&partial_path(digest), OFlags::RDONLY).ok().flatten();
        part.and_then(|file| file.metadata().ok()).map_or(0, |found| found.len())
    }

    fn hashed(&self) -> std::sync::MutexGuard<'_, HashSet<Digest>> {
        self.hashed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens something below the root: no links, no way out, no waiting for a pipe.
    fn file(&self, path: &str, flags: OFlags) -> Result<Option<File>, RegistryError> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut resolve = ResolveFlags::BENEATH;
        // GUARD: blob-store-links -> evil_host_puts_links_into_the_store
        resolve.insert(ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV);
        let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o600) } else { Mode::empty() };
        let failed = || RegistryError::store("open", self.root.join(path));
        let file = match rustix::fs::openat2(&self.directory, path, flags, mode, resolve) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed()(error.into())),
        };
        let metadata = file.metadata().map_err(failed())?;
        let fits = if flags.contains(OFlags::DIRECTORY) { metadata.is_dir() } else { metadata.is_file() };
        // GUARD: blob-store-files -> evil_host_puts_links_into_the_store
        if !fits {
            return Err(failed()(std::io::Error::other("expected a regular file, found something else")));
        }
        Ok(Some(file))
    }

    fn remove(&self, path: &str) -> Result<(), RegistryError> {
        match rustix::fs::unlinkat(&self.directory, path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(RegistryError::store("remove", self.root.join(path))(error.into())),
        }
    }

    fn lock(&self, file: &File, operation: FlockOperation, path: &str) -> Result<(), RegistryError> {
        rustix::fs::flock(file, operation)
            .map_err(|error| RegistryError::store("lock", self.root.join(path))(error.into()))
    }

    /// Whether `file` is what the path names now.
    fn is_at(&self, file: &File, path: &str) -> bool {
        let same = || {
            let open = rustix::fs::fstat(file).ok()?;
            let named = rustix::fs::statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            Some((open.st_dev, open.st_ino) == (named.st_dev, named.st_ino))
        };
        same().unwrap_or(false)
    }

    fn sync(&self, path: &str) -> Result<(), RegistryError> {
        let directory = self.file(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        directory
            .map_or(Ok(()), |directory| directory.sync_all())
            .map_err(RegistryError::store("sync", self.root.join(path)))
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn partial_path(digest: &Digest) -> String {
    format!("partial/{}-{}", digest.algorithm(), digest.hex())
}

#[cfg(test)]
mod tests;
