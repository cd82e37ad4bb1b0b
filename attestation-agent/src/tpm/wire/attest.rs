//! TPMS_ATTEST of a quote, and TPMT_SIGNATURE.

use super::{ALG_ECDSA, ALG_RSASSA, ALG_SHA256, Reader, WireError};
use crate::tpm::pcr::PcrSelection;

/// TPM_GENERATED_VALUE: what a restricted key signs begins so only if the TPM made it.
const GENERATED: u32 = 0xff54_4347;
/// TPM_ST_ATTEST_QUOTE.
const ATTEST_QUOTE: u16 = 0x8018;
const NAME_MAX_BYTES: usize = 66;
const DATA_MAX_BYTES: usize = 64;
const SIGNATURE_MAX_BYTES: usize = 512;
const COORDINATE_MAX_BYTES: usize = 32;

/// TPMS_CLOCK_INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockInfo {
    /// Milliseconds that the TPM was powered.
    pub clock_ms: u64,
    /// Count of TPM resets.
    pub reset_count: u32,
    /// Count of restarts and resumes since the last reset.
    pub restart_count: u32,
    /// Whether the clock never went back.
    pub safe: bool,
}

/// What a quote says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attest {
    /// Qualified name of the key that signed.
    pub signer: Vec<u8>,
    /// extraData: the nonce.
    pub nonce: Vec<u8>,
    /// Clock.
    pub clock: ClockInfo,
    /// Firmware version, as the vendor counts.
    pub firmware_version: u64,
    /// Which registers of the SHA-256 bank.
    pub selection: PcrSelection,
    /// SHA-256 over them.
    pub pcr_digest: [u8; 32],
}

impl Attest {
    /// Parses a whole TPMS_ATTEST of type quote.
    ///
    /// # Errors
    ///
    /// Something that is not a quote made by a TPM, other banks, lengths beyond caps, bytes behind the end.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new("attestation", bytes);
        let magic = reader.u32()?;
        // GUARD: quote-magic -> evil_tpm_attestation_not_generated
        if magic != GENERATED {
            return Err(WireError::unexpected("magic of an attestation", "TPM_GENERATED", magic));
        }
        let kind = reader.u16()?;
        // GUARD: quote-type -> evil_tpm_attestation_of_another_type
        if kind != ATTEST_QUOTE {
            return Err(WireError::unexpected("type of an attestation", "a quote", kind));
        }
        let signer = reader.sized(NAME_MAX_BYTES)?.to_vec();
        let nonce = reader.sized(DATA_MAX_BYTES)?.to_vec();
        let clock_ms = reader.u64()?;
        let reset_count = reader.u32()?;
        let restart_count = reader.u32()?;
        let safe = match reader.u8()? {
            0 => false,
            1 => true,
            other => return Err(WireError::unexpected("safe flag of the clock", "0 or 1", other)),
        };
        let firmware_version = reader.u64()?;
        let selection = PcrSelection::read(&mut reader)?;
        let mut digest = Reader::new("digest of a quote", reader.sized(DATA_MAX_BYTES)?);
        let pcr_digest = digest.array()?;
        digest.finish()?;
        reader.finish()?;
        let clock = ClockInfo { clock_ms, reset_count, restart_count, safe };
        Ok(Self { signer, nonce, clock, firmware_version, selection, pcr_digest })
    }
}

/// TPMT_SIGNATURE, always over SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// ECDSA on P-256: r and s, 32 bytes each.
    Ecdsa([u8; 64]),
    /// RSASSA (PKCS #1 v1.5).
    RsaSsa(Vec<u8>),
}

impl Signature {
    /// Parses a whole TPMT_SIGNATURE.
    ///
    /// # Errors
    ///
    /// Other schemes or hashes, lengths beyond caps, bytes behind the end.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new("signature", bytes);
        let algorithm = reader.u16()?;
        reader.expect_u16("hash of a signature", "SHA-256", ALG_SHA256)?;
        let signature = match algorithm {
            ALG_ECDSA => {
                let mut joined = [0; 64];
                let (r, s) = joined.split_at_mut(COORDINATE_MAX_BYTES);
                right_aligned(r, reader.sized(COORDINATE_MAX_BYTES)?);
                right_aligned(s, reader.sized(COORDINATE_MAX_BYTES)?);
                Self::Ecdsa(joined)
            }
            ALG_RSASSA => Self::RsaSsa(reader.sized(SIGNATURE_MAX_BYTES)?.to_vec()),
            other => return Err(WireError::unexpected("signature", "RSASSA or ECDSA", other)),
        };
        reader.finish()?;
        Ok(signature)
    }
}

/// A TPM may leave out leading zeros.
fn right_aligned(to: &mut [u8], from: &[u8]) {
    to.iter_mut().rev().zip(from.iter().rev()).for_each(|(to, from)| *to = *from);
}
