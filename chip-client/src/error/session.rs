//! Errors of trust: chain, session, jobs.

use super::Class;
use crate::abi::InsecureFlags;

/// Certificates that do not lead from the pinned root to the chip.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// A certificate that cannot be read.
    #[error("{which} certificate: {what}")]
    Malformed {
        /// Root, model or chip.
        which: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// A root that is not the pinned one.
    #[error("root certificate: expected key digest {expected}, found {found}")]
    RootMismatch {
        /// The pin.
        expected: String,
        /// The digest found.
        found: String,
    },
    /// A certificate that cannot be issued.
    #[error("certificate cannot be issued: {what}")]
    Unissuable {
        /// What is wrong.
        what: &'static str,
    },
    /// A rule of the chain that does not hold.
    #[error("{which} certificate is not trusted: expected {expected}")]
    Untrusted {
        /// Root, model or chip.
        which: &'static str,
        /// The rule.
        expected: &'static str,
    },
}

impl ChainError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "CHIP_CERTIFICATE_MALFORMED",
            Self::RootMismatch { .. } | Self::Untrusted { .. } => "CHIP_CHAIN_UNTRUSTED",
            Self::Unissuable { .. } => "CHIP_CERTIFICATE_UNISSUABLE",
        }
    }

    /// Who misbehaved.
    pub const fn class(&self) -> Class {
        match self {
            Self::Unissuable { .. } => Class::Config,
            _ => Class::DeviceFault,
        }
    }
}

/// The session is not the one that was demanded, or its other end is not who it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The session's budget is used up.
    #[error("session budget is used up: open a new session")]
    Budget,
    /// Another data path than the demanded one.
    #[error("path downgrade: expected {expected}, found {found}")]
    DowngradePath {
        /// The demanded path.
        expected: &'static str,
        /// The chip's path.
        found: &'static str,
    },
    /// A weaker suite than the demanded one.
    #[error("suite downgrade: expected {expected}, found {found}")]
    DowngradeSuite {
        /// The demanded suite.
        expected: &'static str,
        /// The chip's choice.
        found: &'static str,
    },
    /// The session ended before.
    #[error("session has ended")]
    Ended,
    /// A key epoch that the certificate does not confirm.
    #[error("key epoch: certificate says {expected}, chip says {found}")]
    EpochMismatch {
        /// Certified epoch.
        expected: u64,
        /// Epoch in the handshake.
        found: u64,
    },
    /// The source of evidence failed.
    #[error("evidence could not be made")]
    EvidenceFailed {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No evidence, and no flag that allows to go without.
    #[error("evidence: expected some, found none, and the insecure flag no-evidence is not set")]
    EvidenceMissing,
    /// Evidence or policy above its cap.
    #[error("{what} of {found} bytes, expected at most {expected}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The cap.
        expected: usize,
        /// The length.
        found: usize,
    },
    /// The handshake is not authentic.
    #[error("handshake failed: {what}")]
    Handshake {
        /// Which step.
        what: &'static str,
    },
    /// Insecure modes of the chip that were not accepted by name.
    #[error("insecure modes of the chip: accepted {accepted}, found {found}")]
    InsecureRefused {
        /// Accepted.
        accepted: InsecureFlags,
        /// Found.
        found: InsecureFlags,
    },
    /// A link state in which the demanded path is not allowed.
    #[error("link state: expected {expected}, found {found}")]
    LinkState {
        /// What the path needs.
        expected: &'static str,
        /// The chip's state.
        found: &'static str,
    },
    /// Another chip than the expected one.
    #[error("other chip: expected {expected}, found {found}")]
    OtherChip {
        /// Expected id.
        expected: String,
        /// Id found.
        found: String,
    },
    /// A job that this session's path does not carry.
    #[error("{what} needs a session of path {expected}, this one is {found}")]
    PathMisuse {
        /// The job.
        what: &'static str,
        /// Needed path.
        expected: &'static str,
        /// The session's path.
        found: &'static str,
    },
    /// The chip hashed another policy than the one that was sent.
    #[error("policy digest of the chip differs from the one of the preimage that was sent")]
    PolicyDigest,
    /// The chip's signature over the transcript does not hold.
    #[error("the chip's signature over the session does not verify under its certified key")]
    Signature,
    /// A static key that the certificate does not confirm.
    #[error("static key of the handshake is not the certified one")]
    StaticKey,
    /// A requirement that contradicts itself.
    #[error("session requirement cannot be met: {what}")]
    Requirement {
        /// What.
        what: &'static str,
    },
    /// The cryptographic library failed.
    #[error("cryptographic operation failed: {what}")]
    Crypto {
        /// What.
        what: &'static str,
    },
}

