//! Content key and key schedule: HKDF-SHA-512 from content key and parameters digest to one key, nonce base and commitment per payload.

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA512, KeyType, Prk, Salt};
use subtle::ConstantTimeEq as _;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::core::Commitment;
use crate::digest::ParametersDigest;
use crate::error::{ArtifactError, Found};
use crate::names::PayloadIndex;

const EXTRACT_SALT: &[u8] = b"innerkeep sealed artifact v1";
const EXPAND_LABEL: &[u8] = b"innerkeep payload v1";

/// The key of one artifact. It is made fresh by a seal, travels in grants, and is wiped when dropped.
///
/// It has no `Clone`, `Debug` or serialisation: copies are visible in the code that makes them.
#[derive(ZeroizeOnDrop)]
#[expect(missing_debug_implementations, reason = "key material is never printed")]
pub struct ContentKey(Box<[u8; 32]>);

impl ContentKey {
    /// A fresh key from the system's random generator.
    ///
    /// # Errors
    /// `RANDOM_UNAVAILABLE`.
    pub fn generate() -> Result<Self, ArtifactError> {
        let mut key = Self(Box::new([0; 32]));
        fill_random(key.0.as_mut())?;
        Ok(key)
    }

    /// The key with these bytes, for those who open. A sealer has no use for it: it always makes its own.
    ///
    /// # Errors
    /// `KEY_INVALID` unless there are 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let mut key = Self(Box::new([0; 32]));
        if bytes.len() != key.0.len() {
            return Err(ArtifactError::KeyInvalid {
                expected: "a content key of 32 bytes",
                found: Found::value(format_args!("{} bytes", bytes.len())),
            });
        }
        key.0.copy_from_slice(bytes);
        Ok(key)
    }

    /// The bytes, for wrapping and for release into a session. Whoever copies them wipes the copy.
    #[must_use]
    pub fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Fills `bytes` from the system's random generator.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), ArtifactError> {
    getrandom::fill(bytes).map_err(|_| ArtifactError::RandomUnavailable)
}

/// The extracted key of one artifact, from which payload keys expand.
pub(crate) struct KeySchedule {
    prk: Prk,
    parameters: ParametersDigest,
}

struct OkmLength;

impl KeyType for OkmLength {
    fn len(&self) -> usize {
        76
    }
}

impl KeySchedule {
    pub(crate) fn new(key: &ContentKey, parameters: ParametersDigest) -> Self {
        Self { prk: Salt::new(HKDF_SHA512, EXTRACT_SALT).extract(key.expose_bytes()), parameters }
    }

    /// Key, nonce base and commitment of one payload.
    pub(crate) fn payload(&self, payload: PayloadIndex) -> Result<PayloadKeys, ArtifactError> {
        let mut okm = Zeroizing::new([0; 76]);
        let index = payload.value().to_be_bytes();
        let info = [EXPAND_LABEL, self.parameters.as_bytes(), &index];
        let expanded = self.prk.expand(&info, OkmLength).and_then(|expanded| expanded.fill(okm.as_mut()));
        expanded.map_err(|_| bad_key_schedule())?;
        let (key, rest) = okm.split_first_chunk::<32>().ok_or_else(bad_key_schedule)?;
        let (nonce_base, rest) = rest.split_first_chunk::<12>().ok_or_else(bad_key_schedule)?;
        let commitment = rest.first_chunk::<32>().ok_or_else(bad_key_schedule)?;
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| bad_key_schedule())?;
        Ok(PayloadKeys {
            aead: LessSafeKey::new(key),
            nonce_base: *nonce_base,
            commitment: Commitment(*commitment),
        })
    }
}

fn bad_key_schedule() -> ArtifactError {
    ArtifactError::KeyInvalid {
        expected: "76 bytes from the key schedule",
        found: Found::text("a failure of the library"),
    }
}

/// Key, nonce base and commitment of one payload.
pub(crate) struct PayloadKeys {
    pub(crate) aead: LessSafeKey,
    pub(crate) nonce_base: [u8; 12],
    pub(crate) commitment: Commitment,
}

impl PayloadKeys {
    /// Refuses a content key that is not the one the core commits to.
    pub(crate) fn verify_commitment(
        &self,
        payload: PayloadIndex,
        stated: &Commitment,
    ) -> Result<(), ArtifactError> {
        // GUARD: key-commitment -> evil_wrong_content_key_releases_nothing
        if !bool::from(self.commitment.0.ct_eq(&stated.0)) {
            return Err(ArtifactError::CommitmentMismatch { payload: payload.value() });
        }
        Ok(())
    }
}
