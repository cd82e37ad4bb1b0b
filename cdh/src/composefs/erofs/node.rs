//! The inodes of an image before it is known where they lie.

use super::attributes::Table;
use super::directory::Directory;
use crate::image::tree::Timestamp;

/// What a directory entry says of the inode that it names (`EROFS_FT_*`), with the type bits of a mode (`S_IFMT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileType {
    Regular,
    Directory,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
    Symlink,
}

impl FileType {
    pub(super) const fn entry(self) -> u8 {
        match self {
            Self::Regular => 1,
            Self::Directory => 2,
            Self::CharDevice => 3,
            Self::BlockDevice => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
            Self::Symlink => 7,
        }
    }

    pub(super) const fn mode(self) -> u16 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::CharDevice => 0o020_000,
            Self::BlockDevice => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
            Self::Symlink => 0o120_000,
        }
    }
}

/// What an inode holds.
#[derive(Clone, Debug)]
pub(super) enum Body<'a> {
    Directory(Directory<'a>),
    /// A regular file's bytes.
    Inline(&'a [u8]),
    /// A regular file of this length, whose bytes are an object.
    Object(u64),
    Symlink(&'a [u8]),
    /// A device with its number as Linux encodes it, a pipe or a socket with 0.
    Special(FileType, u32),
}

/// One inode.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    pub(super) body: Body<'a>,
    /// Permissions, without the type.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timestamp,
    /// How many names lead to it. What a directory says of itself is in its body.
    pub(super) names: u32,
    /// Which of the table's attributes it has. In the table's order once that is known.
    pub(super) attributes: Vec<u32>,
}

impl Node<'_> {
    pub(super) const fn file_type(&self) -> FileType {
        match &self.body {
            Body::Directory(_) => FileType::Directory,
            Body::Inline(_) | Body::Object(_) => FileType::Regular,
            Body::Symlink(_) => FileType::Symlink,
            Body::Special(kind, _) => *kind,
        }
    }

    pub(super) const fn size(&self) -> u64 {
        match &self.body {
            Body::Directory(directory) => directory.size,
            Body::Inline(bytes) | Body::Symlink(bytes) => bytes.len() as u64,
            Body::Object(size) => *size,
            Body::Special(..) => 0,
        }
    }

    pub(super) const fn links(&self) -> u32 {
        match &self.body {
            Body::Directory(directory) => directory.links,
            _ => self.names,
        }
    }

    /// The moment as the image's inodes hold it, and as images order it: without a sign.
    pub(super) const fn moment(&self) -> (u64, u32) {
        (self.mtime.seconds.cast_unsigned(), self.mtime.nanoseconds)
    }
}

/// All inodes by their number, which is their place here, and the attributes that they have.
#[derive(Debug)]
pub(super) struct Collected<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) table: Table<'a>,
    /// The least moment of all inodes, which short inodes share.
    pub(super) epoch: (u64, u32),
}
