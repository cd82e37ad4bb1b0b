//! What can go wrong, who misbehaved, and the stable code of each case.

mod device;
mod session;

pub use device::{DeviceError, TransportError};
pub use session::{ChainError, JobError, SessionError};

use crate::abi::{EvidenceDetail, Opcode, Status, WireError};
use crate::vfio::VfioError;

/// Who misbehaved. The class alone decides whether to retry and how loud to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// A mistake of this program.
    Bug,
    /// Something that the operator asked for or set up cannot work.
    Config,
    /// The chip, or who stands in for it, broke the interface or could not prove who it is.
    DeviceFault,
    /// The machine below, or who hands out ciphertext.
    HostFault,
    /// A decision against this guest.
    PolicyDenied,
    /// May work when tried again.
    Transient,
}

/// An error of the client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChipError {
    /// Sealed artifact: an object of the artifact is not acceptable.
    #[error(transparent)]
    Artifact(#[from] sealed_artifact::ArtifactError),
    /// Certificates that do not lead from the pinned root to the chip.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The device broke the interface.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// An unseal job failed.
    #[error(transparent)]
    Job(#[from] JobError),
    /// Memory for the device.
    #[error("memory for the chip")]
    Memory(#[from] protected_memory::dma::DmaError),
    /// A landing file could not be given to the device or filled.
    #[error("landing of the chip's plaintext")]
    Landing(#[from] protected_memory::landing::LandingError),
    /// The chip refused a command.
    #[error("the chip refused {}: {}{}", command.name(), status.name(), detail_text(*status, *detail))]
    Refused {
        /// The command.
        command: Opcode,
        /// The status.
        status: Status,
        /// Detail of the status.
        detail: u32,
    },
    /// The session is not the one that was demanded.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The way to the device failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The kernel's VFIO.
    #[error(transparent)]
    Vfio(#[from] VfioError),
}

impl ChipError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Artifact(e) => e.code(),
            Self::Chain(e) => e.code(),
            Self::Device(e) => e.code(),
            Self::Job(e) => e.code(),
            Self::Landing(e) => e.code(),
            Self::Memory(e) => e.code(),
            Self::Refused { status, .. } => status.client_code(),
            Self::Session(e) => e.code(),
            Self::Transport(e) => e.code(),
            Self::Vfio(e) => e.code(),
        }
    }

    /// Who misbehaved.
    pub fn class(&self) -> Class {
        match self {
            Self::Artifact(_) => Class::HostFault,
            Self::Chain(e) => e.class(),
            Self::Device(e) => e.class(),
            Self::Job(e) => e.class(),
            Self::Landing(_) | Self::Memory(_) => Class::HostFault,
            Self::Refused { status, .. } => status_class(*status),
            Self::Session(e) => e.class(),
            Self::Transport(e) => e.class(),
            Self::Vfio(e) => e.class(),
        }
    }

    /// An answer to `command` that has not the form of one.
    pub(crate) fn malformed(command: Opcode) -> impl FnOnce(WireError) -> Self {
        move |source| Self::Device(DeviceError::Malformed { what: command.name(), source })
    }
}

/// The class of a refusal.
pub const fn status_class(status: Status) -> Class {
    match status {
        Status::Ok
        | Status::BadOpcode
        | Status::BadLength
        | Status::BadField
        | Status::DmaFault
        | Status::NoSession
        | Status::Sequence
        | Status::NoHandle
        | Status::Range
        | Status::TagsNotLoaded => Class::Bug,
        Status::Internal | Status::Handshake | Status::Auth | Status::PufFailed => Class::DeviceFault,
        Status::NoResources | Status::Aborted | Status::Budget => Class::Transient,
        Status::NotProvisioned
        | Status::AlreadyProvisioned
        | Status::Suite
        | Status::Path
        | Status::Epoch
        | Status::PolicyMalformed => Class::Config,
        Status::InsecureRefused
        | Status::PolicyDenied
        | Status::EvidenceRequired
        | Status::EvidenceRefused
        | Status::Rollback => Class::PolicyDenied,
        Status::CoreMalformed
        | Status::UnwrapFailed
        | Status::SignatureInvalid
        | Status::CommitmentMismatch
        | Status::TagsMismatch
        | Status::SegmentAuth => Class::HostFault,
    }
}

/// The condition behind the detail of POLICY_DENIED (spec §8.1).
pub const fn policy_rule(detail: u32) -> Option<&'static str> {
    match detail {
        1 => Some("environment of the core"),
        2 => Some("environment of the chip"),
        3 => Some("family"),
        4 => Some("link_mode"),
        5 => Some("min_counter"),
        _ => None,
    }
}

/// What the detail of EVIDENCE_REFUSED says (spec §9.1).
pub const fn evidence_detail(detail: u32) -> Option<EvidenceDetail> {
    EvidenceDetail::from_u32(detail)
}

fn evidence_text(detail: u32) -> String {
    match evidence_detail(detail) {
        Some(rule) if rule.is_rule() => {
            format!(" (expected every rule met, found not met: {})", rule.name())
        }
        Some(part) => format!(" (expected evidence that verifies, found: {})", part.name()),
        None => format!(" (expected evidence that holds, found: detail {detail:#x})"),
    }
}

fn detail_text(status: Status, detail: u32) -> String {
    match (status, policy_rule(detail)) {
        (Status::PolicyDenied, Some(rule)) => {
            format!(" (expected every condition true, found false: {rule})")
        }
        (Status::PolicyDenied, None) => {
            format!(" (expected every condition true, found false: rule {detail})")
        }
        (Status::EvidenceRefused, _) => evidence_text(detail),
        (Status::SegmentAuth, _) => format!(" (segment {detail})"),
        (Status::EvidenceRequired, _) => " (expected verified evidence, found none)".to_owned(),
        (_, _) if detail == 0 => String::new(),
        _ => format!(" (detail {detail:#x})"),
    }
}

#[cfg(test)]
mod tests;
