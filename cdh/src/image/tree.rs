//! A file tree as data: what the layers of an image make, before anything of it touches a file system.
//!
//! Names, owners, modes, devices and extended attributes are values here, so that whoever unpacks an image needs no privilege and
//! can escape from nowhere. Contents above [`INLINE_MAX`] are objects that are known by their fs-verity digest; the tree itself
//! becomes the metadata image of a composefs.

use std::collections::BTreeMap;

/// Longest content that lies in the metadata image itself, in bytes (composefs, `INLINE_CONTENT_MAX_V0`). Longer ones are objects.
pub const INLINE_MAX: usize = 64;
/// Longest name of a directory entry, in bytes (Linux, `NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// Longest target of a symbolic link, in bytes (Linux, `PATH_MAX` with its NUL).
pub const TARGET_MAX: usize = 4095;

/// The SHA-256 fs-verity digest of a file's content: the name of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub [u8; 32]);

/// A moment as tar and file systems tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds, below 10⁹.
    pub nanoseconds: u32,
}

/// What every inode has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with set-id and sticky bits: `0o7777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was changed.
    pub mtime: Timestamp,
    /// Extended attributes by their full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a regular file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// At most [`INLINE_MAX`] bytes.
    Inline(Box<[u8]>),
    /// An object.
    Object {
        /// Its fs-verity digest.
        id: ObjectId,
        /// Its length in bytes, above [`INLINE_MAX`].
        size: u64,
    },
}

/// What an inode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Entries by name; names are neither empty, `.` nor `..`, hold no `/` or NUL, and have at most [`NAME_MAX`] bytes.
    Directory(BTreeMap<Box<[u8]>, InodeId>),
    /// A regular file.
    Regular(Content),
    /// A symbolic link: 1 to [`TARGET_MAX`] bytes without NUL.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// One inode. Several names may lead to one that is no directory (hard links).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Owner, mode, times, attributes.
    pub metadata: Metadata,
    /// What it is.
    pub kind: Kind,
}

/// Which inode of a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(u32);

/// Why a change of a tree was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A name that no directory can hold.
    #[error("expected a file name of 1 to {NAME_MAX} bytes without `/`, other than `.` and `..`")]
    Name,
    /// The parent is no directory.
    #[error("expected a directory as parent, found something else")]
    NotADirectory,
    /// A directory would have a second name.
    #[error("expected something other than a directory to link to")]
    LinkToDirectory,
    /// Too many inodes.
    #[error("expected at most {0} inodes")]
    TooMany(u32),
}

/// The tree. It has a root directory from the start; each other inode is reachable through it or was removed.
#[derive(Clone, Debug)]
pub struct Tree {
    inodes: Vec<Option<Inode>>,
    links: Vec<u32>,
    free: Vec<u32>,
    limit: u32,
}

impl Tree {
    /// The root directory.
    pub const ROOT: InodeId = InodeId(0);

    /// A root directory, and room for this many inodes at most, itself among them.
    #[must_use]
    pub fn new(root: Metadata, limit: u32) -> Self {
        let root = Inode { metadata: root, kind: Kind::Directory(BTreeMap::new()) };
        Self { inodes: vec![Some(root)], links: vec![1], free: Vec::new(), limit }
    }

    /// An inode of this tree; `None` once it was removed.
    #[must_use]
    pub fn get(&self, id: InodeId) -> Option<&Inode> {
        self.inodes.get(id.0 as usize)?.as_ref()
    }

    /// The metadata of an inode, to be changed.
    pub fn metadata_mut(&mut self, id: InodeId) -> Option<&mut Metadata> {
        Some(&mut self.inodes.get_mut(id.0 as usize)?.as_mut()?.metadata)
    }

    /// How many names lead to it: 1 for each directory.
    #[must_use]
    pub fn names(&self, id: InodeId) -> u32 {
        self.links.get(id.0 as usize).copied().unwrap_or(0)
    }