impl SessionError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Budget => "CHIP_BUDGET",
            Self::DowngradePath { .. } => "CHIP_DOWNGRADE_PATH",
            Self::DowngradeSuite { .. } => "CHIP_DOWNGRADE_SUITE",
            Self::Ended => "CHIP_SESSION_ENDED",
            Self::EpochMismatch { .. } => "CHIP_EPOCH_MISMATCH",
            Self::EvidenceFailed { .. } => "CHIP_EVIDENCE_FAILED",
            Self::EvidenceMissing => "CHIP_EVIDENCE_MISSING",
            Self::TooLarge { .. } => "CHIP_INPUT_TOO_LARGE",
            Self::Handshake { .. } => "CHIP_HANDSHAKE",
            Self::InsecureRefused { .. } => "CHIP_INSECURE_REFUSED",
            Self::LinkState { .. } => "CHIP_LINK_STATE",
            Self::OtherChip { .. } => "CHIP_OTHER_CHIP",
            Self::PathMisuse { .. } => "CHIP_PATH_MISUSE",
            Self::PolicyDigest => "CHIP_POLICY_DIGEST",
            Self::Signature => "CHIP_SESSION_SIGNATURE",
            Self::StaticKey => "CHIP_STATIC_KEY",
            Self::Requirement { .. } => "CHIP_REQUIREMENT",
            Self::Crypto { .. } => "CHIP_CRYPTO",
        }
    }

    /// Who misbehaved.
    pub const fn class(&self) -> Class {
        match self {
            Self::Budget => Class::Transient,
            Self::Ended | Self::PathMisuse { .. } | Self::Crypto { .. } => Class::Bug,
            Self::EvidenceFailed { .. }
            | Self::EvidenceMissing
            | Self::Requirement { .. }
            | Self::TooLarge { .. } => Class::Config,
            Self::InsecureRefused { .. } => Class::PolicyDenied,
            _ => Class::DeviceFault,
        }
    }
}

/// An unseal job failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// A destination, tag table or payload whose length is not the core's.
    #[error("{what}: expected {expected} bytes, found {found}")]
    Length {
        /// What.
        what: &'static str,
        /// Expected length.
        expected: u64,
        /// Length found.
        found: u64,
    },
    /// No such payload.
    #[error("payload {found}: expected an index below {expected}")]
    NoPayload {
        /// Number of payloads.
        expected: usize,
        /// Index asked for.
        found: u32,
    },
    /// The digest of the whole plaintext is not the core's.
    #[error("payload {payload}: digest of the plaintext differs from the core's")]
    PayloadDigest {
        /// Payload index.
        payload: u32,
    },
    /// A segment that came through shared memory is not authentic.
    #[error("payload {payload}, segment {segment}: not authentic on its way from the chip")]
    SegmentForged {
        /// Payload index.
        payload: u32,
        /// Segment index.
        segment: u64,
    },
    /// Ciphertext or tags could not be read.
    #[error("reading of the {what} failed")]
    Source {
        /// What.
        what: &'static str,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

impl JobError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Length { .. } => "CHIP_JOB_LENGTH",
            Self::NoPayload { .. } => "CHIP_NO_PAYLOAD",
            Self::PayloadDigest { .. } => "CHIP_PAYLOAD_DIGEST",
            Self::SegmentForged { .. } => "CHIP_SEGMENT_FORGED",
            Self::Source { .. } => "CHIP_SOURCE",
        }
    }

    /// Who misbehaved.
    pub const fn class(&self) -> Class {
        match self {
            Self::SegmentForged { .. } => Class::DeviceFault,
            Self::Length { .. } | Self::PayloadDigest { .. } | Self::Source { .. } => Class::HostFault,
            Self::NoPayload { .. } => Class::Config,
        }
    }
}
