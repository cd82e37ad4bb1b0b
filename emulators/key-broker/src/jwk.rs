//! Keys of guests: the JWK as it is hashed, and the key that answers are encrypted to.

use std::collections::BTreeMap;

use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P521, ParsedPublicKey, UnparsedPublicKey};
use aws_lc_rs::kem::{EncapsulationKey, ML_KEM_768};
use aws_lc_rs::rsa::{OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// `alg` of keys on curves.
pub(crate) const ECDH_ES: &str = "ECDH-ES+A256KW";
/// `alg` of RSA keys.
pub(crate) const RSA_OAEP: &str = "RSA-OAEP-256";
/// `alg` of ML-KEM keys.
pub(crate) const ML_KEM: &str = "ML-KEM-768+A192KW";
/// Shortest and longest modulus, in bytes.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A guest's public key with exactly the members that are hashed. Others that a guest sends are dropped, as upstream does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kty")]
pub(crate) enum TeeJwk {
    /// A point of a curve.
    #[serde(rename = "EC")]
    Ec { alg: String, crv: String, x: String, y: String },
    /// An RSA key.
    #[serde(rename = "RSA")]
    Rsa { alg: String, n: String, e: String },
    /// An encapsulation key.
    #[serde(rename = "AKP")]
    Akp {
        alg: String,
        #[serde(rename = "pub")]
        public: String,
    },
}

/// A curve that guests use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    /// P-256.
    P256,
    /// P-521.
    P521,
}

/// A key that was parsed, once.
pub(crate) enum TeeKey {
    /// A validated point of a curve.
    Ec(Curve, ParsedPublicKey),
    /// RSA-OAEP with SHA-256.
    Rsa(OaepPublicEncryptingKey),
    /// ML-KEM-768.
    MlKem(EncapsulationKey),
}

/// A key that answers cannot be encrypted to.
#[derive(Debug, thiserror::Error)]
#[error("tee-pubkey: expected {expected}, found {found}")]
pub(crate) struct KeyError {
    expected: &'static str,
    found: String,
}

fn refused(expected: &'static str, found: impl std::fmt::Display) -> KeyError {
    KeyError { expected, found: crate::log::printable(&found.to_string(), 80) }
}

impl TeeJwk {
    /// The members, sorted as canonical JSON sorts them.
    pub(crate) fn members(&self) -> BTreeMap<&'static str, &str> {
        match self {
            Self::Ec { alg, crv, x, y } => {
                BTreeMap::from([("kty", "EC"), ("alg", alg), ("crv", crv), ("x", x), ("y", y)])
            }
            Self::Rsa { alg, n, e } => BTreeMap::from([("kty", "RSA"), ("alg", alg), ("n", n), ("e", e)]),
            Self::Akp { alg, public } => BTreeMap::from([("kty", "AKP"), ("alg", alg), ("pub", public)]),
        }
    }
}

impl Curve {
    /// The curve of a `crv`.
    fn of_name(name: &str) -> Option<Self> {
        match name {
            "P-256" => Some(Self::P256),
            "P-521" => Some(Self::P521),
            _ => None,
        }
    }

    /// The `crv`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P521 => "P-521",
        }
    }

    /// Bytes of a coordinate.
    pub(crate) const fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P521 => 66,
        }
    }

    /// The key agreement.
    pub(crate) const fn agreement(self) -> &'static agreement::Algorithm {
        match self {
            Self::P256 => &ECDH_P256,
            Self::P521 => &ECDH_P521,
        }
    }
}