    /// How many inodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inodes.len() - self.free.len()
    }

    /// Never: there is always a root.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The entries of a directory, in order of their bytes; `None` for anything else.
    #[must_use]
    pub fn entries(&self, directory: InodeId) -> Option<&BTreeMap<Box<[u8]>, InodeId>> {
        match &self.get(directory)?.kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    /// What this name in this directory leads to.
    #[must_use]
    pub fn child(&self, directory: InodeId, name: &[u8]) -> Option<InodeId> {
        self.entries(directory)?.get(name).copied()
    }

    /// Puts a new inode at a name. What was there, with everything below it, is removed first.
    ///
    /// # Errors
    ///
    /// See [`TreeError`]; the tree is unchanged then.
    pub fn insert(&mut self, directory: InodeId, name: &[u8], inode: Inode) -> Result<InodeId, TreeError> {
        self.check(directory, name)?;
        // GUARD: tree-inodes-bounded -> a_tree_is_bounded
        if self.free.is_empty() && self.inodes.len() >= self.limit as usize {
            return Err(TreeError::TooMany(self.limit));
        }
        self.remove(directory, name);
        let id = match self.free.pop() {
            Some(index) => {
                let slot = index as usize;
                if let (Some(place), Some(links)) = (self.inodes.get_mut(slot), self.links.get_mut(slot)) {
                    (*place, *links) = (Some(inode), 1);
                }
                InodeId(index)
            }
            None => {
                let index = u32::try_from(self.inodes.len()).map_err(|_| TreeError::TooMany(self.limit))?;
                self.inodes.push(Some(inode));
                self.links.push(1);
                InodeId(index)
            }
        };
        self.put(directory, name, id);
        Ok(id)
    }

    /// Gives an inode that is no directory one more name. What was at that name is removed first, unless it is that inode.
    ///
    /// # Errors
    ///
    /// See [`TreeError`]; the tree is unchanged then.
    pub fn link(&mut self, directory: InodeId, name: &[u8], target: InodeId) -> Result<(), TreeError> {
        self.check(directory, name)?;
        if self.get(target).is_none_or(|inode| matches!(inode.kind, Kind::Directory(_))) {
            return Err(TreeError::LinkToDirectory);
        }
        if self.child(directory, name) == Some(target) {
            return Ok(());
        }
        // The name may be another one of the target's last, so the target is counted before anything is removed.
        if let Some(links) = self.links.get_mut(target.0 as usize) {
            *links += 1;
        }
        self.remove(directory, name);
        self.put(directory, name, target);
        Ok(())
    }

    /// Removes a name, and what no name leads to any more. Whether there was one.
    pub fn remove(&mut self, directory: InodeId, name: &[u8]) -> bool {
        let Some(Inode { kind: Kind::Directory(entries), .. }) =
            self.inodes.get_mut(directory.0 as usize).and_then(Option::as_mut)
        else {
            return false;
        };
        let Some(first) = entries.remove(name) else { return false };
        let mut unnamed = vec![first];
        while let Some(id) = unnamed.pop() {
            let slot = id.0 as usize;
            let Some(links) = self.links.get_mut(slot) else { continue };
            *links = links.saturating_sub(1);
            if *links > 0 {
                continue;
            }
            if let Some(gone) = self.inodes.get_mut(slot).and_then(Option::take) {
                self.free.push(id.0);
                if let Kind::Directory(entries) = gone.kind {
                    unnamed.extend(entries.into_values());
                }
            }
        }
        true
    }

    fn check(&self, directory: InodeId, name: &[u8]) -> Result<(), TreeError> {
        let fits = !name.is_empty()
            && name.len() <= NAME_MAX
            && name != b"."
            && name != b".."
            && !name.iter().any(|byte| matches!(byte, b'/' | 0));
        // GUARD: tree-names -> evil_layer_names_that_no_directory_holds
        if !fits {
            return Err(TreeError::Name);
        }
        match self.entries(directory) {
            Some(_) => Ok(()),
            None => Err(TreeError::NotADirectory),
        }
    }

    fn put(&mut self, directory: InodeId, name: &[u8], id: InodeId) {
        if let Some(Inode { kind: Kind::Directory(entries), .. }) =
            self.inodes.get_mut(directory.0 as usize).and_then(Option::as_mut)
        {
            entries.insert(name.into(), id);
        }
    }
}

#[cfg(test)]
mod tests;
