//! Errors of the device and of the way to it.

use std::io;

use super::Class;
use crate::abi::{Status, WireError};
use crate::vfio_user::wire::Command;

/// The device broke the interface. The controller was reset, as far as it still can be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// A completion in a session that is not authentic.
    #[error("completion is not authentic (queue {queue}, command {cid}, claims {claimed:#x})")]
    CompletionForged {
        /// Queue pair.
        queue: u16,
        /// Command id.
        cid: u16,
        /// The status that it claims.
        claimed: u16,
    },
    /// A completion for a command that is not outstanding.
    #[error("completion for command {cid} on queue {queue}, which is not outstanding")]
    CompletionUnknown {
        /// Queue pair.
        queue: u16,
        /// Command id.
        cid: u16,
    },
    /// An ability of the device that does not suffice.
    #[error("device offers {what} {found}, expected at least {expected}")]
    Capability {
        /// What.
        what: &'static str,
        /// The least that is needed.
        expected: u64,
        /// What was found.
        found: u64,
    },
    /// The driver was used after a fault, before it was brought up again.
    #[error("controller is down after an earlier fault")]
    Down,
    /// The controller stopped by itself.
    #[error("controller stopped with fatal code {code:#x}{}", status_name(*code))]
    Fatal {
        /// FATAL_CODE.
        code: u32,
    },
    /// The device answers nothing any more.
    #[error("device is gone: {what}")]
    Gone {
        /// Where it was noticed.
        what: &'static str,
    },
    /// Interrupts could not be waited for.
    #[error("waiting for the chip's interrupt failed")]
    Interrupt {
        /// The error of the operating system.
        source: io::Error,
    },
    /// The device did not confirm that it lets go of private memory.
    #[error("device does not confirm that it let go of the destination")]
    KeepsMemory {
        /// Why not.
        source: Box<super::ChipError>,
    },
    /// A completion that claims more output than there was room for.
    #[error("completion claims {found} bytes of output, expected at most {expected}")]
    LengthLie {
        /// Capacity.
        expected: u32,
        /// Claim.
        found: u32,
    },
    /// An answer that has not the form of one.
    #[error("answer to {what} is malformed")]
    Malformed {
        /// The command.
        what: &'static str,
        /// The field.
        source: WireError,
    },
    /// Something else than a chip.
    #[error("not a chip: {what} is {found:#x}, expected {expected:#x}")]
    NotAChip {
        /// The register or field.
        what: &'static str,
        /// Expected value.
        expected: u64,
        /// Value found.
        found: u64,
    },
    /// A submission ring head outside the ring.
    #[error("completion reports submission head {found}, expected below {expected}")]
    RingHead {
        /// Size of the ring.
        expected: u16,
        /// Value found.
        found: u16,
    },
    /// A status code that the interface does not have.
    #[error("completion carries unknown status {found:#x}")]
    StatusUnknown {
        /// Value found.
        found: u16,
    },
    /// Nothing happened in time.
    #[error("no answer within {after_ms} ms: {what}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long, in milliseconds.
        after_ms: u64,
    },
}

impl DeviceError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::CompletionForged { .. } => "CHIP_COMPLETION_FORGED",
            Self::CompletionUnknown { .. } => "CHIP_COMPLETION_UNKNOWN",
            Self::Capability { .. } => "CHIP_CAPABILITY",
            Self::Down => "CHIP_DOWN",
            Self::Fatal { .. } => "CHIP_FATAL",
            Self::Gone { .. } => "CHIP_GONE",
            Self::Interrupt { .. } => "CHIP_INTERRUPT",
            Self::KeepsMemory { .. } => "CHIP_KEEPS_MEMORY",
            Self::LengthLie { .. } => "CHIP_LENGTH_LIE",
            Self::Malformed { .. } => "CHIP_ANSWER_MALFORMED",
            Self::NotAChip { .. } => "CHIP_NOT_A_CHIP",
            Self::RingHead { .. } => "CHIP_RING_HEAD",
            Self::StatusUnknown { .. } => "CHIP_STATUS_UNKNOWN",
            Self::Timeout { .. } => "CHIP_TIMEOUT",
        }
    }

    /// Who misbehaved.
    pub const fn class(&self) -> Class {
        match self {
            Self::Down => Class::Bug,
            Self::Interrupt { .. } => Class::HostFault,
            _ => Class::DeviceFault,
        }
    }
}

/// The way to the device failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection.
    #[error("connection to the chip's socket {path} failed")]
    Connect {
        /// The socket.
        path: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The operating system.
    #[error("transport: {what} failed")]
    Io {
        /// What.
        what: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// No room in the device's address space.
    #[error("no address for {len} bytes left in the chip's address space")]
    IovaExhausted {
        /// Length asked for.
        len: u64,
    },
    /// The other end broke the protocol. The connection is not used any more.
    #[error("transport protocol broken: {what}: expected {expected}, found {found}")]
    Protocol {
        /// The field.
        what: &'static str,
        /// Expected value.
        expected: u64,
        /// Value found.
        found: u64,
    },
    /// The other end refused a request.
    #[error("transport request {command:?} was refused")]
    Refused {
        /// The request.
        command: Command,
        /// Its errno.
        source: io::Error,
    },
}

impl TransportError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "CHIP_CONNECT",
            Self::Io { .. } => "CHIP_TRANSPORT_IO",
            Self::IovaExhausted { .. } => "CHIP_IOVA_EXHAUSTED",
            Self::Protocol { .. } => "CHIP_TRANSPORT_PROTOCOL",
            Self::Refused { .. } => "CHIP_TRANSPORT_REFUSED",
        }
    }

    /// Who misbehaved.
    pub const fn class(&self) -> Class {
        match self {
            Self::Connect { .. } => Class::Config,
            Self::Io { .. } | Self::Refused { .. } => Class::HostFault,
            Self::IovaExhausted { .. } => Class::Bug,
            Self::Protocol { .. } => Class::DeviceFault,
        }
    }
}

fn status_name(code: u32) -> String {
    match u16::try_from(code).ok().and_then(Status::from_u16) {
        Some(status) => format!(" ({})", status.name()),
        None => String::new(),
    }
}
