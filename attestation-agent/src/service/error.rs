//! Errors of the service, and the status that each becomes on the wire.

use std::io;

use ttrpc::{Code, get_status};

use crate::error::{AttestationError, BindingError, MeasureError, TeeError};
use crate::kbs::KbsError;

/// Longest text of a status.
const MAXIMUM_STATUS_BYTES: usize = 512;

/// Why a request, or the whole service, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The platform, the log, the configuration.
    #[error(transparent)]
    Attestation(#[from] AttestationError),
    /// Too many requests of this peer are waiting.
    #[error("too many requests of this peer are waiting; try again")]
    Busy,
    /// The bound configuration does not allow it.
    #[error("{what} is not allowed to this peer; expected {wanted} in the bound configuration to say so")]
    Denied {
        /// What was asked for.
        what: &'static str,
        /// What would allow it.
        wanted: &'static str,
    },
    /// A worker was lost.
    #[error("the request was interrupted")]
    Interrupted,
    /// The key broker.
    #[error(transparent)]
    Kbs(#[from] KbsError),
    /// No broker is configured.
    #[error("expected token_configs.kbs in the bound configuration, found none")]
    NoBroker,
    /// The kernel does not tell who the peer is.
    #[error("peer: the kernel does not tell who it is")]
    PeerUnknown(#[source] io::Error),
    /// The socket cannot be made.
    #[error("{action} {path}")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A kind of token that this agent does not get.
    #[error("token type: expected kbs, found {found}")]
    TokenType {
        /// What was asked for.
        found: String,
    },
    /// More than a request may carry.
    #[error("{what}: expected at most {maximum} bytes, found {found}")]
    TooLarge {
        /// Which field.
        what: &'static str,
        /// The limit.
        maximum: usize,
        /// What came.
        found: usize,
    },
}

impl ServiceError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Attestation(error) => error.code(),
            Self::Busy => "ATTEST_BUSY",
            Self::Denied { .. } => "ATTEST_PEER_DENIED",
            Self::Interrupted => "ATTEST_INTERRUPTED",
            Self::Kbs(error) => error.code(),
            Self::NoBroker => "ATTEST_NO_BROKER",
            Self::PeerUnknown(_) => "ATTEST_PEER_UNKNOWN",
            Self::Socket { .. } => "ATTEST_SOCKET",
            Self::TokenType { .. } => "ATTEST_TOKEN_TYPE",
            Self::TooLarge { .. } => "ATTEST_REQUEST_TOO_LARGE",
        }
    }

    /// The status on the wire: everything that upstream has no word for is INTERNAL, as there.
    pub(crate) fn status(&self) -> ttrpc::Error {
        let code = match self {
            Self::Busy => Code::RESOURCE_EXHAUSTED,
            Self::Denied { .. } | Self::PeerUnknown(_) => Code::PERMISSION_DENIED,
            Self::NoBroker | Self::Attestation(AttestationError::Binding(BindingError::Mismatch { .. })) => {
                Code::FAILED_PRECONDITION
            }
            Self::TokenType { .. }
            | Self::TooLarge { .. }
            | Self::Attestation(AttestationError::Measure(
                MeasureError::Event(_) | MeasureError::Register { .. },
            )) => Code::INVALID_ARGUMENT,
            _ => Code::INTERNAL,
        };
        let mut text = format!("[ERROR:attestation-agent] {}: {self}", self.code());
        let end = text.floor_char_boundary(MAXIMUM_STATUS_BYTES);
        text.truncate(end);
        ttrpc::Error::RpcStatus(get_status(code, text))
    }
}

impl From<TeeError> for ServiceError {
    fn from(error: TeeError) -> Self {
        Self::Attestation(error.into())
    }
}

impl From<BindingError> for ServiceError {
    fn from(error: BindingError) -> Self {
        Self::Attestation(error.into())
    }
}
