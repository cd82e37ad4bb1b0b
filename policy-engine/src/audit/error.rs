//! What is wrong with an audit, or with what was asked of one.

/// Codes are stable; what they mean is in `docs/spec/audit-v1.md`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The guest has evidence already, or what came is too long.
    #[error("evidence was refused: {reason}")]
    EvidenceRefused {
        /// Why.
        reason: &'static str,
    },
    /// A record differs from what was signed.
    #[error("record {sequence} or one before it was altered: what was signed has another hash")]
    Edited {
        /// Where it was noticed.
        sequence: u64,
    },
    /// A signature that the audit's key did not make.
    #[error("{what} is not signed by the key of this audit")]
    Forged {
        /// What was signed.
        what: &'static str,
    },
    /// The configuration that the guest was started with is another one.
    #[error("expected the initdata digest {expected}, the audit began with {found}")]
    Initdata {
        /// Hex.
        expected: String,
        /// Hex, or `none`.
        found: String,
    },
    /// A key that is none, or not the operator's.
    #[error("expected {expected}")]
    Key {
        /// What was expected.
        expected: &'static str,
    },
    /// Bytes that are not of the form.
    #[error("{what}: not of the form that it has to have")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
    /// Records that nobody signed the loss of are not there.
    #[error("expected record {expected}, found record {found}: what lies between was taken out")]
    Missing {
        /// The next sequence number.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// A nonce that is too short or too long.
    #[error("expected a nonce of 16 to 64 bytes, found {found}")]
    Nonce {
        /// Its length.
        found: usize,
    },
    /// Records leave the guest sealed to an operator, and there is none.
    #[error("no operator's key was configured: only heads leave the guest")]
    NoOperator,
    /// The system gave no random bytes, or the library failed.
    #[error("the system gave no random bytes")]
    Random,
    /// A head that answers another question.
    #[error("the head was signed for another nonce: it is an old one, or another's")]
    Replayed,
    /// Records in another order.
    #[error("expected record {expected}, found record {found}: records are repeated or out of order")]
    Reordered {
        /// The next sequence number.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// Another genesis: the agent was started again.
    #[error("the agent was started again: its audit has another genesis")]
    Restarted,
    /// The signed head is ahead of the records.
    #[error("the signed head is at record {head}, the records end at {found}: the tail was cut")]
    TailCut {
        /// What the head says.
        head: u64,
        /// The last record.
        found: u64,
    },
    /// No evidence says that the key of this audit is in a guest.
    #[error("no evidence commits to the genesis of this audit")]
    Unattested,
    /// Records at the end that no signature covers.
    #[error("records from {from} on are not signed")]
    Unsigned {
        /// The first of them.
        from: u64,
    },
    /// Asked for, or acknowledged, what is not there yet.
    #[error("record {found} does not exist; the last one is {last}")]
    Unknown {
        /// The sequence number.
        found: u64,
        /// The last one.
        last: u64,
    },
}

impl AuditError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::EvidenceRefused { .. } => "AUDIT_EVIDENCE_REFUSED",
            Self::Edited { .. } => "AUDIT_EDITED",
            Self::Forged { .. } => "AUDIT_FORGED",
            Self::Initdata { .. } => "AUDIT_INITDATA",
            Self::Key { .. } => "AUDIT_KEY",
            Self::Malformed { .. } => "AUDIT_MALFORMED",
            Self::Missing { .. } => "AUDIT_MISSING",
            Self::NoOperator => "AUDIT_NO_OPERATOR",
            Self::Nonce { .. } => "AUDIT_NONCE",
            Self::Random => "AUDIT_RANDOM",
            Self::Replayed => "AUDIT_REPLAYED",
            Self::Reordered { .. } => "AUDIT_REORDERED",
            Self::Restarted => "AUDIT_RESTARTED",
            Self::TailCut { .. } => "AUDIT_TAIL_CUT",
            Self::Unattested => "AUDIT_UNATTESTED",
            Self::Unknown { .. } => "AUDIT_UNKNOWN_RECORD",
            Self::Unsigned { .. } => "AUDIT_UNSIGNED",
        }
    }
}
