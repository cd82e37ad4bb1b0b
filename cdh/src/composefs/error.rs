//! What can go wrong with trees that are mounted with integrity: whose fault, and a stable code.

use std::path::{Path, PathBuf};

/// A failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComposefsError {
    /// A digest, a label or a kernel argument that cannot be understood, or asks for less than all.
    #[error("composefs digest: expected {expected}, found {found:?}")]
    Digest {
        /// What it should be.
        expected: &'static str,
        /// What it was.
        found: String,
    },
    /// What is mounted does not hold: a read of an object that must succeed failed, or one that must fail succeeded.
    #[error("mounted tree: expected {expected}, found {found}")]
    Mounted {
        /// What a mount that counts does.
        expected: &'static str,
        /// What it did.
        found: String,
    },
    /// The image is not the one that was pinned, or an object not the one that was named.
    #[error("{what}: expected fs-verity digest {expected}, found {found}")]
    Mismatch {
        /// The image, or which object.
        what: &'static str,
        /// The digest that it should have, in hex.
        expected: String,
        /// The digest that it has, in hex.
        found: String,
    },
    /// The store cannot be relied on: no fs-verity, and memory that is not the guest's own.
    #[error("object store: expected {expected}, found {found}")]
    Store {
        /// What a store must be.
        expected: &'static str,
        /// What it was.
        found: String,
    },
    /// A system call.
    #[error("{purpose} {path}: {source}", path = path.display())]
    System {
        /// What was to be done.
        purpose: &'static str,
        /// With which file or mount.
        path: PathBuf,
        /// Why it could not.
        source: std::io::Error,
    },
    /// The image would be longer than the caller allows.
    #[error("image of a tree: expected at most {limit} bytes, found {found}")]
    TooLarge {
        /// The caller's limit.
        limit: u64,
        /// How long it would be.
        found: u64,
    },
    /// An object that has another length than its tree states.
    #[error("object {id}: expected {expected} bytes, found {found}")]
    Length {
        /// Its name.
        id: String,
        /// The length that the tree states.
        expected: u64,
        /// The length that it has.
        found: i64,
    },
    /// The tree holds what no image can.
    #[error("file tree: expected {expected}, found {found}")]
    Tree {
        /// What an image can hold.
        expected: &'static str,
        /// What there was.
        found: String,
    },
    /// An object has no digest of the kind that was asked for.
    #[error("object {id}: expected a SHA-512 digest of it, found none")]
    Unnamed {
        /// Its SHA-256 digest in hex.
        id: String,
    },
    /// A whiteout that has no form in an image.
    #[error("file tree: expected {expected}, found {found}")]
    Whiteout {
        /// What whiteouts may be.
        expected: &'static str,
        /// What there was.
        found: String,
    },
}

impl ComposefsError {
    /// Of a digest only so much is told as a digest is long.
    pub(super) fn digest(expected: &'static str, found: &str) -> Self {
        Self::Digest { expected, found: found.chars().take(160).collect() }
    }

    pub(super) const fn tree(expected: &'static str, found: String) -> Self {
        Self::Tree { expected, found }
    }

    pub(super) fn system<E: Into<std::io::Error>>(
        purpose: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::System { purpose, path, source: source.into() }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Digest { .. } => "COMPOSEFS_DIGEST",
            Self::Mounted { .. } => "COMPOSEFS_MOUNTED",
            Self::Length { .. } | Self::Mismatch { .. } => "COMPOSEFS_MISMATCH",
            Self::Store { .. } => "COMPOSEFS_STORE",
            Self::System { .. } => "COMPOSEFS_SYSTEM",
            Self::TooLarge { .. } => "COMPOSEFS_TOO_LARGE",
            Self::Tree { .. } => "COMPOSEFS_TREE",
            Self::Unnamed { .. } => "COMPOSEFS_UNNAMED",
            Self::Whiteout { .. } => "COMPOSEFS_WHITEOUT",
        }
    }
}
