//! The error of this crate: what was refused, a stable code, who was at fault.

use std::fmt;

#[cfg(test)]
mod tests;

/// Why evidence was refused. Every variant has a stable [`code`](EvidenceError::code), listed in
/// `docs/spec/evidence.md`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// A certificate or revocation list that is not of the form its issuer gives it.
    #[error("{which}: expected {expected}, found {found}")]
    CertificateInvalid {
        /// Which certificate or list.
        which: &'static str,
        /// What it has to be.
        expected: &'static str,
        /// What it is.
        found: Found,
    },
    /// Something that is needed to verify was not presented: unavailable, not untrusted.
    #[error("expected {what}, found none")]
    CollateralMissing {
        /// What is needed.
        what: &'static str,
    },
    /// An event log that does not lead to the register that the evidence states.
    #[error("event log: {register}: expected {expected}, found {found}")]
    LogMismatch {
        /// Which register.
        register: &'static str,
        /// Value in the verified evidence.
        expected: Found,
        /// Value that the log leads to.
        found: Found,
    },
    /// Bytes or text that do not have the form of their format.
    #[error("{what}: expected {expected}, found {found}")]
    Malformed {
        /// Which structure and field.
        what: &'static str,
        /// The form.
        expected: &'static str,
        /// What was there.
        found: Found,
    },
    /// Collateral or a certificate outside its time.
    #[error("{what}: expected to hold at {now}, found {not_before} to {not_after}")]
    NotInTime {
        /// Which object.
        what: &'static str,
        /// Seconds since 1970 from which it holds.
        not_before: u64,
        /// Seconds since 1970 until which it holds.
        not_after: u64,
        /// The trusted time of this verification.
        now: u64,
    },
    /// Certificates or collateral of another platform than the one that signed.
    #[error("{field}: expected {expected}, found {found}")]
    PlatformMismatch {
        /// Which field differs.
        field: &'static str,
        /// The value in the certificate of the platform.
        expected: Found,
        /// The value in the report or the collateral.
        found: Found,
    },
    /// A rule of the policy does not allow what the evidence shows.
    #[error("policy: {rule}: expected {expected}, found {found}")]
    PolicyDenied {
        /// The rule.
        rule: &'static str,
        /// What it allows.
        expected: Found,
        /// What the evidence shows.
        found: Found,
    },
    /// Bits or bytes that the format reserves are not zero.
    #[error("{what}: expected reserved bits to be zero, found {found} at byte {offset}")]
    ReservedNotZero {
        /// Which structure.
        what: &'static str,
        /// Offset of the first such byte in the structure.
        offset: usize,
        /// That byte.
        found: u8,
    },
    /// A certificate that its issuer revoked.
    #[error("{which}: revoked by its issuer, serial number {serial}")]
    Revoked {
        /// Which certificate.
        which: &'static str,
        /// Serial number in hex.
        serial: Found,
    },
    /// A chain that does not end at a root that was chosen.
    #[error("root: expected {expected}, found {found}")]
    RootUntrusted {
        /// Fingerprint of the root that is trusted.
        expected: Found,
        /// Fingerprint of the root that was presented.
        found: Found,
    },
    /// A signature, or what binds one signed object to another, does not verify.
    #[error("{what}: verification failed: {reason}")]
    SignatureInvalid {
        /// What was verified.
        what: &'static str,
        /// What the verifying library says.
        reason: Found,
    },
    /// The TCB or the configuration of the platform is not acceptable.
    #[error("platform: {reason}")]
    TcbRefused {
        /// What is not accepted.
        reason: Found,
    },
    /// More bytes or elements than this version takes.
    #[error("{what}: expected at most {maximum}, found {found}")]
    TooLarge {
        /// Which object.
        what: &'static str,
        /// The limit.
        maximum: usize,
        /// What was given.
        found: usize,
    },
    /// Bytes after the end of a structure.
    #[error("{what}: expected to end after {expected} bytes, found {found} more")]
    TrailingBytes {
        /// Which structure.
        what: &'static str,
        /// Its length.
        expected: usize,
        /// Bytes after it.
        found: usize,
    },
    /// A version, type or algorithm that this version does not know.
    #[error("{what}: expected {expected}, found {found}")]
    Unsupported {
        /// Which field.
        what: &'static str,
        /// What is known.
        expected: &'static str,
        /// What was there.
        found: Found,
    },
}

