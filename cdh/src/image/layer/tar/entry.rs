//! What an archive says about one file.

use std::collections::BTreeMap;

use crate::image::tree::Timestamp;

/// One entry of an archive, as the archive says it: its name has not been looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits: `0o7777` at most.
    pub mode: u16,
    /// Owner: below `u32::MAX`, which is nobody.
    pub uid: u32,
    /// Group: below `u32::MAX`.
    pub gid: u32,
    /// When it was changed.
    pub mtime: Timestamp,
    /// Extended attributes: all that the archive has.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A block device.
    BlockDevice(u32, u32),
    /// A character device.
    CharDevice(u32, u32),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// One more name for the file at this path.
    HardLink(Vec<u8>),
    /// A file of this length, holes included.
    Regular(u64),
    /// A symbolic link to this path.
    Symlink(Vec<u8>),
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// These bytes.
    Data(&'a [u8]),
    /// So many zeros, which the archive does not hold.
    Hole(u64),
}
