//! Layers of an image become a [`Tree`] and content objects. Nothing is extracted: names, owners and devices are data, so there is
//! nowhere to escape to, and no privilege is needed.
//!
//! ```text
//!  authenticated bytes ─▶ decompress ─▶ count, hash ─▶ strict tar ─▶ merge ─▶ Tree
//!   (any `Read`)          gzip, zstd     (diff_id)        │
//!                                                         └ contents ─▶ ContentSink (objects by fs-verity digest)
//! ```
//!
//! [`Unpacker::layer`] takes the unpacker and gives it back only when the whole layer was read, nothing followed it, and its expanded bytes
//! have the digest of the image's configuration: nobody sees a tree of which a layer is not what it has to be. Contents may be in the
//! sink before that; they are known by their own digests there.
//!
//! # What an entry means
//!
//! * Paths: `/` and `.` in front and between are left out; `..`, NUL, and what is longer than 4095 bytes or deeper than 256 names is
//!   refused. Names need not be UTF-8.
//! * Only directories are walked. A parent that is a symbolic link or a file, of this layer or a lower one, is an error (`LAYER_PARENT`),
//!   as for composefs: extractors disagree about it, some follow the link and others replace it, so a tree would depend on who unpacks.
//! * Missing parents are made: root's, 0755, time 0.
//! * A directory over a directory takes the new owner, mode, time and attributes, and keeps its entries. All else replaces what was there,
//!   also within one layer: the last entry counts.
//! * Hard links need an earlier entry of this or a lower layer, which is no directory. Absolute targets are paths of the image. What the
//!   link's own header says about owner and mode is not looked at.
//! * Whiteouts and opaque directories hide what lower layers have, wherever in the layer they are, and nothing where there is no such
//!   directory. Whiteouts are empty files, or hard links
//!   (as aufs made them, whatever they lead to). Other names with their prefix, and devices 0:0, which mean the same to overlay file
//!   systems, are refused.
//! * Devices, pipes, set-id bits are data. Extended attributes: see [`xattrs`].
//! * Sparse files, in each of GNU tar's forms, have holes that are hashed and not stored.

pub mod codec;
pub mod confine;
mod error;
mod expand;
mod limits;
mod media;
mod merge;
mod names;
pub mod tar;
mod transform;
pub mod xattrs;
mod zstd;

use std::collections::BTreeMap;
use std::io::Read;

pub use self::error::{Bound, Fault, LayerError, Name};
pub use self::expand::{Plain, Source};
pub use self::limits::{
    DEPTH_MAX, EXTENDED_MAX, Limits, MAJOR_MAX, MINOR_MAX, PATH_MAX, RUNS_MAX, XATTRS_MAX,
};
pub use self::media::{Compression, DiffId};
pub use self::transform::transform_for_oci;

use self::expand::Expanded;
use self::merge::Merge;
use self::names::{Last, components, last};
use self::tar::{Archive, Entry, EntryKind, Piece};
use crate::image::objects::ContentSink;
use crate::image::tree::{Content, INLINE_MAX, Inode, Kind, Metadata, TARGET_MAX, Tree};

/// Mode of symbolic links, whatever an archive says: Linux shows no other.
const SYMLINK_MODE: u16 = 0o777;

/// Puts layers one onto the other. It is used up by the first thing that is wrong.
///
/// Memory: what is said at [`Limits`]; it grows with names, not with sizes.
pub struct Unpacker<'s> {
    merge: Merge,
    sink: &'s dyn ContentSink,
    limits: Limits,
    layers: u32,
    entries: u32,
    expanded: u64,
    content: u64,
}

impl std::fmt::Debug for Unpacker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").field("layers", &self.layers).finish_non_exhaustive()
    }
}

impl<'s> Unpacker<'s> {
    /// An empty root, and where contents go to.
    #[must_use]
    pub fn new(sink: &'s dyn ContentSink, limits: Limits) -> Self {
        Self { merge: Merge::new(&limits), sink, limits, layers: 0, entries: 0, expanded: 0, content: 0 }
    }

    /// Puts the next layer onto those before it. `input` gives the layer's bytes, which somebody has authenticated.
    ///
    /// # Errors
    ///
    /// See [`LayerError`].
    pub fn layer(
        mut self,
        input: impl Read,
        compression: Compression,
        diff_id: &DiffId,
    ) -> Result<Self, LayerError> {
        // GUARD: image-layer-count -> evil_layers_without_end
        if self.layers >= self.limits.layers {
            return Err(LayerError::bound(Bound::Layers, "layers", self.limits.layers.into()));
        }
        self.layers += 1;
        self.merge.next_layer();
        let mut archive =
            Archive::new(Expanded::new(input, compression, *diff_id, &self.limits, self.expanded));
        self.entries_of(&mut archive)?;
        self.expanded = self.expanded.saturating_add(archive.into_source().finish()?);
        Ok(self)
    }

