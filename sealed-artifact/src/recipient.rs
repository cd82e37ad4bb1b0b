//! Recipients of grants: HPKE keys of the two suites, and who a recipient is.

use std::fmt;

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha384;
use hpke::kem::{DhP384HkdfSha384, XWing};
use hpke::rand_core::CryptoRng;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use crate::digest::RecipientKeyDigest;
use crate::error::{ArtifactError, Found};
use crate::keys::{ContentKey, fill_random};

mod export;

pub use export::SharedSecret;

/// HPKE suite of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GrantSuite {
    /// DHKEM(P-384), HKDF-SHA-384, AES-256-GCM.
    P384,
    /// X-Wing (ML-KEM-768 with X25519), HKDF-SHA-384, AES-256-GCM: also against quantum computers.
    XWing,
}

impl GrantSuite {
    /// Parses the name in grants.
    ///
    /// # Errors
    /// `GRANT_KIND_UNKNOWN`.
    pub fn parse(text: &str) -> Result<Self, ArtifactError> {
        [Self::P384, Self::XWing]
            .into_iter()
            .find(|suite| suite.as_str() == text)
            .ok_or_else(|| ArtifactError::GrantKindUnknown { member: "suite", found: Found::text(text) })
    }

    /// The name in grants.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P384 => "HPKE P-384 HKDF-SHA-384 AES-256-GCM",
            Self::XWing => "HPKE X-Wing HKDF-SHA-384 AES-256-GCM",
        }
    }

    /// Length of an encapsulated key.
    pub(crate) const fn encapsulated_length(self) -> usize {
        match self {
            Self::P384 => 97,
            Self::XWing => 1120,
        }
    }
}

impl fmt::Display for GrantSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// 32-byte identity of a recipient.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecipientId([u8; 32]);

impl RecipientId {
    /// The id with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for RecipientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for RecipientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Epoch of a recipient's keys: a new one makes old grants useless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyEpoch(u64);

impl KeyEpoch {
    /// The epoch with this value.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The value.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Display for KeyEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A recipient's public key, valid for its suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientPublicKey {
    suite: GrantSuite,
    bytes: Vec<u8>,
}

impl RecipientPublicKey {
    /// Parses the HPKE serialisation (P-384: 97-byte uncompressed point; X-Wing: 1,216 bytes).
    ///
    /// # Errors
    /// `KEY_INVALID`.
    pub fn parse(suite: GrantSuite, bytes: &[u8]) -> Result<Self, ArtifactError> {
        match suite {
            GrantSuite::P384 => parse_key::<<DhP384HkdfSha384 as Kem>::PublicKey>(suite, bytes).map(drop)?,
            GrantSuite::XWing => parse_key::<<XWing as Kem>::PublicKey>(suite, bytes).map(drop)?,
        }
        Ok(Self { suite, bytes: bytes.to_vec() })
    }

    /// The suite.
    #[must_use]
    pub fn suite(&self) -> GrantSuite {
        self.suite
    }

    /// The HPKE serialisation.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the HPKE serialisation.
    #[must_use]
    pub fn digest(&self) -> RecipientKeyDigest {
        RecipientKeyDigest::of(&self.bytes)
    }

