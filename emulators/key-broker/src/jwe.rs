//! Answers that only one guest can read: JWE in flattened JSON, A256GCM (RFC 7516, RFC 7518).

mod kmac;
mod wrap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{EphemeralPrivateKey, ParsedPublicKey, agree_ephemeral};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::{SystemRandom, fill};
use aws_lc_rs::rsa::OAEP_SHA256_MGF1SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::jwk::{Curve, ECDH_ES, ML_KEM, TeeKey};

/// Members of an answer.
pub(crate) const MEMBERS: [&str; 5] = ["protected", "encrypted_key", "iv", "ciphertext", "tag"];
const CEK_BYTES: usize = 32;

/// An encrypted answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Jwe {
    pub(crate) protected: String,
    pub(crate) encrypted_key: String,
    pub(crate) iv: String,
    pub(crate) ciphertext: String,
    pub(crate) tag: String,
}

/// What a fault plan does to an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Twist {
    /// An ephemeral key of another curve.
    WrongCurveEpk,
    /// An ephemeral key that is no point of its curve.
    OffCurveEpk,
    /// One bit of the tag is flipped.
    BadTag,
    /// One bit of the wrapped key is flipped.
    BadWrappedKey,
    /// The header's members in another order: the answer is valid.
    ReorderedHeader,
    /// A member that is not base64url.
    Malformed(String),
}

/// An answer could not be encrypted.
#[derive(Debug, thiserror::Error)]
#[error("the answer could not be encrypted to the guest's key")]
pub(crate) struct JweError;

impl From<Unspecified> for JweError {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

/// The extra member of the header, as JSON, and the wrapped content key.
struct Wrapped {
    extra: Option<(&'static str, String)>,
    encrypted_key: Vec<u8>,
}

/// Encrypts `plaintext`, which is overwritten on the way.
pub(crate) fn seal(
    key: &TeeKey,
    mut plaintext: Zeroizing<Vec<u8>>,
    twist: Option<&Twist>,
) -> Result<Jwe, JweError> {
    let mut cek = Zeroizing::new([0; CEK_BYTES]);
    fill(cek.as_mut_slice())?;
    let mut wrapped = match key {
        TeeKey::Ec(curve, public) => wrap_ecdh(*curve, public, &cek, twist)?,
        TeeKey::Rsa(public) => {
            let mut encrypted_key = vec![0; public.ciphertext_size()];
            let length = public
                .encrypt(&OAEP_SHA256_MGF1SHA256, cek.as_slice(), &mut encrypted_key, None)
                .map(|written| written.len())?;
            encrypted_key.truncate(length);
            Wrapped { extra: None, encrypted_key }
        }
        TeeKey::MlKem(public) => {
            let (ciphertext, secret) = public.encapsulate()?;
            let kek = kmac::ml_kem_wrapping_key(secret.as_ref());
            let encrypted_key = wrap::aes_key_wrap(kek.as_slice(), &cek)?.to_vec();
            Wrapped { extra: Some(("ek", quoted(ciphertext.as_ref()))), encrypted_key }
        }
    };
    if twist == Some(&Twist::BadWrappedKey) {
        flip_last_bit(&mut wrapped.encrypted_key);
    }
    let protected = URL_SAFE_NO_PAD.encode(header(key.algorithm(), wrapped.extra, twist));
    let mut iv = [0; 12];
    fill(&mut iv)?;
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, cek.as_slice())?);
    let nonce = Nonce::assume_unique_for_key(iv);
    let tag = cipher.seal_in_place_separate_tag(
        nonce,
        Aad::from(protected.as_bytes()),
        plaintext.as_mut_slice(),
    )?;
    let mut tag = tag.as_ref().to_vec();
    if twist == Some(&Twist::BadTag) {
        flip_last_bit(&mut tag);
    }
    let mut jwe = Jwe {
        protected,
        encrypted_key: URL_SAFE_NO_PAD.encode(wrapped.encrypted_key),
        iv: URL_SAFE_NO_PAD.encode(iv),
        ciphertext: URL_SAFE_NO_PAD.encode(plaintext.as_slice()),
        tag: URL_SAFE_NO_PAD.encode(tag),
    };
    if let Some(Twist::Malformed(member)) = twist {
        jwe.malform(member);
    }
    Ok(jwe)
}

