//! What inodes that are no directories hold, and what of that an image can say.

use super::OBJECT_MAX;
use super::node::{Body, FileType};
use crate::composefs::ComposefsError;
use crate::image::tree::{Content, INLINE_MAX, Inode, Kind, TARGET_MAX};

/// What an inode that is no directory holds.
pub(super) fn body(inode: &Inode) -> Result<Body<'_>, ComposefsError> {
    let body = match &inode.kind {
        Kind::Directory(_) => return Err(ComposefsError::tree("no directory", "one".into())),
        Kind::Regular(Content::Inline(bytes)) => Body::Inline(bytes),
        Kind::Regular(Content::Object { size, .. }) => Body::Object(*size),
        Kind::Symlink(target) => Body::Symlink(target),
        Kind::CharDevice { major, minor } => Body::Special(FileType::CharDevice, number(*major, *minor)?),
        Kind::BlockDevice { major, minor } => Body::Special(FileType::BlockDevice, number(*major, *minor)?),
        Kind::Fifo => Body::Special(FileType::Fifo, 0),
        Kind::Socket => Body::Special(FileType::Socket, 0),
    };
    let fits = match &body {
        Body::Inline(bytes) => bytes.len() <= INLINE_MAX,
        Body::Object(size) => (INLINE_MAX as u64 + 1..=OBJECT_MAX).contains(size),
        Body::Symlink(target) => (1..=TARGET_MAX).contains(&target.len()) && !target.contains(&0),
        Body::Directory(_) | Body::Special(..) => true,
    };
    // GUARD: composefs-contents -> evil_tree_contents_that_no_image_holds
    if !fits {
        return Err(ComposefsError::tree(
            "contents up to 64 bytes, objects above that and up to 8 TiB, link targets of 1 to 4095 bytes without NUL",
            "other lengths".into(),
        ));
    }
    Ok(body)
}

/// A device's number as Linux encodes it in 32 bits (`new_encode_dev`).
fn number(major: u32, minor: u32) -> Result<u32, ComposefsError> {
    // GUARD: composefs-device-numbers -> evil_tree_contents_that_no_image_holds
    if major > 0xfff || minor > 0xf_ffff {
        return Err(ComposefsError::tree("device numbers of 12 and 20 bits", format!("{major}:{minor}")));
    }
    Ok((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}
