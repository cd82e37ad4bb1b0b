//! The error of this crate: who was at fault, a stable code, and a sentence with what was expected and what was found.

use std::fmt;

#[cfg(test)]
mod tests;

/// What went wrong. Every variant has a stable [`code`](ArtifactError::code), listed in the specification, section 13.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// The caller stopped the work.
    #[error("cancelled by the caller")]
    Cancelled,
    /// A slot, directory, region or blob is not what its carrier says.
    #[error("carrier: expected {expected}, found {found}")]
    CarrierCorrupt {
        /// What a sound carrier has here.
        expected: &'static str,
        /// What was there.
        found: Found,
    },
    /// The content key is not the key of this core.
    #[error("payload {payload}: the content key does not match the key commitment in the core")]
    CommitmentMismatch {
        /// Zero-based index of the payload.
        payload: u32,
    },
    /// The policy demands evidence of the guest, and none was judged.
    #[error("the policy demands evidence, found no judgement of any")]
    EvidenceRequired,
    /// A second recipient, or a broker, for a core whose holders can forge its payloads.
    #[error("expected a core with payload digests, found none: {reason}")]
    GrantForgeable {
        /// Why payload digests are needed for this grant.
        reason: &'static str,
    },
    /// A kind or suite of grant that this version does not implement.
    #[error("grant: expected a known {member}, found {found}")]
    GrantKindUnknown {
        /// `kind` or `suite`.
        member: &'static str,
        /// What the grant says.
        found: Found,
    },
    /// The grant did not open: another policy, core, recipient or epoch than at sealing, or a forgery.
    #[error("the grant did not open under this recipient, epoch, core and policy")]
    GrantOpenFailed,
    /// The grant names another object or core.
    #[error("grant: expected {expected}, found {found}")]
    GrantWrongObject {
        /// What was to be opened.
        expected: Found,
        /// What the grant names.
        found: Found,
    },
    /// The grant names another recipient, key, epoch or suite.
    #[error("grant: expected {member} {expected}, found {found}")]
    GrantWrongRecipient {
        /// Which member differs.
        member: &'static str,
        /// The recipient's own.
        expected: Found,
        /// What the grant names.
        found: Found,
    },
    /// A key that is not of the stated kind and form.
    #[error("key: expected {expected}, found {found}")]
    KeyInvalid {
        /// The kind and form that was expected.
        expected: &'static str,
        /// Length or kind of what was given; never key material.
        found: Found,
    },
    /// A blob or tag table of another length than the core says.
    #[error("payload {payload}: expected {expected} bytes of {what}, found {found}")]
    LengthMismatch {
        /// Zero-based index of the payload.
        payload: u32,
        /// `tag table`, `ciphertext`, `segment` or `destination`.
        what: &'static str,
        /// Length by the core.
        expected: u64,
        /// Length given.
        found: u64,
    },
    /// A length, count or number outside the limits of the format.
    #[error("{what}: expected {minimum} to {maximum}, found {found}")]
    LimitExceeded {
        /// Which limit.
        what: &'static str,
        /// Smallest value allowed.
        minimum: u64,
        /// Largest value allowed.
        maximum: u64,
        /// The value found.
        found: u64,
    },
    /// Bytes that do not have the form that the specification demands.
    #[error("{what}: expected {expected}, found {found}")]
    Malformed {
        /// Which object or member.
        what: &'static str,
        /// The form that was expected.
        expected: &'static str,
        /// What was there, shortened.
        found: Found,
    },
    /// The index has no such tag or artifact.
    #[error("expected {what} in the index, found none")]
    NotFound {
        /// What was looked for.
        what: Found,
    },
    /// Well-formed JSON that is not its canonical encoding.
    #[error("{what}: expected canonical JSON, found a difference at byte {offset}")]
    NotCanonical {
        /// Which object.
        what: &'static str,
        /// First byte that differs.
        offset: u64,
    },
    /// Neither pinned by digest nor signed by a pinned sealer key and family.
    #[error("origin: expected {expected}, found {found}")]
    OriginUnproven {
        /// What would have been accepted.
        expected: Found,
        /// What the core and its signature show.
        found: Found,
    },
    /// All tags verified, but the plaintext is not the one whose digest the core states.
    #[error("payload {payload}: the plaintext does not match the payload digest in the core")]
    PayloadDigestMismatch {
        /// Zero-based index of the payload.
        payload: u32,
    },
    /// Completeness was asked for before all segments were through.
    #[error("payload {payload}: expected {expected} segments, found {found}")]
    PayloadIncomplete {
        /// Zero-based index of the payload.
        payload: u32,
        /// Segments of the payload.
        expected: u64,
        /// Segments that are done.
        found: u64,
    },
    /// A pin by key that does not say which family or which minimum counter.
    #[error("pin by sealer key: expected a {missing}, found none")]
    PinIncomplete {
        /// `family` or `minimum counter`.
        missing: &'static str,
    },
    /// A member of the policy does not allow what is.
    #[error("policy: {rule}: expected {expected}, found {found}")]
    PolicyDenied {
        /// The member of the policy that denied.
        rule: &'static str,
        /// What the policy allows.
        expected: Found,
        /// What is.
        found: Found,
    },
    /// A weak policy without leave to use one.
    #[error("expected a policy without weaknesses or leave for a weak one, found {first} and {more} more")]
    PolicyWeak {
        /// Code of the first finding.
        first: &'static str,
        /// How many more findings there are.
        more: usize,
    },
    /// The system's random generator failed.
    #[error("the system's random generator failed")]
    RandomUnavailable,
    /// The counter is below what is known for this family.
    #[error("rollback: expected counter {expected} or more for family {family}, found {found}")]
    Rollback {
        /// The family of the core.
        family: Found,
        /// The highest floor known.
        expected: u64,
        /// The counter of the core.
        found: u64,
    },
    /// A segment whose tag does not verify. Nothing of it was released.
    #[error("payload {payload}, segment {segment}: authentication failed")]
    SegmentAuthFailed {
        /// Zero-based index of the payload.
        payload: u32,
        /// Zero-based index of the segment.
        segment: u32,
    },
    /// A segment was to be encrypted a second time under the same nonce.
    #[error("payload {payload}, segment {segment}: expected to be sealed once, found a second time")]
    SegmentReused {
        /// Zero-based index of the payload.
        payload: u32,
        /// Zero-based index of the segment.
        segment: u32,
    },
    /// A signature object that does not belong to the core, or does not verify.
    #[error("signature: expected {expected}, found {found}")]
    SignatureInvalid {
        /// What a valid signature has here.
        expected: Found,
        /// What was there.
        found: Found,
    },
    /// The tag table is not the one whose digest the core states.
    #[error("payload {payload}: tag table: expected digest {expected}, found {found}")]
    TagTableMismatch {
        /// Zero-based index of the payload.
        payload: u32,
        /// Digest by the core.
        expected: Found,
        /// Digest of the table given.
        found: Found,
    },
}

