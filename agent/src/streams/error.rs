//! What can go wrong with a stream. Nothing of its contents is in it.

use std::io;

use protocol::status::RpcError;

/// An error of a stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// Nobody may read it here: it goes to a socket of the host.
    #[error("expected a stream that requests read, found one that goes to a socket")]
    NoReader,
    /// It is closed, or nobody reads it any more.
    #[error("expected an open standard input, found a closed one")]
    NoWriter,
    /// It is no terminal, or a closed one.
    #[error("expected a terminal, found none")]
    NoTerminal,
    /// A size of pipes that cannot be.
    #[error("size of pipes: expected at most {maximum} bytes, found {found}")]
    PipeSize {
        /// The most.
        maximum: usize,
        /// What was asked for.
        found: usize,
    },
    /// A call of the system.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl StreamError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoReader => "STREAM_NO_READER",
            Self::NoWriter => "STREAM_NO_WRITER",
            Self::NoTerminal => "STREAM_NO_TERMINAL",
            Self::PipeSize { .. } => "STREAM_PIPE_SIZE",
            Self::System { .. } => "STREAM_SYSTEM",
        }
    }

    pub(super) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { what, source: source.into() }
    }
}

impl From<StreamError> for RpcError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::NoReader => Self::NoReader,
            StreamError::NoWriter => Self::NoWriter,
            StreamError::NoTerminal => Self::NoTerminal,
            other => Self::Failed(other.code(), crate::error::chain(&other)),
        }
    }
}
