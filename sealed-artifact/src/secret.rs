//! 32-byte secrets that open grants without HPKE, and the encryption under them.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA512, KeyType, Salt};
use zeroize::Zeroizing;

use crate::error::{ArtifactError, Found};
use crate::keys::ContentKey;

/// A wrapped content key: ciphertext and tag.
pub(crate) type Wrapped = [u8; 48];

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// It has no `Clone`, `Debug` or serialisation, and is wiped when dropped.
        #[derive(zeroize::ZeroizeOnDrop)]
        #[expect(missing_debug_implementations, reason = "key material is never printed")]
        pub struct $name(Box<[u8; 32]>);

        impl $name {
            /// The secret with these bytes.
            ///
            /// # Errors
            /// `KEY_INVALID` unless there are 32 bytes that are not all zero.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, crate::error::ArtifactError> {
                let mut secret = Self(Box::new([0; 32]));
                crate::secret::take($what, secret.0.as_mut(), bytes)?;
                Ok(secret)
            }

            /// The bytes. Whoever copies them wipes the copy.
            #[must_use]
            pub fn expose_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }
    };
}
pub(crate) use secret;

/// Copies a secret from outside, if it can be one.
pub(crate) fn take(what: &'static str, secret: &mut [u8; 32], bytes: &[u8]) -> Result<(), ArtifactError> {
    if bytes.len() != secret.len() {
        let found = Found::value(format_args!("{} bytes", bytes.len()));
        return Err(ArtifactError::KeyInvalid { expected: what, found });
    }
    // GUARD: secret-of-zeros -> evil_secret_of_zeros_is_refused
    if bytes.iter().all(|byte| *byte == 0) {
        return Err(ArtifactError::KeyInvalid { expected: what, found: Found::text("zeros") });
    }
    secret.copy_from_slice(bytes);
    Ok(())
}

struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        32
    }
}

/// HKDF-SHA-512 to one AES-256 key.
pub(crate) fn derive(
    salt: &[u8; 32],
    secret: &[u8; 32],
    info: &[&[u8]],
) -> Result<Zeroizing<[u8; 32]>, ArtifactError> {
    let mut key = Zeroizing::new([0; 32]);
    let prk = Salt::new(HKDF_SHA512, salt).extract(secret);
    let expanded = prk.expand(info, KeyLength).and_then(|expanded| expanded.fill(key.as_mut()));
    expanded.map_err(|_| failed("a derived key"))?;
    Ok(key)
}

/// Wraps a content key. `key` is used for this one message and no other: the nonce is constant.
pub(crate) fn wrap(key: &[u8; 32], aad: &[u8], content: &ContentKey) -> Result<Wrapped, ArtifactError> {
    let mut bytes = Zeroizing::new(content.expose_bytes().to_vec());
    let tag = aead(key)?.seal_in_place_separate_tag(nonce(), Aad::from(aad), bytes.as_mut());
    let tag = tag.map_err(|_| failed("a wrapped key"))?;
    let mut wrapped = [0; 48];
    for (to, from) in wrapped.iter_mut().zip(bytes.iter().chain(tag.as_ref())) {
        *to = *from;
    }
    Ok(wrapped)
}

/// Opens a wrapped content key.
pub(crate) fn unwrap(key: &[u8; 32], aad: &[u8], wrapped: &Wrapped) -> Result<ContentKey, ArtifactError> {
    let mut bytes = Zeroizing::new(wrapped.to_vec());
    let opened = aead(key)?.open_in_place(nonce(), Aad::from(aad), bytes.as_mut());
    ContentKey::from_bytes(opened.map_err(|_| ArtifactError::GrantOpenFailed)?)
}

fn aead(key: &[u8; 32]) -> Result<LessSafeKey, ArtifactError> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| failed("an AES-256 key"))
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn failed(expected: &'static str) -> ArtifactError {
    ArtifactError::KeyInvalid { expected, found: Found::text("a failure of the library") }
}
