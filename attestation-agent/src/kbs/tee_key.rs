//! The key pair of a guest: made for one handshake, used to open what the broker encrypts to it.
//!
//! A [`TeeKey`] has no way out of this process. An [`ExportableKey`] is another type, made for one peer, and cannot
//! open anything here: who exports a key does not use it, and who uses a key cannot export it.
//!
//! The library (aws-lc) wipes EC and RSA keys when it frees them; ML-KEM keys are wiped by their type.

mod export;

use std::fmt;

use aes_kw::KeyInit as _;
use aes_kw::KwAes192;
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use ml_kem::kem::{Decapsulate, KeyExport};
use ml_kem::ml_kem_768::DecapsulationKey;
use zeroize::{Zeroize, Zeroizing};

pub use export::{ExportableKey, ExportableKeyKind};

use super::der;
use super::error::{ConfigFault, JweFault, LocalFault};
use super::jwe::Header;
use super::jwk::{Curve, Jwk, decode_exactly};
use super::kdf::{concat_kdf, ml_kem_kdf};

/// Bytes of a wrapped content key under AES key wrap.
const WRAPPED: usize = 40;
const RSA_BYTES: usize = 256;
const ML_KEM_CIPHERTEXT: usize = 1088;

/// The content key of one answer.
pub(super) type ContentKey = Zeroizing<[u8; 32]>;

/// Which kind of key a guest makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TeeKeyKind {
    /// ECDH on P-256, AES-256 key wrap.
    #[default]
    EcP256,
    /// ECDH on P-521, AES-256 key wrap.
    EcP521,
    /// ML-KEM-768, AES-192 key wrap. Not verified against the upstream implementation.
    MlKem768,
    /// RSA of 2,048 bits, OAEP with SHA-256.
    Rsa2048,
}

impl TeeKeyKind {
    /// The kind of a name that configurations use (`tee_key_algorithm`).
    ///
    /// # Errors
    ///
    /// `KBS_KEY_KIND_UNKNOWN`.
    pub fn parse(name: &str) -> Result<Self, ConfigFault> {
        [Self::EcP256, Self::EcP521, Self::MlKem768, Self::Rsa2048]
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or(ConfigFault::KeyKind)
    }

    /// The name that configurations use.
    pub fn name(self) -> &'static str {
        match self {
            Self::EcP256 => "ECDH-ES+A256KW-P256",
            Self::EcP521 => "ECDH-ES+A256KW-P521",
            Self::MlKem768 => "ML-KEM-768+A192KW",
            Self::Rsa2048 => "RSA-OAEP-256",
        }
    }
}

/// A key pair whose private part never leaves.
pub struct TeeKey {
    kind: TeeKeyKind,
    private: Private,
    public: Jwk,
}

enum Private {
    Ec(Curve, PrivateKey),
    MlKem(Box<DecapsulationKey>),
    Rsa(OaepPrivateDecryptingKey),
}

impl fmt::Debug for TeeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TeeKey({})", self.kind.name())
    }
}

impl TeeKey {
    /// A new key. RSA takes tens of milliseconds.
    ///
    /// # Errors
    ///
    /// `KBS_CRYPTO_FAILED`: no randomness.
    pub fn generate(kind: TeeKeyKind) -> Result<Self, LocalFault> {
        match kind {
            TeeKeyKind::EcP256 => Self::generate_ec(kind, Curve::P256),
            TeeKeyKind::EcP521 => Self::generate_ec(kind, Curve::P521),
            TeeKeyKind::MlKem768 => {
                let mut seed = Zeroizing::new([0; 64]);
                getrandom::fill(&mut seed[..]).map_err(|_| FAILED)?;
                Ok(Self::ml_kem(&seed))
            }
            TeeKeyKind::Rsa2048 => {
                let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(|_| FAILED)?;
                let public = rsa_public(&key).ok_or(FAILED)?;
                let private = Private::Rsa(OaepPrivateDecryptingKey::new(key).map_err(|_| FAILED)?);
                Ok(Self { kind, private, public })
            }
        }
    }

    fn generate_ec(kind: TeeKeyKind, curve: Curve) -> Result<Self, LocalFault> {
        let key = PrivateKey::generate(algorithm(curve)).map_err(|_| FAILED)?;
        Self::ec(kind, curve, key).ok_or(FAILED)
    }

    fn ec(kind: TeeKeyKind, curve: Curve, key: PrivateKey) -> Option<Self> {
        let public = ec_public(curve, &key)?;
        Some(Self { kind, private: Private::Ec(curve, key), public })
    }

