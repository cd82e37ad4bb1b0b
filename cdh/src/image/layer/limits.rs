//! How much of an image is taken at all.

use serde::{Deserialize, Serialize};

/// Longest path in an archive, in bytes (Linux, `PATH_MAX` with its NUL).
pub const PATH_MAX: usize = 4095;
/// Most names in a path.
pub const DEPTH_MAX: usize = 256;
/// Most bytes of one extended header (PAX) of an archive.
pub const EXTENDED_MAX: u64 = 1 << 20;
/// Most runs of data in a sparse file.
pub const RUNS_MAX: usize = 1 << 16;
/// Most bytes of names and values of the extended attributes of one inode (Linux, `XATTR_LIST_MAX`).
pub const XATTRS_MAX: usize = 1 << 16;
/// Longest name of an extended attribute, in bytes (Linux, `XATTR_NAME_MAX`).
pub const XATTR_NAME_MAX: usize = 255;
/// Highest major number of a device (Linux, 12 bits).
pub const MAJOR_MAX: u32 = (1 << 12) - 1;
/// Highest minor number of a device (Linux, 20 bits).
pub const MINOR_MAX: u32 = (1 << 20) - 1;

/// Limits of one image. Memory while unpacking: about 250 bytes for each inode, [`Self::metadata_bytes`], one window of zstd, and less than
/// 4 MiB besides; it does not depend on the sizes of layers and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Layers.
    pub layers: u32,
    /// Expanded bytes of one layer, padding included.
    pub layer_bytes: u64,
    /// Expanded bytes of all layers.
    pub image_bytes: u64,
    /// Bytes of all regular files, holes included.
    pub content_bytes: u64,
    /// Entries of all archives, whiteouts and replaced ones included.
    pub entries: u32,
    /// Inodes of the tree.
    pub inodes: u32,
    /// Bytes of names, link targets and extended attributes, of all layers.
    pub metadata_bytes: u64,
    /// Largest window of zstd, in bytes.
    pub window_bytes: u64,
}

impl Limits {
    /// Memory that unpacking within these limits may take, with room to spare: tree, its serial form while it grows, a window, the rest.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let tree = u64::from(self.inodes).saturating_mul(512).saturating_add(self.metadata_bytes);
        let besides = self.window_bytes.saturating_mul(2).saturating_add(64 << 20);
        tree.saturating_add(self.tree_bytes().saturating_mul(2)).saturating_add(besides)
    }

    /// Most bytes that a tree within these limits has in its serial form.
    #[must_use]
    pub fn tree_bytes(&self) -> u64 {
        // Per name less than 80 bytes besides what is counted; lengths of attributes are shorter than their names.
        let names = u64::from(self.entries).saturating_add(self.inodes.into());
        self.metadata_bytes.saturating_mul(2).saturating_add(names.saturating_mul(80))
    }
}

impl Default for Limits {
    /// Twice what the largest images in use have; an operator who knows the room that there is sets less.
    fn default() -> Self {
        Self {
            layers: 512,
            layer_bytes: 64 << 30,
            image_bytes: 128 << 30,
            content_bytes: 128 << 30,
            entries: 800_000,
            inodes: 500_000,
            metadata_bytes: 128 << 20,
            window_bytes: 128 << 20,
        }
    }
}
