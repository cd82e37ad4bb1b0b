//! Layers one above the other, in one tree.
//!
//! A whiteout and an opaque directory hide what *lower* layers have, wherever in its archive a layer has them. So for each directory that
//! was there before the layer, the names that the layer gave are known; in a directory that the layer made, all names are its own.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::LayerError;
use super::error::{Bound, Name};
use super::limits::Limits;
use crate::image::tree::{Inode, InodeId, Kind, Metadata, Timestamp, Tree, TreeError};

/// A tree that layers are put onto.
#[derive(Debug)]
pub(super) struct Merge {
    tree: Tree,
    /// Directories that this layer made, or of whose lower names none is left. A removed inode's number is taken only by another one of
    /// this layer, of which the same is true.
    own: HashSet<InodeId>,
    /// Names that this layer gave in other directories.
    given: HashMap<InodeId, HashSet<Box<[u8]>>>,
    room: u64,
    limit: u64,
}

impl Merge {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            tree: Tree::new(implied(), limits.inodes),
            own: HashSet::new(),
            given: HashMap::new(),
            room: limits.metadata_bytes,
            limit: limits.metadata_bytes,
        }
    }

    /// What was put into it by now is a lower layer for what follows.
    pub(super) fn next_layer(&mut self) {
        self.own.clear();
        self.given.clear();
    }

    pub(super) fn finish(self) -> Tree {
        self.tree
    }

    /// The metadata of the root.
    pub(super) fn set_root(&mut self, metadata: Metadata) -> Result<(), LayerError> {
        self.pay(&[], &metadata, 0)?;
        if let Some(root) = self.tree.metadata_mut(Tree::ROOT) {
            *root = metadata;
        }
        Ok(())
    }

    /// Puts an inode at a path. A directory over a directory keeps its entries; all else replaces what was there.
    pub(super) fn put(
        &mut self,
        path: &[u8],
        parents: &[&[u8]],
        name: &[u8],
        inode: Inode,
    ) -> Result<(), LayerError> {
        let target = if let Kind::Symlink(target) = &inode.kind { target.len() } else { 0 };
        self.pay(name, &inode.metadata, target)?;
        let parent = self.parent(path, parents)?;
        if let Kind::Directory(_) = inode.kind
            && let Some(there) = self.tree.child(parent, name)
            && self.tree.entries(there).is_some()
        {
            if let Some(metadata) = self.tree.metadata_mut(there) {
                *metadata = inode.metadata;
            }
            self.give(parent, name);
            return Ok(());
        }
        let is_directory = matches!(inode.kind, Kind::Directory(_));
        let id = self.tree.insert(parent, name, inode).map_err(refused(path))?;
        self.give(parent, name);
        if is_directory {
            self.own.insert(id);
        }
        Ok(())
    }

    /// Gives what is at a path, in this layer or a lower one, another name.
    pub(super) fn link(
        &mut self,
        path: &[u8],
        parents: &[&[u8]],
        name: &[u8],
        target: &[&[u8]],
    ) -> Result<(), LayerError> {
        self.pay(name, &Metadata::default(), 0)?;
        let target = self.find(target).ok_or_else(|| LayerError::LinkToNothing { name: Name::new(path) })?;
        let parent = self.parent(path, parents)?;
        self.tree.link(parent, name, target).map_err(refused(path))?;
        self.give(parent, name);
        Ok(())
    }

    /// Hides a name of lower layers. There need not be one: umoci also writes whiteouts below what is no directory any more.
    pub(super) fn hide(&mut self, parents: &[&[u8]], name: &[u8]) {
        if let Some(parent) = self.find(parents)
            && let Some(hidden) = self.tree.child(parent, name)
        {
            self.strip(parent, name, hidden);
        }
    }

    /// Hides all names of lower layers in a directory.
    pub(super) fn hide_all(&mut self, parents: &[&[u8]]) {
        if let Some(directory) = self.find(parents).filter(|id| self.tree.entries(*id).is_some()) {
            self.strip_all(directory);
        }
    }

    /// Takes what lower layers have out of a directory, and of those below it; the directory is this layer's own then.
    fn strip_all(&mut self, directory: InodeId) {
        if self.own.contains(&directory) {
            return;
        }
        let entries: Vec<(Box<[u8]>, InodeId)> = self
            .tree
            .entries(directory)
            .map(|entries| entries.iter().map(|(name, id)| (name.clone(), *id)).collect())
            .unwrap_or_default();
        for (name, id) in entries {
            self.strip(directory, &name, id);
        }
        self.given.remove(&directory);
        self.own.insert(directory);
    }

    /// The same for one name. The depth of paths bounds how deep this goes.
    fn strip(&mut self, parent: InodeId, name: &[u8], id: InodeId) {
        let is_given =
            self.own.contains(&parent) || self.given.get(&parent).is_some_and(|names| names.contains(name));
        if self.tree.entries(id).is_some() {
            self.strip_all(id);
            if is_given {
                return;
            }
            // Something below was given by this layer, which had no entry for the directory itself.
            if self.tree.entries(id).is_some_and(|entries| !entries.is_empty()) {
                if let Some(metadata) = self.tree.metadata_mut(id) {
                    *metadata = implied();
                }
                self.give(parent, name);
                return;
            }
        }
        // GUARD: layer-whiteout-lower-only -> a_whiteout_hides_only_lower_layers
        if is_given {
            return;
        }
        self.tree.remove(parent, name);
    }

    fn give(&mut self, parent: InodeId, name: &[u8]) {
        if !self.own.contains(&parent) {
            self.given.entry(parent).or_default().insert(name.into());
        }
    }

    /// The directory at a path, made where it is missing. Where a parent is something else, the tree refuses what is put below it.
    fn parent(&mut self, path: &[u8], parents: &[&[u8]]) -> Result<InodeId, LayerError> {
        let mut directory = Tree::ROOT;
        for name in parents {
            directory = match self.tree.child(directory, name) {
                Some(child) => child,
                None => {
                    self.pay(name, &Metadata::default(), 0)?;
                    let inode = Inode { metadata: implied(), kind: Kind::Directory(BTreeMap::new()) };
                    let made = self.tree.insert(directory, name, inode).map_err(refused(path))?;
                    self.give(directory, name);
                    self.own.insert(made);
                    made
                }
            };
        }
        Ok(directory)
    }

    /// What is at a path. Only directories are walked.
    fn find(&self, names: &[&[u8]]) -> Option<InodeId> {
        names.iter().try_fold(Tree::ROOT, |directory, name| self.tree.child(directory, name))
    }

    fn pay(&mut self, name: &[u8], metadata: &Metadata, target: usize) -> Result<(), LayerError> {
        let xattrs: usize = metadata.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let sum = u64::try_from(name.len() + target + xattrs).unwrap_or(u64::MAX);
        // GUARD: layer-metadata-bounded -> evil_xattr_bomb
        if sum > self.room {
            let what = "bytes of names, link targets and extended attributes";
            return Err(LayerError::bound(Bound::Metadata, what, self.limit));
        }
        self.room = self.room.saturating_sub(sum);
        Ok(())
    }
}

/// What a directory has that no entry describes: root's, 0755, from the beginning of time, so that it is the same at each unpacking.
pub(super) const fn implied() -> Metadata {
    Metadata {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timestamp { seconds: 0, nanoseconds: 0 },
        xattrs: BTreeMap::new(),
    }
}

fn refused(path: &[u8]) -> impl FnOnce(TreeError) -> LayerError {
    move |source| LayerError::Tree { name: Name::new(path), source }
}
