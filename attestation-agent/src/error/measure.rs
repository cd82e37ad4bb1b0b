//! Errors of runtime measurement.

use std::io;

use evidence::EvidenceError;

use super::Class;

/// A measurement was not made, or log and register do not agree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// Log and register do not agree; nobody may go on from here.
    #[error("runtime log: {what}: expected {expected}, found {found}")]
    Conflict {
        /// What disagrees.
        what: &'static str,
        /// What the log leads to.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The event has no form in which it could be logged.
    #[error("event")]
    Event(#[source] EvidenceError),
    /// The log has reached its limit; nothing was extended.
    #[error("runtime log: expected at most {maximum} bytes, found {found} with this event")]
    Full {
        /// The limit.
        maximum: u64,
        /// Bytes with this event.
        found: u64,
    },
    /// The firmware's log or the runtime log cannot be read as one.
    #[error("event log")]
    Log(#[source] EvidenceError),
    /// A register that only firmware extends, or none at all.
    #[error("register: expected a PCR from 8 to 23, found {found}")]
    Register {
        /// What was asked for.
        found: u64,
    },
    /// The directory of the log cannot be used; nothing was extended.
    #[error("{action} {path}: expected a writable run directory with free space")]
    RunDirectory {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl MeasureError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "ATTEST_LOG_CONFLICT",
            Self::Event(_) => "ATTEST_EVENT_INVALID",
            Self::Full { .. } => "ATTEST_LOG_FULL",
            Self::Log(_) => "ATTEST_LOG_INVALID",
            Self::Register { .. } => "ATTEST_REGISTER_REFUSED",
            Self::RunDirectory { .. } => "ATTEST_RUN_DIRECTORY",
        }
    }

    /// Who misbehaved.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Conflict { .. } | Self::Log(_) => Class::HostFault,
            Self::Event(_) | Self::Full { .. } | Self::Register { .. } => Class::PolicyDenied,
            Self::RunDirectory { .. } => Class::Config,
        }
    }
}
