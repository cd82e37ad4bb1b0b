//! Explicit choices: any, exactly one, or one of a list. There is no default.

use std::fmt;

use crate::bytes::Octets;
use crate::error::{EvidenceError, Found};

/// Which values a rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect<T> {
    /// Every value.
    Any,
    /// One value.
    Exactly(T),
    /// One of these; none, if the list is empty.
    OneOf(Vec<T>),
}

impl<T: PartialEq> Expect<T> {
    /// Whether `value` is allowed.
    #[must_use]
    pub fn allows(&self, value: &T) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(allowed) => allowed == value,
            Self::OneOf(allowed) => allowed.contains(value),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Expect<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Exactly(value) => write!(f, "{value}"),
            Self::OneOf(values) => {
                f.write_str("one of")?;
                values.iter().try_for_each(|value| write!(f, " {value}"))
            }
        }
    }
}

/// Digest of initdata: 32, 48 or 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitdataDigest(Vec<u8>);

impl InitdataDigest {
    /// A digest of SHA-256, SHA-384 or SHA-512.
    ///
    /// # Errors
    /// `EVIDENCE_MALFORMED` for another length.
    pub fn new(digest: &[u8]) -> Result<Self, EvidenceError> {
        // GUARD: initdata-digest-length -> evil_initdata_digests_of_other_lengths_are_refused
        if !matches!(digest.len(), 32 | 48 | 64) {
            return Err(EvidenceError::Malformed {
                what: "initdata digest",
                expected: "32, 48 or 64 bytes",
                found: Found::value(digest.len()),
            });
        }
        Ok(Self(digest.to_vec()))
    }

    /// A digest that the policy document's parser took: of the same lengths.
    pub(crate) fn of_policy(digest: &sealed_artifact::policy::InitdataDigest) -> Self {
        Self(digest.as_bytes().to_vec())
    }

    /// The digest as a register of `N` bytes holds it: cut, or followed by zeros.
    #[must_use]
    pub fn fitted<const N: usize>(&self) -> Octets<N> {
        Octets::fitted(&self.0)
    }
}

impl fmt::Display for InitdataDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}