    /// Seals a content key: encapsulated key and ciphertext.
    pub(crate) fn seal(
        &self,
        info: &[u8],
        key: &ContentKey,
        random: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, Vec<u8>), ArtifactError> {
        match self.suite {
            GrantSuite::P384 => seal_with::<DhP384HkdfSha384>(self, info, key, random),
            GrantSuite::XWing => seal_with::<XWing>(self, info, key, random),
        }
    }
}

fn parse_key<K: Deserializable>(suite: GrantSuite, bytes: &[u8]) -> Result<K, ArtifactError> {
    K::from_bytes(bytes).map_err(|_| ArtifactError::KeyInvalid {
        expected: match suite {
            GrantSuite::P384 => "a P-384 key in HPKE serialisation",
            GrantSuite::XWing => "an X-Wing key in HPKE serialisation",
        },
        found: Found::value(format_args!("{} bytes that are none", bytes.len())),
    })
}

fn seal_with<K: Kem>(
    recipient: &RecipientPublicKey,
    info: &[u8],
    key: &ContentKey,
    random: &mut impl CryptoRng,
) -> Result<(Vec<u8>, Vec<u8>), ArtifactError> {
    let public: K::PublicKey = parse_key(recipient.suite, &recipient.bytes)?;
    let sealed = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha384, K>(
        &OpModeS::Base,
        &public,
        info,
        key.expose_bytes(),
        b"",
        random,
    );
    let (encapsulated, wrapped) = sealed.map_err(|_| ArtifactError::KeyInvalid {
        expected: "a recipient key that can be sealed to",
        found: Found::value(recipient.suite),
    })?;
    Ok((encapsulated.to_bytes().to_vec(), wrapped))
}

/// A recipient's secret key; wiped when dropped.
#[expect(missing_debug_implementations, reason = "key material is never printed")]
pub struct RecipientSecretKey(Secret);

enum Secret {
    P384(<DhP384HkdfSha384 as Kem>::PrivateKey),
    XWing(Box<<XWing as Kem>::PrivateKey>),
}

impl RecipientSecretKey {
    /// A fresh key.
    ///
    /// # Errors
    /// `RANDOM_UNAVAILABLE`.
    pub fn generate(suite: GrantSuite) -> Result<Self, ArtifactError> {
        let mut seed = Zeroizing::new([0; 64]);
        fill_random(seed.as_mut())?;
        Ok(Self::derive(suite, seed.as_ref()))
    }

    /// Derives a key from key material of at least 48 bytes: HPKE `DeriveKeyPair`.
    #[must_use]
    pub fn derive(suite: GrantSuite, key_material: &[u8]) -> Self {
        match suite {
            GrantSuite::P384 => Self(Secret::P384(DhP384HkdfSha384::derive_keypair(key_material).0)),
            GrantSuite::XWing => Self(Secret::XWing(Box::new(XWing::derive_keypair(key_material).0))),
        }
    }

    /// Parses the HPKE serialisation (P-384: 48-byte scalar; X-Wing: 32-byte seed).
    ///
    /// # Errors
    /// `KEY_INVALID`.
    pub fn parse(suite: GrantSuite, bytes: &[u8]) -> Result<Self, ArtifactError> {
        match suite {
            GrantSuite::P384 => parse_key(suite, bytes).map(|key| Self(Secret::P384(key))),
            GrantSuite::XWing => parse_key(suite, bytes).map(|key| Self(Secret::XWing(Box::new(key)))),
        }
    }

    /// The suite.
    #[must_use]
    pub fn suite(&self) -> GrantSuite {
        match &self.0 {
            Secret::P384(_) => GrantSuite::P384,
            Secret::XWing(_) => GrantSuite::XWing,
        }
    }

    /// The HPKE serialisation, for storage.
    #[must_use]
    pub fn expose_bytes(&self) -> Zeroizing<Vec<u8>> {
        match &self.0 {
            Secret::P384(key) => Zeroizing::new(key.to_bytes().to_vec()),
            Secret::XWing(key) => Zeroizing::new(key.to_bytes().to_vec()),
        }
    }

    /// The public key.
    #[must_use]
    pub fn public_key(&self) -> RecipientPublicKey {
        let bytes = match &self.0 {
            Secret::P384(key) => DhP384HkdfSha384::sk_to_pk(key).to_bytes().to_vec(),
            Secret::XWing(key) => XWing::sk_to_pk(key).to_bytes().to_vec(),
        };
        RecipientPublicKey { suite: self.suite(), bytes }
    }

    /// Opens a wrapped content key.
    pub(crate) fn open(
        &self,
        encapsulated: &[u8],
        info: &[u8],
        wrapped: &[u8],
    ) -> Result<ContentKey, ArtifactError> {
        let opened = match &self.0 {
            Secret::P384(key) => open_with::<DhP384HkdfSha384>(key, encapsulated, info, wrapped),
            Secret::XWing(key) => open_with::<XWing>(key, encapsulated, info, wrapped),
        };
        ContentKey::from_bytes(&opened.ok_or(ArtifactError::GrantOpenFailed)?)
    }
}

fn open_with<K: Kem>(
    key: &K::PrivateKey,
    encapsulated: &[u8],
    info: &[u8],
    wrapped: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let encapsulated = K::EncappedKey::from_bytes(encapsulated).ok()?;
    let opened = hpke::single_shot_open::<AesGcm256, HkdfSha384, K>(
        &OpModeR::Base,
        key,
        &encapsulated,
        info,
        wrapped,
        b"",
    );
    opened.ok().map(Zeroizing::new)
}
