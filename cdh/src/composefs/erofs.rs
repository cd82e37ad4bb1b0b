//! Metadata images: a [`Tree`] as the EROFS file system that composefs mounts (formats V0 and V1 of composefs).
//!
//! ```text
//!  0     composefs header (32 bytes)
//!  1024  superblock (128 bytes)
//!  1152  inodes, each on a multiple of 32: head, extended attributes, and what of its content lies beside it
//!        attributes that several inodes have, once
//!  4096n blocks of large directories
//! ```
//!
//! All numbers are little-endian. The same tree makes the same bytes everywhere, and the fs-verity digest of those bytes stands for
//! the tree and for each file in it: a file that is an object is here only by length and digest, in `trusted.overlay.metacopy`.
//! The rules are those of the C library and of the crate `composefs` 0.9.4, whose images are the vectors.
//!
//! 256 character devices 0:0 named `00` to `ff` lie in the root, so that the directories of an object store do not show through an
//! overlay. A whiteout of the tree's own becomes a marked regular file, and `trusted.overlay.*` of its own is renamed.

mod attributes;
mod collect;
mod contents;
mod directory;
mod emit;
mod layout;
mod node;
mod xxh32;

use std::collections::HashMap;

use super::ComposefsError;
use super::verity::Sha512Id;
use crate::image::tree::{ObjectId, Tree};

/// Bytes of a block.
pub const BLOCK: u64 = 4096;
/// Longest image that is written where a caller names no other limit, in bytes. About 3 million files fit.
pub const IMAGE_MAX: u64 = 512 << 20;
/// Longest object, in bytes: what one chunk of a file can hold.
pub const OBJECT_MAX: u64 = 1 << 43;

/// Which format of composefs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// What the C library writes unless it is told otherwise.
    V0,
    /// The default since composefs 0.9: the same layout, another number in the header, and directories with whiteouts are opaque.
    #[default]
    V1,
}

/// By which digests the objects are named in the image.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum Names<'a> {
    /// By those of the tree.
    #[default]
    Sha256,
    /// By SHA-512, which has to be known for each object of the tree.
    Sha512(&'a HashMap<ObjectId, Sha512Id>),
}

/// How an image is written.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The format.
    pub format: Format,
    /// The digests that name objects.
    pub names: Names<'a>,
    /// Longest image, in bytes. Nothing is allocated for a longer one.
    pub limit: u64,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { format: Format::default(), names: Names::default(), limit: IMAGE_MAX }
    }
}

/// The image of a tree.
///
/// # Errors
///
/// `COMPOSEFS_TREE` where the tree holds what no image of this kind can, `COMPOSEFS_WHITEOUT` where its whiteouts have no form,
/// `COMPOSEFS_TOO_LARGE` above the limit, `COMPOSEFS_UNNAMED` for an object without a SHA-512 digest.
///
/// ```
/// use cdh::composefs::{erofs, verity::Hasher};
/// use cdh::image::tree::{Metadata, Tree};
/// let image = erofs::write(&Tree::new(Metadata::default(), 1), &erofs::Options::default())?;
/// let digest = Hasher::hash(&image);
/// # let _ = digest;
/// # Ok::<(), cdh::composefs::ComposefsError>(())
/// ```
pub fn write(tree: &Tree, options: &Options<'_>) -> Result<Vec<u8>, ComposefsError> {
    let collected = collect::collect(tree, options)?;
    let layout = layout::Layout::new(&collected)?;
    // GUARD: composefs-image-bounded -> evil_tree_larger_than_its_limit
    if layout.end > options.limit {
        return Err(ComposefsError::TooLarge { limit: options.limit, found: layout.end });
    }
    emit::emit(&collected, &layout, options.format)
}

#[cfg(test)]
mod tests;
