//! Encrypted answers: flattened JWE (RFC 7516), in the three forms that our keys ask for.
//!
//! Nothing is negotiated: the key says which algorithm the answer must have. The additional data of the cipher is the
//! protected header as it was received. Member `aad` is ignored, as upstream does; others that RFC 7516 knows outside
//! the protected header (`header`, `unprotected`, `recipients`) are refused.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::{Fault, JweFault};
use super::json::{self, Object};
use super::jwk::{Curve, decode, decode_exactly};
use super::secret::Secret;
use super::tee_key::TeeKey;

/// Longest protected header, in characters. An ML-KEM ciphertext needs 1,451.
const HEADER_MAX: usize = 8 << 10;

/// A flattened JWE, not yet opened.
#[derive(Debug)]
pub struct Jwe {
    protected: String,
    header: Header,
    encrypted_key: Vec<u8>,
    iv: [u8; 12],
    ciphertext: Vec<u8>,
    tag: [u8; 16],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    protected: String,
    encrypted_key: String,
    iv: String,
    ciphertext: String,
    tag: String,
    #[serde(rename = "aad")]
    _aad: Option<IgnoredAny>,
}

/// The protected header. Members that cannot change the meaning of the others are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    alg: String,
    enc: String,
    epk: Option<Object<Ephemeral>>,
    ek: Option<String>,
    apu: Option<IgnoredAny>,
    apv: Option<IgnoredAny>,
    crit: Option<IgnoredAny>,
    zip: Option<IgnoredAny>,
}

/// The broker's key of one answer.
#[derive(Debug, Deserialize)]
struct Ephemeral {
    crv: String,
    kty: String,
    x: String,
    y: String,
}

impl Header {
    fn parse(protected: &str) -> Result<Self, JweFault> {
        // GUARD: kbs-jwe-header-size -> evil_broker_sends_a_huge_header
        if protected.len() > HEADER_MAX {
            return Err(JweFault::Member { member: "protected", expected: "at most 8192 characters" });
        }
        let text = decode("protected", protected)?;
        let header: Self = json::parse(&text).map_err(|source| JweFault::NotJwe { source })?;
        // GUARD: kbs-jwe-extensions -> evil_broker_asks_for_jwe_extensions
        if header.crit.is_some() || header.zip.is_some() || header.apu.is_some() || header.apv.is_some() {
            return Err(JweFault::Member { member: "protected", expected: "no crit, zip, apu or apv" });
        }
        // GUARD: kbs-jwe-enc -> evil_broker_chooses_another_cipher
        if header.enc != "A256GCM" {
            return Err(JweFault::Algorithm { member: "enc", expected: "A256GCM" });
        }
        Ok(header)
    }

    /// The broker's key, which must be on our curve: not yet known to be a point of it.
    pub(super) fn ephemeral_point(&self, curve: Curve) -> Result<Vec<u8>, JweFault> {
        let Object(epk) =
            self.epk.as_ref().ok_or(JweFault::Member { member: "epk", expected: "a public key" })?;
        // GUARD: kbs-epk-curve -> evil_broker_sends_a_key_on_another_curve
        if epk.kty != "EC" || epk.crv != curve.name() {
            return Err(JweFault::Curve { expected: curve.name() });
        }
        curve.point(&decode("epk", &epk.x)?, &decode("epk", &epk.y)?)
    }

    /// The ciphertext of the key encapsulation, in base64url.
    pub(super) fn encapsulated(&self) -> Result<&str, JweFault> {
        self.ek.as_deref().ok_or(JweFault::Member { member: "ek", expected: "a ciphertext" })
    }
}

impl Jwe {
    /// Reads an answer, whose size the caller has capped.
    ///
    /// # Errors
    ///
    /// `KBS_JWE_MALFORMED`, `KBS_JWE_ALGORITHM`.
    pub fn parse(body: &[u8]) -> Result<Self, JweFault> {
        let members: Members = json::parse(body).map_err(|source| JweFault::NotJwe { source })?;
        Ok(Self {
            header: Header::parse(&members.protected)?,
            encrypted_key: decode("encrypted_key", &members.encrypted_key)?,
            iv: decode_exactly("iv", "12 bytes", &members.iv)?,
            ciphertext: decode("ciphertext", &members.ciphertext)?,
            tag: decode_exactly("tag", "16 bytes", &members.tag)?,
            protected: members.protected,
        })
    }

    /// The plaintext, if the answer was made for this key and nothing of it was changed.
    ///
    /// # Errors
    ///
    /// `KBS_JWE_…`, and `KBS_MEMORY` without pages for the secret.
    pub fn open(&self, key: &TeeKey) -> Result<Secret, Fault> {
        let expected = key.public().alg();
        // GUARD: kbs-jwe-alg -> evil_broker_chooses_another_key_algorithm
        if self.header.alg != expected {
            return Err(JweFault::Algorithm { member: "alg", expected }.into());
        }
        let content_key = key.unwrap_key(&self.header, &self.encrypted_key)?;
        let cipher = UnboundKey::new(&AES_256_GCM, &content_key[..]).map_err(|_| JweFault::Authentication)?;
        let mut secret = Secret::zeroed(self.ciphertext.len())?;
        // GUARD: kbs-jwe-tag -> evil_host_flips_a_bit_of_an_answer
        LessSafeKey::new(cipher)
            .open_separate_gather(
                Nonce::assume_unique_for_key(self.iv),
                Aad::from(self.protected.as_bytes()),
                &self.ciphertext,
                &self.tag,
                secret.expose_mut(),
            )
            .map_err(|_| JweFault::Authentication)?;
        Ok(secret)
    }
}

#[cfg(test)]
mod tests;
