//! Secrets that sender and recipient share: HPKE's exporter. For streams whose messages are opened in any order.

use getrandom::SysRng;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha384;
use hpke::kem::{DhP384HkdfSha384, XWing};
use hpke::rand_core::{CryptoRng, UnwrapErr};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use super::{GrantSuite, RecipientPublicKey, RecipientSecretKey, Secret, parse_key};
use crate::error::{ArtifactError, Found};
use crate::keys::fill_random;

/// A secret that both sides have.
pub type SharedSecret = Zeroizing<[u8; 32]>;

impl RecipientPublicKey {
    /// Makes a fresh secret for the recipient: the encapsulated key that goes to it, and what HPKE (mode Base) exports
    /// for `exporter` in a context with `info`.
    ///
    /// # Errors
    /// `KEY_INVALID`, `RANDOM_UNAVAILABLE`.
    pub fn share(&self, info: &[u8], exporter: &[u8]) -> Result<(Vec<u8>, SharedSecret), ArtifactError> {
        // The generator below has no way to report failure, so it is asked once before.
        fill_random(&mut [0; 32])?;
        let mut random = UnwrapErr(SysRng);
        match self.suite() {
            GrantSuite::P384 => share::<DhP384HkdfSha384>(self, info, exporter, &mut random),
            GrantSuite::XWing => share::<XWing>(self, info, exporter, &mut random),
        }
    }
}

impl RecipientSecretKey {
    /// The secret of an encapsulated key that [`RecipientPublicKey::share`] made. Whoever altered `info` or the
    /// encapsulated key made another secret.
    ///
    /// # Errors
    /// `GRANT_OPEN_FAILED` for an encapsulated key that is none.
    pub fn shared(
        &self,
        encapsulated: &[u8],
        info: &[u8],
        exporter: &[u8],
    ) -> Result<SharedSecret, ArtifactError> {
        let shared = match &self.0 {
            Secret::P384(key) => shared::<DhP384HkdfSha384>(key, encapsulated, info, exporter),
            Secret::XWing(key) => shared::<XWing>(key, encapsulated, info, exporter),
        };
        shared.ok_or(ArtifactError::GrantOpenFailed)
    }
}

fn share<K: Kem>(
    recipient: &RecipientPublicKey,
    info: &[u8],
    exporter: &[u8],
    random: &mut impl CryptoRng,
) -> Result<(Vec<u8>, SharedSecret), ArtifactError> {
    let failed = || ArtifactError::KeyInvalid {
        expected: "a recipient key that can be sealed to",
        found: Found::value(recipient.suite()),
    };
    let public: K::PublicKey = parse_key(recipient.suite(), recipient.bytes())?;
    let (encapsulated, context) =
        hpke::setup_sender_with_rng::<AesGcm256, HkdfSha384, K>(&OpModeS::Base, &public, info, random)
            .map_err(|_| failed())?;
    let mut secret = Zeroizing::new([0; 32]);
    context.export(exporter, secret.as_mut()).map_err(|_| failed())?;
    Ok((encapsulated.to_bytes().to_vec(), secret))
}

fn shared<K: Kem>(
    key: &K::PrivateKey,
    encapsulated: &[u8],
    info: &[u8],
    exporter: &[u8],
) -> Option<SharedSecret> {
    let encapsulated = K::EncappedKey::from_bytes(encapsulated).ok()?;
    let context =
        hpke::setup_receiver::<AesGcm256, HkdfSha384, K>(&OpModeR::Base, key, &encapsulated, info).ok()?;
    let mut secret = Zeroizing::new([0; 32]);
    context.export(exporter, secret.as_mut()).ok()?;
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_have_the_same_secret_and_nobody_else() {
        for suite in [GrantSuite::P384, GrantSuite::XWing] {
            let key = RecipientSecretKey::generate(suite).unwrap();
            let (encapsulated, secret) = key.public_key().share(b"info", b"use").unwrap();
            let again = |info: &[u8], exporter: &[u8]| key.shared(&encapsulated, info, exporter).unwrap();
            assert_eq!(*again(b"info", b"use"), *secret);
            assert_ne!(*again(b"inf", b"use"), *secret);
            assert_ne!(*again(b"info", b"other"), *secret);
            let (_, fresh) = key.public_key().share(b"info", b"use").unwrap();
            assert_ne!(*fresh, *secret);
            let stranger = RecipientSecretKey::generate(suite).unwrap();
            let foreign = stranger.shared(&encapsulated, b"info", b"use").ok();
            assert!(foreign.is_none_or(|foreign| *foreign != *secret));
            assert_eq!(key.shared(b"short", b"info", b"use").unwrap_err().code(), "GRANT_OPEN_FAILED");
        }
    }
}
