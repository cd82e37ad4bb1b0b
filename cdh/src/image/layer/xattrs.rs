//! Which extended attributes of a layer's entries are kept.
//!
//! `security.capability`, which makes programs privileged as the image's author wants, and `user.*`. All else says something about the
//! machine that the layer was made on or about the file system that it was made with: labels of security modules, access control lists
//! of other users, and attributes of overlay file systems (`trusted.overlay.*`, `user.overlay.*`), which would redirect names and hide
//! files here. They are dropped without an error, since honest layers have them by accident.

use std::collections::BTreeMap;

/// File capabilities.
pub const CAPABILITY: &[u8] = b"security.capability";
/// What users may set.
const USER: &[u8] = b"user.";
/// What overlay takes for its own where it is mounted by users (`userxattr`).
const USER_OVERLAY: &[u8] = b"user.overlay.";

/// Whether an attribute of this name gets into a tree.
#[must_use]
pub fn is_kept(name: &[u8]) -> bool {
    // GUARD: layer-overlay-xattrs -> evil_overlay_attributes
    if name.starts_with(USER_OVERLAY) {
        return false;
    }
    name == CAPABILITY || (name.starts_with(USER) && name.len() > USER.len() && !name.contains(&0))
}

/// Those that are kept.
#[must_use]
pub fn kept(xattrs: BTreeMap<Vec<u8>, Vec<u8>>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    xattrs.into_iter().filter(|(name, _)| is_kept(name)).collect()
}
