//! Judging a quote. A TPM is believed by its attestation key, and that key by its digest alone.

use std::fmt;

use sha2::{Digest, Sha256};

use super::pcr::{INITDATA_PCR, PcrSelection, Pcrs, initdata_pcr};
use super::quote::TpmEvidence;
use super::spki::{signed, spki};
use super::wire::{Attest, ClockInfo, Public, Signature};
use super::{QuoteError, TpmError};

/// SHA-256 of a key's SubjectPublicKeyInfo.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AkDigest(pub [u8; 32]);

impl AkDigest {
    /// The digest of a key (DER SubjectPublicKeyInfo).
    pub fn of(spki: &[u8]) -> Self {
        Self(Sha256::digest(spki).into())
    }

    /// The digest of a key as its TPM describes it.
    ///
    /// # Errors
    ///
    /// Not a public key.
    pub fn of_public(public: &Public) -> Result<Self, TpmError> {
        spki(public).map(|spki| Self::of(&spki))
    }
}

impl fmt::Display for AkDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for AkDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What is expected of a quote.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Report data; its first 32 bytes, followed by zeros if it is shorter, are the nonce.
    pub report_data: &'a [u8],
    /// Attestation keys that are believed. None: every quote is refused.
    pub trusted_aks: &'a [AkDigest],
    /// Initdata.
    pub initdata: ExpectedInitdata<'a>,
}

/// What PCR 8 has to carry.
#[derive(Clone, Copy, Debug)]
pub enum ExpectedInitdata<'a> {
    /// This SHA-256 digest of initdata, extended once.
    Digest(&'a [u8]),
    /// The caller judges the registers itself.
    NotJudged,
}

/// A quote that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedQuote {
    /// The key that signed it.
    pub ak: AkDigest,
    /// All registers.
    pub pcrs: Pcrs,
    /// The TPM's clock and counts of resets.
    pub clock: ClockInfo,
    /// The TPM's firmware, as its vendor counts.
    pub firmware_version: u64,
}

/// The nonce of a quote: report data cut to 32 bytes, or followed by zeros.
pub fn nonce(report_data: &[u8]) -> [u8; 32] {
    let mut nonce = [0; 32];
    nonce.iter_mut().zip(report_data).for_each(|(to, from)| *to = *from);
    nonce
}

/// Verifies a quote: pinned key, signature, nonce, all 24 registers, PCR 8. It says nothing about a TEE.
///
/// # Errors
///
/// [`QuoteError`] with what was refused; `TPM_UNEXPECTED` and others of the wire for something that is no quote.
pub fn verify(evidence: &TpmEvidence, expected: &Expected<'_>) -> Result<VerifiedQuote, TpmError> {
    let ak = AkDigest::of(&evidence.ak_public);
    // GUARD: ak-pinned -> evil_host_tpm_swapped_for_another
    if !expected.trusted_aks.contains(&ak) {
        let pinned = expected.trusted_aks.len();
        return Err(QuoteError::AkNotPinned { pinned, found: ak.to_string() }.into());
    }
    let attest = consistent(evidence, &nonce(expected.report_data))?;
    if let ExpectedInitdata::Digest(digest) = expected.initdata {
        let value = initdata_pcr(digest)?;
        let found = evidence.pcrs.value(INITDATA_PCR);
        // GUARD: quote-initdata -> evil_tpm_other_initdata
        if found != value {
            let (expected, found) = (hex::encode(value), hex::encode(found));
            return Err(QuoteError::OtherInitdata { expected, found }.into());
        }
    }
    let (clock, firmware_version) = (attest.clock, attest.firmware_version);
    Ok(VerifiedQuote { ak, pcrs: evidence.pcrs.clone(), clock, firmware_version })
}

/// All of [`verify`] that needs no pin: whether key, signature, nonce and registers belong together.
pub(super) fn consistent(evidence: &TpmEvidence, nonce: &[u8; 32]) -> Result<Attest, TpmError> {
    let signature = Signature::parse(&evidence.signature)?;
    // GUARD: quote-signature -> evil_host_tpm_key_swapped_in_transit, evil_tpm_quote_altered
    if !signed(&evidence.ak_public, &evidence.message, &signature) {
        return Err(QuoteError::Signature.into());
    }
    let attest = Attest::parse(&evidence.message)?;
    // GUARD: quote-nonce -> evil_host_tpm_replays_quote, evil_tpm_quote_for_another_nonce
    if attest.nonce != nonce {
        let (expected, found) = (hex::encode(nonce), hex::encode(&attest.nonce));
        return Err(QuoteError::OtherNonce { expected, found }.into());
    }
    // GUARD: quote-selection -> evil_tpm_quote_of_fewer_registers
    if attest.selection != PcrSelection::ALL {
        return Err(QuoteError::OtherSelection { found: attest.selection.to_string() }.into());
    }
    let found = evidence.pcrs.digest(PcrSelection::ALL);
    // GUARD: quote-pcrs -> evil_tpm_registers_not_quoted
    if found != attest.pcr_digest {
        let (expected, found) = (hex::encode(attest.pcr_digest), hex::encode(found));
        return Err(QuoteError::OtherPcrs { expected, found }.into());
    }
    Ok(attest)
}
