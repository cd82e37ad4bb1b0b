//! Cryptography only: who signed, with which platform's key, at which time. No rule about the guest is applied here;
//! that is [`validate`](crate::validate).
//!
//! Time is an argument. Whoever has no clock takes [`tdx::latest_issue_date`] or [`snp::latest_issue_date`] and
//! refuses old collateral by its numbers.

pub mod certificate;
pub mod collateral;
pub(crate) mod pem;
mod presentation;
pub mod replay;
pub mod roots;
pub mod series;
pub mod snp;
pub mod tdx;
mod vek;

#[cfg(test)]
mod tests;

use sha2::{Digest, Sha256};

use crate::bytes::Octets;

pub use presentation::{Clock, VerifiedEvidence, verify_presentation};

/// SHA-256 over a chain from its leaf to its root: before each certificate its length in four bytes, big-endian.
#[must_use]
pub fn chain_fingerprint<'a>(chain: impl IntoIterator<Item = &'a [u8]>) -> Octets<32> {
    let mut hash = Sha256::new();
    for certificate in chain {
        hash.update(u32::try_from(certificate.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(certificate);
    }
    Octets(hash.finalize().into())
}
