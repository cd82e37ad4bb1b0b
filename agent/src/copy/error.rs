//! Why a file was not copied.

use std::io;

use protocol::ids::ValueError;
use protocol::status::RpcError;

/// An error of CopyFile.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// Neither a file nor a directory nor a link.
    #[error("file mode: expected a regular file, a directory or a symbolic link")]
    Kind,
    /// Lengths that do not agree.
    #[error("file length: expected {what}")]
    Length {
        /// What was expected.
        what: &'static str,
    },
    /// Where a link leads.
    #[error("link: expected a target of 1 to 4095 bytes without NUL")]
    Link,
    /// More at once than is taken.
    #[error("expected at most {maximum} {what} that are not complete")]
    Many {
        /// The limit.
        maximum: u64,
        /// Of what.
        what: &'static str,
    },
    /// A piece that does not follow the one before it.
    #[error("piece: expected offset {expected}, found {found}")]
    Offset {
        /// Where the next piece begins.
        expected: u64,
        /// Where it begins.
        found: u64,
    },
    /// An owner that is none.
    #[error("owner: expected user and group from 0 on")]
    Owner,
    /// A task that ended before its end.
    #[error("copying panicked")]
    Panicked,
    /// The place.
    #[error(transparent)]
    Place(#[from] ValueError),
    /// The system refused.
    #[error("{action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl CopyError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "COPY_IO",
            Self::Kind => "COPY_KIND",
            Self::Length { .. } => "COPY_LENGTH",
            Self::Link => "COPY_LINK",
            Self::Many { .. } => "COPY_MANY",
            Self::Offset { .. } => "COPY_OFFSET",
            Self::Owner => "COPY_OWNER",
            Self::Panicked => "COPY_PANICKED",
            Self::Place(error) => error.code(),
        }
    }

    pub(super) fn io<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { action, source: source.into() }
    }
}

impl From<CopyError> for RpcError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Place(error) => Self::Value(error),
            other => Self::Failed(other.code(), crate::error::chain(&other)),
        }
    }
}
