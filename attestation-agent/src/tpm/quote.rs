//! Evidence of a TPM: a quote over all 24 registers, their values, and the key that signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::channel::Channel;
use super::commands::Key;
use super::pcr::{PCR_COUNT, Pcrs};
use super::spki::spki;
use super::wire::{
    DECRYPT, EccPoint, FIXED_PARENT, FIXED_TPM, KeyKind, Public, RESTRICTED, SIGN, Scheme, Symmetric,
    TPM_MADE, USER_WITH_AUTH,
};
use super::{QuoteError, TpmError, verify};

/// The longest evidence: a quote and 24 registers need a tenth of it.
pub const EVIDENCE_MAX_BYTES: usize = 64 << 10;

/// How often a quote is taken while registers change.
const ATTEMPTS_MAX: u32 = 5;

/// Which key signs quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttestationKey {
    /// A persistent key that is used if it exists.
    pub handle: u32,
    /// What is made in the endorsement hierarchy otherwise. The same TPM makes the same key each time.
    pub otherwise: AkAlgorithm,
}

/// Algorithm of a key that is made on the fly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AkAlgorithm {
    /// ECDSA with SHA-256 on P-256. Verifiers other than this crate may not take it.
    EccP256,
    /// RSASSA with SHA-256, 2048 bits: what verifiers of this evidence expect.
    Rsa2048,
}

impl Default for AttestationKey {
    /// The handle that provisioning of TPMs uses for an attestation key.
    fn default() -> Self {
        Self { handle: 0x8101_0002, otherwise: AkAlgorithm::Rsa2048 }
    }
}

/// Evidence. Who judges it uses [`verify::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmEvidence {
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
    /// TPMS_ATTEST.
    pub message: Vec<u8>,
    /// The registers' values.
    pub pcrs: Pcrs,
    /// DER SubjectPublicKeyInfo of the key that signed.
    pub ak_public: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceJson {
    tpm_quote: QuoteJson,
    ak_public: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuoteJson {
    signature: String,
    message: String,
    pcrs: Vec<String>,
}

impl TpmEvidence {
    /// Parses evidence: `{"tpm_quote":{"signature","message","pcrs"},"ak_public"}`, base64 and hex.
    ///
    /// # Errors
    ///
    /// `TPM_EVIDENCE_MALFORMED`. Nothing is verified.
    pub fn parse(json: &[u8]) -> Result<Self, QuoteError> {
        let malformed = |expected, found: String| QuoteError::Malformed { expected, found };
        // GUARD: tpm-evidence-cap -> evil_tpm_evidence_of_other_forms
        if json.len() > EVIDENCE_MAX_BYTES {
            return Err(malformed("64 KiB at most", format!("{} bytes", json.len())));
        }
        let json: EvidenceJson = serde_json::from_slice(json).map_err(|error| {
            malformed("JSON evidence", format!("an error at line {} column {}", error.line(), error.column()))
        })?;
        let binary = |text: &str, what| {
            STANDARD.decode(text).map_err(|_| malformed("base64", format!("something else in {what}")))
        };
        let pcrs = json.tpm_quote.pcrs;
        let mut values = [[0; 32]; PCR_COUNT];
        if pcrs.len() != PCR_COUNT {
            return Err(malformed("24 registers", pcrs.len().to_string()));
        }
        for (value, text) in values.iter_mut().zip(&pcrs) {
            hex::decode_to_slice(text, value)
                .map_err(|_| malformed("registers of 64 hex digits", "something else".into()))?;
        }
        Ok(Self {
            signature: binary(&json.tpm_quote.signature, "signature")?,
            message: binary(&json.tpm_quote.message, "message")?,
            pcrs: Pcrs::new(values),
            ak_public: binary(&json.ak_public, "ak_public")?,
        })
    }

    /// The JSON that [`Self::parse`] takes.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "tpm_quote": {
                "signature": STANDARD.encode(&self.signature),
                "message": STANDARD.encode(&self.message),
                "pcrs": self.pcrs.values().iter().map(hex::encode).collect::<Vec<_>>(),
            },
            "ak_public": STANDARD.encode(&self.ak_public),
        })
    }

    /// Takes a quote that its own values bear out.
    pub(super) fn take(
        channel: &mut Channel,
        choice: AttestationKey,
        nonce: &[u8; 32],
    ) -> Result<Self, TpmError> {
        let key = attestation_key(channel, choice)?;
        let ak_public = spki(&key.public)?;
        for _ in 0..ATTEMPTS_MAX {
            let (message, signature) = channel.quote(&key, nonce)?;
            let pcrs = channel.read_pcrs()?;
            let evidence = Self { signature, message, pcrs, ak_public: ak_public.clone() };
            match verify::consistent(&evidence, nonce) {
                Err(TpmError::Quote(QuoteError::OtherPcrs { .. })) => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(evidence),
            }
        }
        Err(TpmError::PcrsChanging { attempts: ATTEMPTS_MAX })
    }
}

/// The persistent key, or one made from the template. `AK`s that are made are contexts of `channel`.
pub(super) fn attestation_key(channel: &mut Channel, choice: AttestationKey) -> Result<Key, TpmError> {
    let Some(public) = channel.read_public(choice.handle)? else {
        return channel.endorsement_primary(&template(choice.otherwise));
    };
    let key = Key { handle: choice.handle, public };
    let unfit = |found| TpmError::KeyUnfit { handle: choice.handle, found };
    let must = FIXED_TPM | FIXED_PARENT | TPM_MADE | RESTRICTED | SIGN;
    // GUARD: ak-restricted -> evil_persistent_key_that_signs_anything
    if key.public.attributes & (must | DECRYPT) != must {
        return Err(unfit("a key with other attributes"));
    }
    if key.rsa_bits().is_some_and(|bits| bits < 2048) {
        return Err(unfit("an RSA key of less than 2048 bits"));
    }
    Ok(key)
}

/// The fixed templates. To change one is to change every key that was pinned.
fn template(algorithm: AkAlgorithm) -> Public {
    let symmetric = Symmetric::Null;
    let kind = match algorithm {
        AkAlgorithm::EccP256 => {
            let point = EccPoint { x: Vec::new(), y: Vec::new() };
            KeyKind::Ecc { symmetric, scheme: Scheme::Ecdsa, point }
        }
        AkAlgorithm::Rsa2048 => {
            let scheme = Scheme::RsaSsa;
            KeyKind::Rsa { symmetric, scheme, bits: 2048, exponent: 0, modulus: Vec::new() }
        }
    };
    let attributes = FIXED_TPM | FIXED_PARENT | TPM_MADE | USER_WITH_AUTH | RESTRICTED | SIGN;
    Public { attributes, policy: Vec::new(), kind }
}