impl TeeKey {
    /// Parses and validates a key.
    ///
    /// # Errors
    /// For another algorithm or curve, coordinates of another length, a point that is not on the curve, RSA outside 2048 to 8192 bits.
    pub(crate) fn parse(jwk: &TeeJwk) -> Result<Self, KeyError> {
        match jwk {
            TeeJwk::Ec { alg, crv, x, y } => {
                if alg != ECDH_ES {
                    return Err(refused("ECDH-ES+A256KW for an EC key", alg));
                }
                let curve = Curve::of_name(crv).ok_or_else(|| refused("curve P-256 or P-521", crv))?;
                let mut point = vec![4];
                for (coordinate, name) in [(x, "x"), (y, "y")] {
                    let bytes = decode(coordinate)?;
                    if bytes.len() != curve.coordinate_bytes() {
                        return Err(refused("coordinates of the curve's length", format_args!("{name}")));
                    }
                    point.extend(bytes);
                }
                let parsed = ParsedPublicKey::try_from(&UnparsedPublicKey::new(curve.agreement(), &point));
                parsed
                    .map(|key| Self::Ec(curve, key))
                    .map_err(|_rejected| refused("a point of the curve", "another point"))
            }
            TeeJwk::Rsa { alg, n, e } => {
                if alg != RSA_OAEP {
                    return Err(refused("RSA-OAEP-256 for an RSA key", alg));
                }
                let (n, e) = (decode(n)?, decode(e)?);
                let significant = n.iter().skip_while(|byte| **byte == 0).count();
                if !RSA_MODULUS_BYTES.contains(&significant) {
                    return Err(refused(
                        "a modulus of 2048 to 8192 bits",
                        format_args!("{significant} bytes"),
                    ));
                }
                let key: Result<PublicEncryptingKey, _> = PublicKeyComponents { n, e }.try_into();
                key.and_then(OaepPublicEncryptingKey::new)
                    .map(Self::Rsa)
                    .map_err(|_unspecified| refused("an RSA key", "other numbers"))
            }
            TeeJwk::Akp { alg, public } => {
                if alg != ML_KEM {
                    return Err(refused("ML-KEM-768+A192KW for an AKP key", alg));
                }
                EncapsulationKey::new(&ML_KEM_768, &decode(public)?)
                    .map(Self::MlKem)
                    .map_err(|rejected| refused("an ML-KEM-768 encapsulation key", rejected))
            }
        }
    }

    /// The `alg` of answers to this key.
    pub(crate) const fn algorithm(&self) -> &'static str {
        match self {
            Self::Ec(..) => ECDH_ES,
            Self::Rsa(_) => RSA_OAEP,
            Self::MlKem(_) => ML_KEM,
        }
    }
}

impl std::fmt::Debug for TeeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TeeKey({})", self.algorithm())
    }
}

fn decode(text: &str) -> Result<Vec<u8>, KeyError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|error| refused("base64url without padding", error))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const P256: &str = r#"{"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":"Q0jOFXatQBF8afSQWZT9H4ASCZPq4tvvzkWQyoGqQJ8","y":"LqboyWbYhYsJmQ5IB5lAwI_rqkdCdaUUrDi0B3LrCak"}"#;

    fn parsed(json: &str) -> Result<TeeKey, String> {
        let jwk: TeeJwk = serde_json::from_str(json).map_err(|error| error.to_string())?;
        TeeKey::parse(&jwk).map_err(|error| error.to_string())
    }

    #[test]
    fn unknown_members_are_dropped_and_known_ones_kept_as_sent() {
        let jwk: TeeJwk = serde_json::from_str(&P256.replace("{", r#"{"kid":"x","use":"enc","#)).unwrap();
        assert_eq!(jwk.members().into_keys().collect::<Vec<_>>(), ["alg", "crv", "kty", "x", "y"]);
        assert_eq!(jwk, serde_json::from_str(P256).unwrap());
        assert!(parsed(P256).is_ok());
    }

    #[test]
    fn evil_guest_key_that_cannot_be_encrypted_to_is_refused() {
        let x = "Q0jOFXatQBF8afSQWZT9H4ASCZPq4tvvzkWQyoGqQJ8";
        for (from, to) in [
            ("ECDH-ES+A256KW", "ECDH-ES"),
            ("P-256", "P-384"),
            ("P-256", "P-521"),
            (x, "LqboyWbYhYsJmQ5IB5lAwI_rqkdCdaUUrDi0B3LrCak"),
            (x, "Q0jOFXatQBF8afSQWZT9H4ASCZPq4tvvzkWQyoGqQJ8="),
            (x, "Q0jO"),
            (x, ""),
            ("EC\"", "oct\""),
        ] {
            let changed = P256.replace(from, to);
            assert_ne!(changed, P256);
            assert!(parsed(&changed).is_err(), "{changed}");
        }
        assert!(parsed(&P256.replace("{", r#"{"x":"AA","#)).is_err(), "a duplicate member");
        let rsa = |alg: &str, bytes: usize| {
            let n = URL_SAFE_NO_PAD.encode([vec![0xc1; bytes - 1], vec![1]].concat());
            parsed(&format!(r#"{{"kty":"RSA","alg":"{alg}","n":"{n}","e":"AQAB"}}"#))
        };
        assert!(rsa("RSA-OAEP-256", 256).is_ok());
        assert!(rsa("RSA1_5", 256).is_err());
        assert!(rsa("RSA-OAEP-256", 128).is_err());
        assert!(rsa("RSA-OAEP-256", 2048).is_err());
        let short = URL_SAFE_NO_PAD.encode([1; 1183]);
        assert!(parsed(&format!(r#"{{"kty":"AKP","alg":"ML-KEM-768+A192KW","pub":"{short}"}}"#)).is_err());
    }
}
