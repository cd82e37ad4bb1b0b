//! Removing what nobody uses.

use std::collections::HashSet;
use std::fs::File;

use rustix::fs::{Dir, FlockOperation, OFlags};

use super::{Store, blob_path};
use crate::registry::digest::Digest;
use crate::registry::error::RegistryError;

/// Most directory entries that are looked at; a store has fewer.
const ENTRIES_MAX: usize = 1 << 20;

/// What a collection left and removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that are left.
    pub entries: usize,
    /// Bytes that are left, parts of blobs among them.
    pub bytes: u64,
    /// Blobs and parts that were removed.
    pub removed: usize,
    /// Their bytes.
    pub removed_bytes: u64,
}

struct Entry {
    path: String,
    size: u64,
    /// Seconds and nanoseconds of the last use.
    used: (i64, i64),
    is_part: bool,
    kept: bool,
}

impl Store {
    /// Removes until at most `bytes` and `entries` are left, what was used longest ago first, parts before blobs. What is in use or
    /// in `keep` stays.
    pub(super) fn collect_to(
        &self,
        keep: &HashSet<Digest>,
        bytes: u64,
        entries: usize,
    ) -> Result<Collected, RegistryError> {
        let mut found = self.entries(keep)?;
        found.sort_by_key(|entry| (!entry.is_part, entry.used));
        let mut left = Collected {
            entries: found.iter().filter(|entry| !entry.is_part).count(),
            bytes: found.iter().fold(0, |sum, entry| sum.saturating_add(entry.size)),
            ..Collected::default()
        };
        for entry in found.iter().filter(|entry| !entry.kept) {
            if left.bytes <= bytes && left.entries <= entries {
                break;
            }
            if self.remove_unused(&entry.path)? {
                left.entries -= usize::from(!entry.is_part);
                left.bytes -= entry.size;
                left.removed += 1;
                left.removed_bytes += entry.size;
            }
        }
        Ok(left)
    }

    /// Removes these blobs, but for those that somebody has in use.
    ///
    /// # Errors
    ///
    /// `STORE_IO`.
    pub fn discard(&self, blobs: &[Digest]) -> Result<(), RegistryError> {
        for blob in blobs {
            self.remove_unused(&blob_path(blob))?;
        }
        Ok(())
    }

    fn remove_unused(&self, path: &str) -> Result<bool, RegistryError> {
        let Ok(Some(file)) = self.file(path, OFlags::RDONLY) else { return Ok(false) };
        // GUARD: store-in-use -> blobs_in_use_are_not_collected
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(false);
        }
        self.remove(path)?;
        Ok(true)
    }

    fn entries(&self, keep: &HashSet<Digest>) -> Result<Vec<Entry>, RegistryError> {
        let kept: HashSet<String> = keep.iter().map(blob_path).collect();
        let kept_parts: HashSet<String> = keep.iter().map(super::partial_path).collect();
        let mut entries = Vec::new();
        for (name, is_part) in [("blobs/sha256", false), ("blobs/sha512", false), ("partial", true)] {
            let Some(directory) = self.file(name, OFlags::RDONLY | OFlags::DIRECTORY)? else { continue };
            self.list(name, &directory, |path, size, used| {
                let kept = kept.contains(&path) || kept_parts.contains(&path);
                entries.push(Entry { path, size, used, is_part, kept });
                entries.len() <= ENTRIES_MAX
            })?;
        }
        Ok(entries)
    }

    fn list(
        &self,
        name: &str,
        directory: &File,
        mut take: impl FnMut(String, u64, (i64, i64)) -> bool,
    ) -> Result<(), RegistryError> {
        let failed =
            |error: rustix::io::Errno| RegistryError::store("list", self.root.join(name))(error.into());
        for entry in Dir::read_from(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Names of blobs are plain; others are nobody's.
            let Ok(file_name) = entry.file_name().to_str() else { continue };
            if matches!(file_name, "." | "..") {
                continue;
            }
            let path = format!("{name}/{file_name}");
            let Ok(Some(file)) = self.file(&path, OFlags::RDONLY) else { continue };
            let Ok(found) = rustix::fs::fstat(&file) else { continue };
            let size = u64::try_from(found.st_size).unwrap_or(0);
            let nanoseconds = i64::try_from(found.st_mtime_nsec).unwrap_or(0);
            if !take(path, size, (found.st_mtime, nanoseconds)) {
                break;
            }
        }
        Ok(())
    }
}