    fn ml_kem(seed: &[u8; 64]) -> Self {
        let key = DecapsulationKey::from_seed((*seed).into());
        let public = Jwk::ml_kem(&key.encapsulation_key().to_bytes());
        Self { kind: TeeKeyKind::MlKem768, private: Private::MlKem(Box::new(key)), public }
    }

    /// What kind of key.
    pub fn kind(&self) -> TeeKeyKind {
        self.kind
    }

    /// The public part.
    pub fn public(&self) -> &Jwk {
        &self.public
    }

    /// The content key of an answer to this key.
    pub(super) fn unwrap_key(&self, header: &Header, wrapped: &[u8]) -> Result<ContentKey, JweFault> {
        match &self.private {
            Private::Ec(curve, key) => {
                let wrapped = wrapped_key(wrapped)?;
                let point = header.ephemeral_point(*curve)?;
                // The library refuses what is no point of the curve.
                let kek = agreement::agree(
                    key,
                    UnparsedPublicKey::new(algorithm(*curve), point),
                    JweFault::Point { curve: curve.name() },
                    |shared| Ok(concat_kdf(shared)),
                )?;
                unwrap_256(&kek, wrapped)
            }
            Private::MlKem(key) => {
                let wrapped = wrapped_key(wrapped)?;
                let ciphertext: [u8; ML_KEM_CIPHERTEXT] =
                    decode_exactly("ek", "a ciphertext of ML-KEM-768", header.encapsulated()?)?;
                let mut shared = key.decapsulate(&ciphertext.into());
                let kek = ml_kem_kdf(&shared);
                shared.as_mut_slice().zeroize();
                unwrap_192(&kek, wrapped)
            }
            Private::Rsa(key) => {
                // GUARD: kbs-rsa-length -> evil_broker_sends_a_short_rsa_key
                if wrapped.len() != RSA_BYTES {
                    return Err(JweFault::Member { member: "encrypted_key", expected: "256 bytes" });
                }
                let mut room = Zeroizing::new([0; RSA_BYTES]);
                let opened = key
                    .decrypt(&OAEP_SHA256_MGF1SHA256, wrapped, &mut room[..], None)
                    .map_err(|_| JweFault::KeyUnwrap)?;
                content_key(opened)
            }
        }
    }
}

const FAILED: LocalFault = LocalFault::Crypto { operation: "making a key" };

fn algorithm(curve: Curve) -> &'static agreement::Algorithm {
    match curve {
        Curve::P256 => &agreement::ECDH_P256,
        Curve::P521 => &agreement::ECDH_P521,
    }
}

fn ec_public(curve: Curve, key: &PrivateKey) -> Option<Jwk> {
    Jwk::ec(curve, key.compute_public_key().ok()?.as_ref())
}

fn rsa_public(key: &PrivateDecryptingKey) -> Option<Jwk> {
    let spki: PublicKeyX509Der<'_> = key.public_key().as_der().ok()?;
    let (modulus, exponent) = der::rsa_public(spki.as_ref())?;
    Some(Jwk::rsa(modulus, exponent))
}

fn wrapped_key(bytes: &[u8]) -> Result<&[u8; WRAPPED], JweFault> {
    bytes.try_into().map_err(|_| JweFault::Member { member: "encrypted_key", expected: "40 bytes" })
}

fn unwrap_256(kek: &[u8; 32], wrapped: &[u8; WRAPPED]) -> Result<ContentKey, JweFault> {
    let kek = AesKek::new(&AES_256, kek).map_err(|_| JweFault::KeyUnwrap)?;
    let mut room = Zeroizing::new([0; WRAPPED]);
    let opened = kek.unwrap(wrapped, &mut room[..]).map_err(|_| JweFault::KeyUnwrap)?;
    content_key(opened)
}

/// aws-lc-rs wraps with 128 and 256 bits only; the same specification from another crate.
fn unwrap_192(kek: &[u8; 24], wrapped: &[u8; WRAPPED]) -> Result<ContentKey, JweFault> {
    let mut room = Zeroizing::new([0; WRAPPED]);
    let opened =
        KwAes192::new(kek.into()).unwrap_key(wrapped, &mut room[..]).map_err(|_| JweFault::KeyUnwrap)?;
    content_key(opened)
}

fn content_key(opened: &[u8]) -> Result<ContentKey, JweFault> {
    let mut key = Zeroizing::new([0; 32]);
    // GUARD: kbs-content-key-length -> evil_broker_wraps_a_short_content_key
    if opened.len() != key.len() {
        return Err(JweFault::KeyUnwrap);
    }
    for (to, from) in key.iter_mut().zip(opened) {
        *to = *from;
    }
    Ok(key)
}

#[cfg(test)]
pub(super) mod tests;