    /// How many expanded bytes were read, and how many bytes of files, with holes, were in them.
    #[must_use]
    pub const fn amounts(&self) -> (u64, u64) {
        (self.expanded, self.content)
    }

    /// The tree of all layers.
    #[must_use]
    pub fn finish(self) -> Tree {
        self.merge.finish()
    }

    fn entries_of<S: Source>(&mut self, archive: &mut Archive<S>) -> Result<(), LayerError> {
        while let Some(entry) = archive.next_entry()? {
            // GUARD: layer-entries -> evil_entries_without_end
            if self.entries >= self.limits.entries {
                return Err(LayerError::bound(Bound::Entries, "entries", self.limits.entries.into()));
            }
            self.entries += 1;
            self.entry(archive, entry)?;
        }
        Ok(())
    }

    fn entry<S: Source>(&mut self, archive: &mut Archive<S>, entry: Entry) -> Result<(), LayerError> {
        let path = entry.path;
        let names = components(&path)?;
        let (parents, last) = last(&path, &names)?;
        let name = match last {
            Last::Name(name) => name,
            Last::Root => {
                // GUARD: layer-root-directory -> evil_root
                if entry.kind != EntryKind::Directory {
                    return Err(LayerError::Root);
                }
                let xattrs = xattrs::kept(entry.xattrs);
                let (mode, uid, gid, mtime) = (entry.mode, entry.uid, entry.gid, entry.mtime);
                return self.merge.set_root(Metadata { mode, uid, gid, mtime, xattrs });
            }
            Last::Whiteout(_) | Last::Opaque => {
                // GUARD: layer-whiteout-kind -> evil_whiteouts
                if !matches!(entry.kind, EntryKind::Regular(0) | EntryKind::HardLink(_)) {
                    return Err(LayerError::Whiteout { name: Name::new(&path) });
                }
                match last {
                    Last::Whiteout(hidden) => self.merge.hide(parents, hidden),
                    _ => self.merge.hide_all(parents),
                }
                return Ok(());
            }
        };
        let mut mode = entry.mode;
        let kind = match entry.kind {
            EntryKind::HardLink(target) => {
                return self.merge.link(&path, parents, name, &components(&target)?);
            }
            EntryKind::Regular(size) => Kind::Regular(self.content(archive, size)?),
            EntryKind::Directory => Kind::Directory(BTreeMap::new()),
            EntryKind::Symlink(target) => {
                // GUARD: layer-symlink-target -> evil_symlinks
                if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) {
                    return Err(LayerError::Symlink { name: Name::new(&path) });
                }
                mode = SYMLINK_MODE;
                Kind::Symlink(target.into())
            }
            EntryKind::CharDevice(major, minor) => {
                // GUARD: layer-whiteout-device -> evil_whiteouts
                if (major, minor) == (0, 0) {
                    return Err(LayerError::Whiteout { name: Name::new(&path) });
                }
                Kind::CharDevice { major, minor }
            }
            EntryKind::BlockDevice(major, minor) => Kind::BlockDevice { major, minor },
            EntryKind::Fifo => Kind::Fifo,
        };
        let xattrs = xattrs::kept(entry.xattrs);
        let metadata = Metadata { mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs };
        self.merge.put(&path, parents, name, Inode { metadata, kind })
    }

    fn content<S: Source>(&mut self, archive: &mut Archive<S>, size: u64) -> Result<Content, LayerError> {
        let left = self.limits.content_bytes.saturating_sub(self.content);
        // GUARD: layer-content-bound -> evil_sparse_bomb
        if size > left {
            return Err(LayerError::bound(
                Bound::Content,
                "bytes of files, with holes",
                self.limits.content_bytes,
            ));
        }
        self.content = self.content.saturating_add(size);
        if size <= INLINE_BYTES {
            let mut bytes = Vec::new();
            archive.body(&mut |piece| {
                match piece {
                    Piece::Data(data) => bytes.extend_from_slice(data),
                    // Of at most `INLINE_MAX` bytes.
                    Piece::Hole(length) => {
                        bytes.resize(bytes.len() + usize::try_from(length).unwrap_or(0), 0);
                    }
                }
                Ok(())
            })?;
            return Ok(Content::Inline(bytes.into()));
        }
        let mut writer = self.sink.begin(size)?;
        archive.body(&mut |piece| {
            match piece {
                Piece::Data(data) => writer.data(data)?,
                Piece::Hole(length) => writer.hole(length)?,
            }
            Ok(())
        })?;
        Ok(Content::Object { id: writer.finish()?, size })
    }
}

/// [`INLINE_MAX`], as sizes are counted.
const INLINE_BYTES: u64 = INLINE_MAX as u64;

#[cfg(test)]
mod evil;
#[cfg(test)]
mod tests;
