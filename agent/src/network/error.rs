//! Why the network is not as the host wanted it.

use std::io;

use protocol::status::RpcError;
use rustix::io::Errno;

/// An error of a network request. Where the request changed something, it is as it was before, but for [`NetworkError::NotUndone`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// No link of this hardware address or name.
    #[error("Link not found")]
    LinkNotFound,
    /// A text that is no address.
    #[error("{what}: expected {expected}")]
    Value {
        /// Which text.
        what: &'static str,
        /// Its form.
        expected: &'static str,
    },
    /// The guest's own loopback interface, or an address of it.
    #[error("the loopback interface and its addresses are the guest's own: {what}")]
    Loopback {
        /// What was asked for.
        what: &'static str,
    },
    /// More than an answer has.
    #[error("{what}: expected at most {most}, found {found}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The most.
        most: usize,
        /// How many there are.
        found: usize,
    },
    /// The kernel refused.
    #[error("{what}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// Its answer.
        #[source]
        source: Errno,
    },
    /// A thread of the agent.
    #[error("network: the work was lost")]
    Lost,
    /// A step failed, and then what was before could not be brought back.
    #[error("{cause}; what was before could not be brought back")]
    NotUndone {
        /// Why the request failed.
        cause: Box<NetworkError>,
        /// Why it is not as before.
        source: Errno,
    },
    /// A line of packet filters that is not as `iptables-save` writes it.
    #[error("packet filters, line {line}: expected {expected}")]
    FilterForm {
        /// Which one, from 1.
        line: usize,
        /// Its form.
        expected: &'static str,
    },
    /// A packet filter for what workload and guest components say to each other.
    #[error("packet filters, line {line}: loopback traffic is the guest's own: {what}")]
    FilterLoopback {
        /// Which one, from 1.
        line: usize,
        /// What it would be.
        what: &'static str,
    },
    /// A target that copies packets, or hands them to somebody.
    #[error("packet filters, line {line}: the target is none that a host may use")]
    FilterTarget {
        /// Which one, from 1.
        line: usize,
    },
    /// Packet filters could not be set, and then not be set back.
    #[error("{cause}; the filters that were there before could not be set back")]
    FiltersNotUndone {
        /// Why the request failed.
        cause: Box<NetworkError>,
    },
    /// No program of the image for it.
    #[error("{program}: not in /usr/sbin or /sbin of the image")]
    NoProgram {
        /// Its name.
        program: &'static str,
    },
    /// The program could not be started, fed or read.
    #[error("{program}: {what}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The program said no.
    #[error("{program}: status {status}")]
    ProgramFailed {
        /// Its name.
        program: &'static str,
        /// Its status, or 128 and the signal.
        status: i32,
    },
    /// The program took too long, and was killed.
    #[error("{program}: no end within {seconds} s")]
    ProgramTimeout {
        /// Its name.
        program: &'static str,
        /// How long it had.
        seconds: u64,
    },
}

impl NetworkError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::LinkNotFound => "NETWORK_LINK",
            Self::Value { .. } => "NETWORK_VALUE",
            Self::Loopback { .. } => "NETWORK_LOOPBACK",
            Self::TooMany { .. } => "NETWORK_TOO_MANY",
            Self::Kernel { .. } => "NETWORK_KERNEL",
            Self::Lost => "NETWORK_LOST",
            Self::NotUndone { .. } => "NETWORK_NOT_UNDONE",
            Self::FilterForm { .. } => "IPTABLES_FORM",
            Self::FilterLoopback { .. } => "IPTABLES_LOOPBACK",
            Self::FilterTarget { .. } => "IPTABLES_TARGET",
            Self::FiltersNotUndone { .. } => "IPTABLES_NOT_UNDONE",
            Self::NoProgram { .. } => "IPTABLES_MISSING",
            Self::Program { .. } => "IPTABLES_START",
            Self::ProgramFailed { .. } => "IPTABLES_FAILED",
            Self::ProgramTimeout { .. } => "IPTABLES_TIMEOUT",
        }
    }

    pub(super) fn kernel(what: &'static str) -> impl FnOnce(Errno) -> Self {
        move |source| Self::Kernel { what, source }
    }
}

impl From<NetworkError> for RpcError {
    fn from(error: NetworkError) -> Self {
        match error {
            NetworkError::LinkNotFound => Self::LinkNotFound,
            NetworkError::NoProgram { .. } => Self::Precondition(error.code(), error.to_string()),
            other => Self::Failed(other.code(), crate::error::chain(&other)),
        }
    }
}
