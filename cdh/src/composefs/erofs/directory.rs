//! Directories as sorted entries in blocks.

use super::BLOCK;
use super::node::FileType;

/// Bytes of an entry without its name: number of the inode, place of the name, type, one reserved.
pub(super) const ENTRY: u64 = 12;
/// Longest rest that lies beside the inode. A longer one has a block.
const TAIL_MAX: u64 = BLOCK / 2;

/// One name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    /// Number of the inode.
    pub(super) node: u32,
    pub(super) kind: FileType,
}

/// The entries of a directory, itself and its parent among them, and how they are cut.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory<'a> {
    /// Those that fill blocks.
    pub(super) blocks: Vec<Vec<Entry<'a>>>,
    /// Those beside the inode.
    pub(super) tail: Vec<Entry<'a>>,
    /// Bytes of all blocks and of the tail.
    pub(super) size: u64,
    /// How many of them are directories.
    pub(super) links: u32,
}

impl<'a> Directory<'a> {
    /// Sorts and cuts them.
    pub(super) fn new(mut entries: Vec<Entry<'a>>) -> Self {
        entries.sort_unstable_by_key(|entry| entry.name);
        let mut directory = Self::default();
        let mut used = 0;
        for entry in entries {
            if entry.kind == FileType::Directory {
                directory.links += 1;
            }
            let bytes = ENTRY + entry.name.len() as u64;
            if used + bytes > BLOCK {
                directory.blocks.push(std::mem::take(&mut directory.tail));
                used = 0;
            }
            used += bytes;
            directory.tail.push(entry);
        }
        if used > TAIL_MAX {
            directory.blocks.push(std::mem::take(&mut directory.tail));
            used = 0;
        }
        directory.size = directory.blocks.len() as u64 * BLOCK + used;
        directory
    }
}