impl EvidenceError {
    /// All codes, in the order of the table in the specification.
    pub const CODES: [&'static str; 15] = [
        "EVIDENCE_CERTIFICATE_INVALID",
        "EVIDENCE_COLLATERAL_MISSING",
        "EVIDENCE_LOG_MISMATCH",
        "EVIDENCE_MALFORMED",
        "EVIDENCE_NOT_IN_TIME",
        "EVIDENCE_PLATFORM_MISMATCH",
        "EVIDENCE_POLICY_DENIED",
        "EVIDENCE_RESERVED_NOT_ZERO",
        "EVIDENCE_REVOKED",
        "EVIDENCE_ROOT_UNTRUSTED",
        "EVIDENCE_SIGNATURE_INVALID",
        "EVIDENCE_TCB_REFUSED",
        "EVIDENCE_TOO_LARGE",
        "EVIDENCE_TRAILING_BYTES",
        "EVIDENCE_UNSUPPORTED",
    ];

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::CertificateInvalid { .. } => "EVIDENCE_CERTIFICATE_INVALID",
            Self::CollateralMissing { .. } => "EVIDENCE_COLLATERAL_MISSING",
            Self::LogMismatch { .. } => "EVIDENCE_LOG_MISMATCH",
            Self::Malformed { .. } => "EVIDENCE_MALFORMED",
            Self::NotInTime { .. } => "EVIDENCE_NOT_IN_TIME",
            Self::PlatformMismatch { .. } => "EVIDENCE_PLATFORM_MISMATCH",
            Self::PolicyDenied { .. } => "EVIDENCE_POLICY_DENIED",
            Self::ReservedNotZero { .. } => "EVIDENCE_RESERVED_NOT_ZERO",
            Self::Revoked { .. } => "EVIDENCE_REVOKED",
            Self::RootUntrusted { .. } => "EVIDENCE_ROOT_UNTRUSTED",
            Self::SignatureInvalid { .. } => "EVIDENCE_SIGNATURE_INVALID",
            Self::TcbRefused { .. } => "EVIDENCE_TCB_REFUSED",
            Self::TooLarge { .. } => "EVIDENCE_TOO_LARGE",
            Self::TrailingBytes { .. } => "EVIDENCE_TRAILING_BYTES",
            Self::Unsupported { .. } => "EVIDENCE_UNSUPPORTED",
        }
    }

    /// Who is at fault; the class alone decides about retry and alarm.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::PolicyDenied { .. } | Self::TcbRefused { .. } => Class::PolicyDenied,
            Self::CollateralMissing { .. } | Self::NotInTime { .. } => Class::Unavailable,
            Self::CertificateInvalid { .. }
            | Self::LogMismatch { .. }
            | Self::Malformed { .. }
            | Self::PlatformMismatch { .. }
            | Self::ReservedNotZero { .. }
            | Self::Revoked { .. }
            | Self::RootUntrusted { .. }
            | Self::SignatureInvalid { .. }
            | Self::TooLarge { .. }
            | Self::TrailingBytes { .. }
            | Self::Unsupported { .. } => Class::EvidenceFault,
        }
    }
}

/// Who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// Whoever made or carried the evidence: the platform or the host.
    EvidenceFault,
    /// A rule that was asked for said no.
    PolicyDenied,
    /// Nothing is known to be wrong with the guest; current collateral may help.
    Unavailable,
}

/// A short, printable rendering of something expected or found: at most 160 characters, control characters escaped.
#[derive(Clone, PartialEq, Eq)]
pub struct Found(String);

impl Found {
    const MAXIMUM_CHARACTERS: usize = 160;

    /// Renders text from outside; escaped and shortened.
    #[must_use]
    pub fn text(text: &str) -> Self {
        let mut characters = text.chars().flat_map(char::escape_debug);
        let mut shown: String = characters.by_ref().take(Self::MAXIMUM_CHARACTERS).collect();
        if characters.next().is_some() {
            shown.push('…');
        }
        Self(shown)
    }

    /// Renders bytes in hex.
    #[must_use]
    pub fn hex(bytes: &[u8]) -> Self {
        Self::text(&hex::encode(bytes.get(..Self::MAXIMUM_CHARACTERS).unwrap_or(bytes)))
    }

    /// Renders a value that is known to be short and printable.
    #[must_use]
    pub fn value(value: impl fmt::Display) -> Self {
        Self::text(&value.to_string())
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
