//! The outside: `sealed.HEADER.PAYLOAD.SIGNATURE`.

use std::fmt;

use attestation_agent::kbs::{ResourceUri, parse_json};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::MAXIMUM_SEALED_BYTES;
use super::payload::Payload;
use crate::hub_error::{HubError, shown};

const PREFIX: &[u8] = b"sealed.";
const MAXIMUM_HEADER_BYTES: usize = 4096;
const MAXIMUM_KEY_BYTES: usize = 16 << 10;
const SIGNATURE_BYTES: usize = 64;
const COORDINATE_BYTES: usize = 32;

/// A sealed secret whose form and header are in order. Nothing has verified it, and its payload cannot be had before.
#[derive(Clone)]
pub struct SealedSecret<'a> {
    kid: String,
    signed: &'a [u8],
    payload: &'a [u8],
    signature: [u8; SIGNATURE_BYTES],
}

impl fmt::Debug for SealedSecret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedSecret").field("kid", &shown(&self.kid)).finish_non_exhaustive()
    }
}

/// Members that are not here (`typ`, `cty`) do not matter; keys and certificates in a header are never used.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
    b64: Option<bool>,
    crit: Option<Vec<String>>,
}

/// The four parts behind the prefix; what follows as blanks or line ends is cut off, because files end with them.
fn parts(text: &[u8]) -> Result<[&[u8]; 3], HubError> {
    // GUARD: sealed-cap -> evil_author_oversize_secret
    if text.len() > MAXIMUM_SEALED_BYTES {
        return Err(HubError::TooLarge {
            what: "sealed secret",
            most: MAXIMUM_SEALED_BYTES,
            found: text.len(),
        });
    }
    let form = HubError::SealedForm { part: "text", expected: "sealed.HEADER.PAYLOAD.SIGNATURE" };
    let Some(compact) = text.trim_ascii_end().strip_prefix(PREFIX) else { return Err(form) };
    let mut parts = compact.split(|byte| *byte == b'.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(header), Some(payload), Some(signature), None) => Ok([header, payload, signature]),
        _ => Err(form),
    }
}

fn decode(part: &'static str, text: &[u8]) -> Result<Vec<u8>, HubError> {
    let expected = "base64url without padding";
    URL_SAFE_NO_PAD.decode(text).map_err(|_| HubError::SealedForm { part, expected })
}

impl<'a> SealedSecret<'a> {
    /// Reads a sealed secret.
    ///
    /// # Errors
    ///
    /// `CDH_REQUEST_TOO_LARGE`, `SEALED_SECRET_MALFORMED`, `SEALED_SECRET_ALGORITHM`, `SEALED_SECRET_CRITICAL`.
    pub fn parse(text: &'a [u8]) -> Result<Self, HubError> {
        let [header, payload, signature] = parts(text)?;
        let form = |part, expected| HubError::SealedForm { part, expected };
        if header.len() > MAXIMUM_HEADER_BYTES {
            return Err(form("header", "at most 4096 bytes"));
        }
        let json = decode("header", header)?;
        let parsed: Header = parse_json(&json)
            .map_err(|_| form("header", "a JSON object with alg and kid, and each member once"))?;
        // GUARD: sealed-algorithm -> evil_author_names_another_algorithm
        if parsed.alg != "ES256" {
            return Err(HubError::SealedAlgorithm { found: shown(&parsed.alg) });
        }
        let known = parsed.crit.as_ref().is_none_or(|names| {
            !names.is_empty() && names.iter().all(|name| name == "b64") && parsed.b64.is_some()
        });
        // GUARD: sealed-critical -> evil_author_unknown_extensions
        if !known || parsed.b64 == Some(false) {
            return Err(HubError::SealedCritical);
        }
        let signature = decode("signature", signature)?;
        let signature = signature.try_into().map_err(|_| form("signature", "64 bytes"))?;
        let length = header.len() + 1 + payload.len();
        let signed = text.get(PREFIX.len()..PREFIX.len() + length);
        let signed = signed.ok_or(form("text", "sealed.HEADER.PAYLOAD.SIGNATURE"))?;
        Ok(Self { kid: parsed.kid, signed, payload, signature })
    }

    /// The resource with the key that it has to verify by. Upstream takes other names for files of a directory that nothing vouches for.
    ///
    /// # Errors
    ///
    /// `SEALED_SECRET_KEY`.
    pub fn kid(&self) -> Result<ResourceUri, HubError> {
        let expected = "the URI of a resource, kbs:///repository/type/tag";
        ResourceUri::parse(&self.kid).map_err(|_| HubError::SealedKey { expected })
    }

    /// Verifies, and only then reads the payload.
    ///
    /// # Errors
    ///
    /// `SEALED_SECRET_SIGNATURE`; `SEALED_SECRET_MALFORMED`, `SEALED_SECRET_VERSION`.
    pub fn verify(&self, key: &VerificationKey) -> Result<Payload, HubError> {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.point);
        // GUARD: sealed-signature -> evil_registry_changes_a_sealed_secret
        key.verify(self.signed, &self.signature).map_err(|_| HubError::SealedSignature)?;
        Payload::parse(&decode("payload", self.payload)?)
    }

    /// The payload of what nobody verified: header and signature are not looked at, as upstream. For the insecure mode alone.
    pub(super) fn insecure_payload(text: &[u8]) -> Result<Payload, HubError> {
        let [_, payload, _] = parts(text)?;
        Payload::parse(&decode("payload", payload)?)
    }
}

/// A public key on P-256, from a JWK.
#[derive(Clone)]
pub struct VerificationKey {
    /// Uncompressed, SEC 1.
    point: [u8; 1 + 2 * COORDINATE_BYTES],
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerificationKey(..)")
    }
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    y: String,
}

impl VerificationKey {
    /// Reads a JWK: `EC`, `P-256`, coordinates of 32 bytes. Other members do not matter. Whether the point is on the curve is seen when
    /// something is verified.
    ///
    /// # Errors
    ///
    /// `SEALED_SECRET_KEY`.
    pub fn parse(json: &[u8]) -> Result<Self, HubError> {
        let bad = |expected| HubError::SealedKey { expected };
        if json.len() > MAXIMUM_KEY_BYTES {
            return Err(bad("a JWK of at most 16 KiB"));
        }
        let jwk: Jwk = parse_json(json).map_err(|_| bad("a JWK with kty, crv, x and y"))?;
        if jwk.kty != "EC" || jwk.crv != "P-256" {
            return Err(bad("a JWK of kty EC and crv P-256"));
        }
        let mut point = [4; 1 + 2 * COORDINATE_BYTES];
        let (_, coordinates) = point.split_at_mut(1);
        for (place, text) in coordinates.chunks_exact_mut(COORDINATE_BYTES).zip([&jwk.x, &jwk.y]) {
            let decoded = URL_SAFE_NO_PAD.decode(text).ok().filter(|it| it.len() == place.len());
            place.copy_from_slice(&decoded.ok_or(bad("coordinates of 32 bytes, base64url without padding"))?);
        }
        Ok(Self { point })
    }
}
