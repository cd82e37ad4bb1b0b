//! Paths and names in a layer.

use super::LayerError;
use super::error::Name;
use super::limits::{DEPTH_MAX, PATH_MAX};
use crate::image::tree::NAME_MAX;

/// What a whiteout's name begins with (OCI image specification, `layer.md`).
const WHITEOUT: &[u8] = b".wh.";
/// What makes a directory opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What the last name of a path says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last<'a> {
    /// The root itself.
    Root,
    /// A name.
    Name(&'a [u8]),
    /// This name of lower layers is hidden.
    Whiteout(&'a [u8]),
    /// All names of lower layers in this directory are hidden.
    Opaque,
}

/// The names of a path from the root of the image: `/` and `.` in front, between and behind are left out.
///
/// # Errors
///
/// `LAYER_NAME` for `..`, NUL, nothing at all, and what is too long or too deep.
pub fn components(path: &[u8]) -> Result<Vec<&[u8]>, LayerError> {
    let refused = || LayerError::Name { name: Name::new(path) };
    // GUARD: layer-path-length -> evil_paths
    if path.is_empty() || path.len() > PATH_MAX || path.contains(&0) {
        return Err(refused());
    }
    let names: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    // GUARD: layer-path-depth -> evil_paths
    if names.len() > DEPTH_MAX || names.iter().any(|name| name.len() > NAME_MAX) {
        return Err(refused());
    }
    // GUARD: layer-path-escape -> evil_paths
    if names.contains(&&b".."[..]) {
        return Err(refused());
    }
    Ok(names)
}

/// The parents, and what the last name says.
///
/// # Errors
///
/// `LAYER_WHITEOUT` for names with the prefix of whiteouts that are none: files of aufs, whiteouts of nothing, `.`, `..` and whiteouts,
/// and directories.
pub fn last<'a, 'b>(path: &[u8], names: &'b [&'a [u8]]) -> Result<(&'b [&'a [u8]], Last<'a>), LayerError> {
    let Some((name, parents)) = names.split_last() else { return Ok((&[], Last::Root)) };
    let refused = || LayerError::Whiteout { name: Name::new(path) };
    // GUARD: layer-whiteout-parents -> evil_whiteouts
    if parents.iter().any(|name| name.starts_with(WHITEOUT)) {
        return Err(refused());
    }
    if *name == OPAQUE {
        return Ok((parents, Last::Opaque));
    }
    let Some(hidden) = name.strip_prefix(WHITEOUT) else { return Ok((parents, Last::Name(name))) };
    // GUARD: layer-whiteout-names -> evil_whiteouts
    if matches!(hidden, b"" | b"." | b"..") || hidden.starts_with(WHITEOUT) {
        return Err(refused());
    }
    Ok((parents, Last::Whiteout(hidden)))
}
