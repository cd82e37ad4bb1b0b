//! What is wrong with a layer, or with what was made of it.

use crate::image::objects::ObjectError;
use crate::image::tree::TreeError;

use super::limits::{DEPTH_MAX, PATH_MAX};

/// A refusal. Unless it says otherwise the image is at fault: who made it, or who changed it on the way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// A limit of the image.
    #[error("layers: expected at most {limit} {what}, found more")]
    Bound {
        /// Which limit.
        bound: Bound,
        /// Of what.
        what: &'static str,
        /// Its value.
        limit: u64,
    },
    /// The process that unpacked refused.
    #[error("unpacking process: {text}")]
    Child {
        /// Its code, one of those of this enumeration.
        code: &'static str,
        /// Its words, made printable.
        text: String,
    },
    /// The process that unpacked misbehaved, or died.
    #[error("unpacking process: expected {expected}")]
    ChildAnswer {
        /// What it has to answer.
        expected: &'static str,
    },
    /// The compressed stream is damaged, cut off, or followed by something else.
    #[error("layer: expected a whole {format} stream and nothing behind it, found {found}")]
    Compressed {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// What the decoder says.
        found: String,
    },
    /// The process that was to unpack could not be confined, so it did not.
    #[error("unpacking process: expected to be confined, found a failure: {0}")]
    Confinement(#[source] protected_memory::confine::ConfineError),
    /// A device that Linux cannot have.
    #[error("layer entry {name}: expected device numbers of at most 12 and 20 bits, found {major}:{minor}")]
    Device {
        /// Its name.
        name: Name,
        /// Its major number.
        major: u64,
        /// Its minor number.
        minor: u64,
    },
    /// The expanded bytes are not those that the image's configuration names.
    #[error("layer: expected expanded bytes with digest {expected}, found {found}")]
    DiffId {
        /// The digest in the image's configuration.
        expected: String,
        /// That of the bytes.
        found: String,
    },
    /// A digest of another form.
    #[error(
        "layer digest: expected `sha256:` or `sha512:` and lower-case hexadecimal digits, found {found:?}"
    )]
    DiffIdForm {
        /// What it was, cut off.
        found: String,
    },
    /// A hard link to nothing.
    #[error(
        "layer entry {name}: expected a hard link to an earlier entry of this or a lower layer, found none of that name"
    )]
    LinkToNothing {
        /// Name of the link.
        name: Name,
    },
    /// A media type that is no layer that can be unpacked.
    #[error("layer: expected a media type of an unencrypted tar layer, plain, gzip or zstd, found {found:?}")]
    MediaType {
        /// What it was, cut off.
        found: String,
    },
    /// A name that leads out of the image, to nowhere, or too far.
    #[error(
        "layer entry {name}: expected a path without `..` and NUL, of at most {PATH_MAX} bytes and {DEPTH_MAX} names"
    )]
    Name {
        /// The path.
        name: Name,
    },
    /// `transform_for_oci` of a tree that it is not defined for.
    #[error("image: expected a directory /usr, found none")]
    NoUsr,
    /// The store of contents.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The layer's bytes could not be read. Nobody but this machine is at fault.
    #[error("read a layer: {0}")]
    Read(#[source] std::io::Error),
    /// The root of the image would not be a directory.
    #[error("layer entry for the root: expected a directory, found something else")]
    Root,
    /// A symbolic link to an impossible path.
    #[error("layer entry {name}: expected a symbolic link to 1 to 4095 bytes without NUL")]
    Symlink {
        /// Its name.
        name: Name,
    },
    /// An archive that is not a strict tar archive.
    #[error("layer archive: expected {expected}")]
    Tar {
        /// In which respect.
        fault: Fault,
        /// What a strict one has.
        expected: &'static str,
    },
    /// Something behind the end of the archive.
    #[error("layer archive: expected nothing but zeros behind its end")]
    Trailing,
    /// The tree refused.
    #[error("layer entry {name}: {source}")]
    Tree {
        /// Its name.
        name: Name,
        /// Why.
        source: TreeError,
    },
    /// A tree in its serial form that is not one.
    #[error("serial tree: expected {expected}")]
    TreeForm {
        /// What has to be there.
        expected: &'static str,
    },
    /// The archive ends too early.
    #[error("layer archive: expected more, found its end")]
    Truncated,
    /// A whiteout that hides nothing, or something else than a name.
    #[error(
        "layer entry {name}: expected an empty file `.wh.NAME` or `.wh..wh..opq` as whiteout, in directories without that prefix"
    )]
    Whiteout {
        /// Its name.
        name: Name,
    },
    /// An extended attribute that Linux cannot have.
    #[error(
        "layer entry: expected extended attributes with names of 1 to 255 bytes, of at most 65536 bytes together"
    )]
    Xattr,
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// Bytes of files.
    Content,
    /// Entries of archives.
    Entries,
    /// Expanded bytes.
    Expanded,
    /// Layers.
    Layers,
    /// Names, targets, attributes.
    Metadata,
    /// Window of zstd.
    Window,
}

/// What is wrong with an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The checksum of a header.
    Checksum,
    /// Neither ustar, nor GNU, nor the format before them.
    Format,
    /// A number that is none, or does not fit.
    Number,
    /// An extended header that is not followed by its entry, is there twice, or for all entries.
    Order,
    /// A record of an extended header.
    Pax,
    /// A size that an entry of this type does not have.
    Size,
    /// The map of a sparse file.
    Sparse,
    /// A type of entry that is in no layer.
    Type,
}