impl ArtifactError {
    /// The stable code; the table is in the specification, section 13.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Cancelled => "CANCELLED",
            Self::CarrierCorrupt { .. } => "CARRIER_CORRUPT",
            Self::CommitmentMismatch { .. } => "COMMITMENT_MISMATCH",
            Self::EvidenceRequired => "EVIDENCE_REQUIRED",
            Self::GrantForgeable { .. } => "GRANT_FORGEABLE",
            Self::GrantKindUnknown { .. } => "GRANT_KIND_UNKNOWN",
            Self::GrantOpenFailed => "GRANT_OPEN_FAILED",
            Self::GrantWrongObject { .. } => "GRANT_WRONG_OBJECT",
            Self::GrantWrongRecipient { .. } => "GRANT_WRONG_RECIPIENT",
            Self::KeyInvalid { .. } => "KEY_INVALID",
            Self::LengthMismatch { .. } => "LENGTH_MISMATCH",
            Self::LimitExceeded { .. } => "LIMIT_EXCEEDED",
            Self::Malformed { .. } => "MALFORMED",
            Self::NotCanonical { .. } => "NOT_CANONICAL",
            Self::NotFound { .. } => "NOT_FOUND",
            Self::OriginUnproven { .. } => "ORIGIN_UNPROVEN",
            Self::PayloadDigestMismatch { .. } => "PAYLOAD_DIGEST_MISMATCH",
            Self::PayloadIncomplete { .. } => "PAYLOAD_INCOMPLETE",
            Self::PinIncomplete { .. } => "PIN_INCOMPLETE",
            Self::PolicyDenied { .. } => "POLICY_DENIED",
            Self::PolicyWeak { .. } => "POLICY_WEAK",
            Self::RandomUnavailable => "RANDOM_UNAVAILABLE",
            Self::Rollback { .. } => "ROLLBACK",
            Self::SegmentAuthFailed { .. } => "SEGMENT_AUTH_FAILED",
            Self::SegmentReused { .. } => "SEGMENT_REUSED",
            Self::SignatureInvalid { .. } => "SIGNATURE_INVALID",
            Self::TagTableMismatch { .. } => "TAG_TABLE_MISMATCH",
        }
    }

    /// Whose fault it is; the class alone decides about retry and alarm.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Cancelled | Self::RandomUnavailable => Class::Transient,
            Self::PayloadIncomplete { .. } | Self::SegmentReused { .. } => Class::Bug,
            Self::GrantForgeable { .. }
            | Self::KeyInvalid { .. }
            | Self::PinIncomplete { .. }
            | Self::PolicyWeak { .. } => Class::Config,
            Self::EvidenceRequired
            | Self::OriginUnproven { .. }
            | Self::PolicyDenied { .. }
            | Self::Rollback { .. } => Class::PolicyDenied,
            Self::CarrierCorrupt { .. }
            | Self::CommitmentMismatch { .. }
            | Self::GrantKindUnknown { .. }
            | Self::GrantOpenFailed
            | Self::GrantWrongObject { .. }
            | Self::GrantWrongRecipient { .. }
            | Self::LengthMismatch { .. }
            | Self::LimitExceeded { .. }
            | Self::Malformed { .. }
            | Self::NotCanonical { .. }
            | Self::NotFound { .. }
            | Self::PayloadDigestMismatch { .. }
            | Self::SegmentAuthFailed { .. }
            | Self::SignatureInvalid { .. }
            | Self::TagTableMismatch { .. } => Class::StoredDataFault,
        }
    }
}

