//! What goes wrong with objects.

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// An object is not what its name says: it was changed, or made by somebody who lies.
    #[error("object {object}: expected {expected}")]
    Digest {
        /// Its name.
        object: String,
        /// What it has to be.
        expected: &'static str,
    },
    /// The file system.
    #[error("objects: {purpose}: {source}")]
    File {
        /// What was to be done.
        purpose: &'static str,
        /// Why it could not.
        source: std::io::Error,
    },
    /// No room.
    #[error("objects: expected room for {expected} {what}, found {found}")]
    Room {
        /// Of what.
        what: &'static str,
        /// How many are needed.
        expected: u64,
        /// How many there are.
        found: u64,
    },
}

impl ObjectError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Digest { .. } => "OBJECT_DIGEST",
            Self::File { .. } => "OBJECT_FILE",
            Self::Room { .. } => "OBJECT_ROOM",
        }
    }

    /// A failed step.
    pub(super) fn file<E: Into<std::io::Error>>(purpose: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::File { purpose, source: source.into() }
    }
}
