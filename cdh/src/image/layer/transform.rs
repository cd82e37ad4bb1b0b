//! The form in which composefs takes a digest of an image's tree.

use super::LayerError;
use super::xattrs::CAPABILITY;
use crate::image::tree::{Kind, Tree};

/// Changes a merged tree as `transform_for_oci` of the composefs crate 0.9.4 does, so that two builders have one digest: the root, which
/// layers seldom describe, takes mode, owner, time and attributes of `/usr`; `/run` is emptied and takes the time of `/usr`; of extended
/// attributes only `security.capability` stays.
///
/// An image that is run without a digest made by somebody else does not need this.
///
/// # Errors
///
/// `LAYER_NO_USR` without a directory `/usr`: the form is not defined then. The tree is unchanged.
pub fn transform_for_oci(tree: &mut Tree) -> Result<(), LayerError> {
    let usr = tree.child(Tree::ROOT, b"usr").and_then(|usr| tree.get(usr));
    let Some(usr) = usr.filter(|usr| matches!(usr.kind, Kind::Directory(_))) else {
        return Err(LayerError::NoUsr);
    };
    let metadata = usr.metadata.clone();
    if let Some(run) = tree.child(Tree::ROOT, b"run")
        && let Some(entries) = tree.entries(run)
    {
        let names: Vec<Box<[u8]>> = entries.keys().cloned().collect();
        for name in names {
            tree.remove(run, &name);
        }
        if let Some(run) = tree.metadata_mut(run) {
            run.mtime = metadata.mtime;
        }
    }
    if let Some(root) = tree.metadata_mut(Tree::ROOT) {
        *root = metadata;
    }
    let mut left = vec![Tree::ROOT];
    while let Some(id) = left.pop() {
        if let Some(metadata) = tree.metadata_mut(id) {
            metadata.xattrs.retain(|name, _| name == CAPABILITY);
        }
        left.extend(tree.entries(id).into_iter().flat_map(|entries| entries.values().copied()));
    }
    Ok(())
}
