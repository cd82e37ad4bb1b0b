//! A tree in serial form, as the process that unpacks hands it over. Each tree has one form, and what is not exactly a form of a tree
//! is refused.
//!
//! ```text
//!  tree       b"IKTREE\0\x01" · metadata of the root · entries
//!  entries    u32 count · count × (u8 length · name · node)        names ascend by their bytes
//!  node       u8 0 · metadata · entries                             directory
//!             u8 1 · metadata · u8 length · bytes                   regular, inline
//!             u8 2 · metadata · 32 bytes of digest · u64 size       regular, object
//!             u8 3 · metadata · u16 length · bytes                  symbolic link
//!             u8 4 | 5 · metadata · u32 major · u32 minor           character | block device
//!             u8 6 | 7 · metadata                                   pipe | socket
//!             u8 8 · u32 n                                          one more name for the nth node that is no directory, from 0
//!  metadata   u16 mode · u32 uid · u32 gid · i64 seconds · u32 nanoseconds
//!             · u16 count · count × (u8 length · name · u16 length · value)   names ascend
//! ```
//!
//! Numbers are little-endian. A decoded tree holds what an [`Unpacker`](super::Unpacker) can make, and nothing else: no whiteouts, no
//! attributes that are not kept, no devices that Linux cannot have, no owner that is nobody, all within the same limits.

mod read;

use std::collections::HashMap;

use super::LayerError;
use crate::image::tree::{Content, Inode, InodeId, Kind, Metadata, Tree};

pub use self::read::decode;

/// What a serial tree begins with.
const MAGIC: &[u8; 8] = b"IKTREE\0\x01";

const DIRECTORY: u8 = 0;
const INLINE: u8 = 1;
const OBJECT: u8 = 2;
const SYMLINK: u8 = 3;
const CHAR_DEVICE: u8 = 4;
const BLOCK_DEVICE: u8 = 5;
const FIFO: u8 = 6;
const SOCKET: u8 = 7;
const LINK: u8 = 8;

/// The serial form of a tree.
///
/// # Errors
///
/// `LAYER_TREE_FORM` for a tree that has none: with a name, target or attribute that is too long.
pub fn encode(tree: &Tree) -> Result<Vec<u8>, LayerError> {
    let mut out = MAGIC.to_vec();
    let mut leaves = HashMap::new();
    let root = tree.get(Tree::ROOT).ok_or(too_long())?;
    metadata(&mut out, &root.metadata)?;
    entries(&mut out, tree, Tree::ROOT, &mut leaves)?;
    Ok(out)
}

/// Directories inside directories: the depth of paths bounds how deep this goes.
fn entries(
    out: &mut Vec<u8>,
    tree: &Tree,
    directory: InodeId,
    leaves: &mut HashMap<InodeId, u32>,
) -> Result<(), LayerError> {
    let Some(entries_of) = tree.entries(directory) else { return Err(too_long()) };
    out.extend(u32::try_from(entries_of.len()).map_err(|_| too_long())?.to_le_bytes());
    for (name, id) in entries_of {
        short(out, name)?;
        let inode = tree.get(*id).ok_or(too_long())?;
        if let Kind::Directory(_) = inode.kind {
            out.push(DIRECTORY);
            metadata(out, &inode.metadata)?;
            entries(out, tree, *id, leaves)?;
        } else if let Some(ordinal) = leaves.get(id) {
            out.push(LINK);
            out.extend(ordinal.to_le_bytes());
        } else {
            leaves.insert(*id, u32::try_from(leaves.len()).map_err(|_| too_long())?);
            leaf(out, inode)?;
        }
    }
    Ok(())
}

fn leaf(out: &mut Vec<u8>, inode: &Inode) -> Result<(), LayerError> {
    let tag = match &inode.kind {
        Kind::Directory(_) => DIRECTORY,
        Kind::Regular(Content::Inline(_)) => INLINE,
        Kind::Regular(Content::Object { .. }) => OBJECT,
        Kind::Symlink(_) => SYMLINK,
        Kind::CharDevice { .. } => CHAR_DEVICE,
        Kind::BlockDevice { .. } => BLOCK_DEVICE,
        Kind::Fifo => FIFO,
        Kind::Socket => SOCKET,
    };
    out.push(tag);
    metadata(out, &inode.metadata)?;
    match &inode.kind {
        Kind::Directory(_) | Kind::Fifo | Kind::Socket => {}
        Kind::Regular(Content::Inline(bytes)) => short(out, bytes)?,
        Kind::Regular(Content::Object { id, size }) => {
            out.extend(id.0);
            out.extend(size.to_le_bytes());
        }
        Kind::Symlink(target) => long(out, target)?,
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            out.extend(major.to_le_bytes());
            out.extend(minor.to_le_bytes());
        }
    }
    Ok(())
}

fn metadata(out: &mut Vec<u8>, metadata: &Metadata) -> Result<(), LayerError> {
    out.extend(metadata.mode.to_le_bytes());
    out.extend(metadata.uid.to_le_bytes());
    out.extend(metadata.gid.to_le_bytes());
    out.extend(metadata.mtime.seconds.to_le_bytes());
    out.extend(metadata.mtime.nanoseconds.to_le_bytes());
    out.extend(u16::try_from(metadata.xattrs.len()).map_err(|_| too_long())?.to_le_bytes());
    for (name, value) in &metadata.xattrs {
        short(out, name)?;
        long(out, value)?;
    }
    Ok(())
}

fn short(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), LayerError> {
    out.push(u8::try_from(bytes.len()).map_err(|_| too_long())?);
    out.extend(bytes);
    Ok(())
}

fn long(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), LayerError> {
    out.extend(u16::try_from(bytes.len()).map_err(|_| too_long())?.to_le_bytes());
    out.extend(bytes);
    Ok(())
}

const fn too_long() -> LayerError {
    LayerError::TreeForm {
        expected: "a tree whose names, targets and attributes have lengths that Linux has",
    }
}

#[cfg(test)]
mod tests;