/// A path of the image as messages show it: escaped, and cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// Of these bytes.
    pub(super) fn new(path: &[u8]) -> Self {
        const SHOWN: usize = 120;
        let cut = path.get(..SHOWN).unwrap_or(path);
        Self(format!("\"{}\"{}", cut.escape_ascii(), if path.len() > SHOWN { "…" } else { "" }))
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// All codes of [`LayerError`]: a process that unpacks may answer one of these.
pub(super) const CODES: [&str; 38] = [
    "LAYER_CHILD",
    "LAYER_COMPRESSED",
    "LAYER_CONFINEMENT",
    "LAYER_CONTENT",
    "LAYER_DEVICE",
    "LAYER_DIFF_ID",
    "LAYER_DIFF_ID_FORM",
    "LAYER_ENTRIES",
    "LAYER_EXPANDED",
    "LAYER_INODES",
    "LAYER_LAYERS",
    "LAYER_LINK_DIRECTORY",
    "LAYER_LINK_MISSING",
    "LAYER_MEDIA_TYPE",
    "LAYER_METADATA",
    "LAYER_NAME",
    "LAYER_NO_USR",
    "LAYER_PARENT",
    "LAYER_READ",
    "LAYER_ROOT",
    "LAYER_SYMLINK",
    "LAYER_TAR_CHECKSUM",
    "LAYER_TAR_FORMAT",
    "LAYER_TAR_NUMBER",
    "LAYER_TAR_ORDER",
    "LAYER_TAR_PAX",
    "LAYER_TAR_SIZE",
    "LAYER_TAR_SPARSE",
    "LAYER_TAR_TYPE",
    "LAYER_TRAILING",
    "LAYER_TREE_FORM",
    "LAYER_TRUNCATED",
    "LAYER_WHITEOUT",
    "LAYER_WINDOW",
    "LAYER_XATTR",
    "OBJECT_DIGEST",
    "OBJECT_FILE",
    "OBJECT_ROOM",
];

impl LayerError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Bound { bound, .. } => match bound {
                Bound::Content => "LAYER_CONTENT",
                Bound::Entries => "LAYER_ENTRIES",
                Bound::Expanded => "LAYER_EXPANDED",
                Bound::Layers => "LAYER_LAYERS",
                Bound::Metadata => "LAYER_METADATA",
                Bound::Window => "LAYER_WINDOW",
            },
            Self::Child { code, .. } => code,
            Self::ChildAnswer { .. } => "LAYER_CHILD",
            Self::Compressed { .. } => "LAYER_COMPRESSED",
            Self::Confinement(_) => "LAYER_CONFINEMENT",
            Self::Device { .. } => "LAYER_DEVICE",
            Self::DiffId { .. } => "LAYER_DIFF_ID",
            Self::DiffIdForm { .. } => "LAYER_DIFF_ID_FORM",
            Self::LinkToNothing { .. } => "LAYER_LINK_MISSING",
            Self::MediaType { .. } => "LAYER_MEDIA_TYPE",
            Self::Name { .. } => "LAYER_NAME",
            Self::NoUsr => "LAYER_NO_USR",
            Self::Object(error) => error.code(),
            Self::Read(_) => "LAYER_READ",
            Self::Root => "LAYER_ROOT",
            Self::Symlink { .. } => "LAYER_SYMLINK",
            Self::Tar { fault, .. } => match fault {
                Fault::Checksum => "LAYER_TAR_CHECKSUM",
                Fault::Format => "LAYER_TAR_FORMAT",
                Fault::Number => "LAYER_TAR_NUMBER",
                Fault::Order => "LAYER_TAR_ORDER",
                Fault::Pax => "LAYER_TAR_PAX",
                Fault::Size => "LAYER_TAR_SIZE",
                Fault::Sparse => "LAYER_TAR_SPARSE",
                Fault::Type => "LAYER_TAR_TYPE",
            },
            Self::Trailing => "LAYER_TRAILING",
            Self::Tree { source: TreeError::TooMany(_), .. } => "LAYER_INODES",
            Self::Tree { source: TreeError::LinkToDirectory, .. } => "LAYER_LINK_DIRECTORY",
            Self::Tree { source: TreeError::NotADirectory, .. } => "LAYER_PARENT",
            Self::Tree { .. } => "LAYER_NAME",
            Self::TreeForm { .. } => "LAYER_TREE_FORM",
            Self::Truncated => "LAYER_TRUNCATED",
            Self::Whiteout { .. } => "LAYER_WHITEOUT",
            Self::Xattr => "LAYER_XATTR",
        }
    }

    /// A fault of the archive.
    pub(super) const fn tar(fault: Fault, expected: &'static str) -> Self {
        Self::Tar { fault, expected }
    }

    /// A limit that was reached.
    pub(super) const fn bound(bound: Bound, what: &'static str, limit: u64) -> Self {
        Self::Bound { bound, what, limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_in_the_source_is_one_that_a_child_may_answer() {
        let source = [include_str!("error.rs"), include_str!("../objects/error.rs")].concat();
        let mut found: Vec<&str> = source
            .split("=> \"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .filter(|code| code.starts_with("LAYER_") || code.starts_with("OBJECT_"))
            .collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, CODES);
    }
}