/// Who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// A mistake in the calling program.
    Bug,
    /// The caller's choice of keys, pins or policies.
    Config,
    /// A rule that was asked for said no.
    PolicyDenied,
    /// Whoever made, stored or carried the bytes.
    StoredDataFault,
    /// Trying again may help.
    Transient,
}

/// A short, printable rendering of something that was expected or found: at most 96 characters, control characters escaped.
#[derive(Clone, PartialEq, Eq)]
pub struct Found(String);

impl Found {
    const MAXIMUM_CHARACTERS: usize = 96;

    /// Renders text from outside; escaped and shortened.
    #[must_use]
    pub fn text(text: &str) -> Self {
        let mut shown: String =
            text.chars().flat_map(char::escape_debug).take(Self::MAXIMUM_CHARACTERS).collect();
        if text.len() > shown.len() {
            shown.push('…');
        }
        Self(shown)
    }

    /// Renders a value that is known to be short and printable.
    pub(crate) fn value(value: impl fmt::Display) -> Self {
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

/// Refuses a number outside `minimum..=maximum`.
pub(crate) fn limit(what: &'static str, minimum: u64, maximum: u64, found: u64) -> Result<(), ArtifactError> {
    // GUARD: limits -> evil_numbers_outside_the_limits_are_refused, evil_oversize_objects_are_refused_before_parsing
    if found < minimum || found > maximum {
        return Err(ArtifactError::LimitExceeded { what, minimum, maximum, found });
    }
    Ok(())
}

/// Length of a slice as the format counts.
pub(crate) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