impl Jwe {
    fn malform(&mut self, member: &str) {
        let found = match member {
            "protected" => &mut self.protected,
            "encrypted_key" => &mut self.encrypted_key,
            "iv" => &mut self.iv,
            "ciphertext" => &mut self.ciphertext,
            _ => &mut self.tag,
        };
        found.insert_str(0, "*=");
    }
}

fn wrap_ecdh(
    curve: Curve,
    public: &ParsedPublicKey,
    cek: &[u8; CEK_BYTES],
    twist: Option<&Twist>,
) -> Result<Wrapped, JweError> {
    let private = EphemeralPrivateKey::generate(curve.agreement(), &SystemRandom::new())?;
    let mut point = private.compute_public_key()?.as_ref().to_vec();
    let kek = agree_ephemeral(private, public.clone(), JweError, |z| Ok(concat_kdf(z)))?;
    let encrypted_key = wrap::aes_key_wrap(kek.as_slice(), cek)?.to_vec();
    let shown = match twist {
        Some(Twist::WrongCurveEpk) => {
            let other = if curve == Curve::P256 { Curve::P521 } else { Curve::P256 };
            let foreign = EphemeralPrivateKey::generate(other.agreement(), &SystemRandom::new())?;
            point = foreign.compute_public_key()?.as_ref().to_vec();
            other
        }
        Some(Twist::OffCurveEpk) => {
            flip_last_bit(&mut point);
            curve
        }
        _ => curve,
    };
    let (x, y) = point
        .get(1..)
        .and_then(|coordinates| coordinates.split_at_checked(shown.coordinate_bytes()))
        .ok_or(JweError)?;
    let epk = format!(r#"{{"crv":"{}","kty":"EC","x":{},"y":{}}}"#, shown.name(), quoted(x), quoted(y));
    Ok(Wrapped { extra: Some(("epk", epk)), encrypted_key })
}

/// Concat KDF (RFC 7518, 4.6.2) for A256KW with empty party information: one round of SHA-256.
fn concat_kdf(z: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut hash = Sha256::new();
    hash.update(1u32.to_be_bytes());
    hash.update(z);
    hash.update(u32::try_from(ECDH_ES.len()).unwrap_or(u32::MAX).to_be_bytes());
    hash.update(ECDH_ES);
    hash.update([0; 8]);
    hash.update(256u32.to_be_bytes());
    Zeroizing::new(hash.finalize().into())
}

fn header(algorithm: &str, extra: Option<(&str, String)>, twist: Option<&Twist>) -> String {
    let mut members = vec![format!(r#""alg":"{algorithm}""#), r#""enc":"A256GCM""#.to_owned()];
    members.extend(extra.map(|(name, json)| format!(r#""{name}":{json}"#)));
    if twist == Some(&Twist::ReorderedHeader) {
        members.reverse();
    }
    format!("{{{}}}", members.join(","))
}

/// A JSON string of base64url.
fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(bytes))
}

fn flip_last_bit(bytes: &mut [u8]) {
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
}

/// `u32be(length) ‖ algorithm ‖ u32be(192)`: the context of the ML-KEM wrapping key.
fn ml_kem_context() -> Vec<u8> {
    let length = u32::try_from(ML_KEM.len()).unwrap_or(u32::MAX).to_be_bytes();
    [length.as_slice(), ML_KEM.as_bytes(), 192u32.to_be_bytes().as_slice()].concat()
}

#[cfg(test)]
pub(crate) mod tests;
