//! Public keys of the guest in the three forms that a broker knows (JWK).
//!
//! They are hashed as they are sent: members in the order of RFC 8785 (by name), nothing added. All values are ASCII
//! strings, so that serialising in this order *is* the canonical form.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::error::JweFault;

/// `alg` of both elliptic curves.
pub(super) const ECDH: &str = "ECDH-ES+A256KW";
/// `alg` of RSA.
pub(super) const OAEP: &str = "RSA-OAEP-256";
/// `alg` of ML-KEM-768.
pub(super) const MLKEM: &str = "ML-KEM-768+A192KW";

/// A public key as JWK: what the broker encrypts to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Jwk(Form);

/// Members in the order of their names: see the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Form {
    Ec { alg: &'static str, crv: &'static str, kty: &'static str, x: String, y: String },
    Rsa { alg: &'static str, e: String, kty: &'static str, n: String },
    Akp { alg: &'static str, kty: &'static str, r#pub: String },
}

impl Jwk {
    /// A point of P-256 or P-521 in the uncompressed form of SEC 1.
    pub(super) fn ec(curve: Curve, point: &[u8]) -> Option<Self> {
        let (x, y) = curve.coordinates(point)?;
        Some(Self(Form::Ec { alg: ECDH, crv: curve.name(), kty: "EC", x: encode(x), y: encode(y) }))
    }

    /// An RSA key; both numbers big-endian without leading zeros.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Self {
        Self(Form::Rsa { alg: OAEP, e: encode(exponent), kty: "RSA", n: encode(modulus) })
    }

    /// An encapsulation key of ML-KEM-768.
    pub(super) fn ml_kem(encapsulation_key: &[u8]) -> Self {
        Self(Form::Akp { alg: MLKEM, kty: "AKP", r#pub: encode(encapsulation_key) })
    }

    /// Member `alg`: the algorithm that an answer must use.
    pub fn alg(&self) -> &'static str {
        match &self.0 {
            Form::Ec { alg, .. } | Form::Rsa { alg, .. } | Form::Akp { alg, .. } => alg,
        }
    }
}

/// The curves that a broker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P521,
}

impl Curve {
    /// Member `crv`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P521 => "P-521",
        }
    }

    /// Bytes of a coordinate.
    pub(super) fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P521 => 66,
        }
    }

    fn coordinates(self, point: &[u8]) -> Option<(&[u8], &[u8])> {
        let both = point.strip_prefix(&[4]).filter(|rest| rest.len() == 2 * self.size())?;
        both.split_at_checked(self.size())
    }

    /// The uncompressed point of two coordinates of full length. Whether it lies on the curve is not known yet.
    pub(super) fn point(self, x: &[u8], y: &[u8]) -> Result<Vec<u8>, JweFault> {
        // GUARD: kbs-epk-length -> evil_broker_sends_short_coordinates
        if x.len() != self.size() || y.len() != self.size() {
            return Err(JweFault::Member { member: "epk", expected: "coordinates of full length" });
        }
        Ok([&[4], x, y].concat())
    }
}

/// base64url without padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// base64url without padding, and only the one encoding of its bytes.
pub(super) fn decode(member: &'static str, text: &str) -> Result<Vec<u8>, JweFault> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| JweFault::Member { member, expected: "base64url without padding and stray bits" })
}

/// [`decode`] for a member of one length.
pub(super) fn decode_exactly<const N: usize>(
    member: &'static str,
    expected: &'static str,
    text: &str,
) -> Result<[u8; N], JweFault> {
    decode(member, text)?.try_into().map_err(|_| JweFault::Member { member, expected })
}
