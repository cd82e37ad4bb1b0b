//! Signatures of cosign with a key pair (cosign, specs/SIGNATURE_SPEC.md).
//!
//! The signature of a manifest is a manifest of its own, under the tag `sha256-<hex>.sig` of the same repository. Each layer of it is a
//! payload; the signature over the payload's bytes is an annotation. Whoever writes to the registry writes these too, so that only
//! payloads that verify are read, and one that does not says nothing about the others.

mod key;
mod manifest;

pub use key::{COSIGN_KEY_MAX, CosignKey};
pub use manifest::{SIGNATURE_MANIFEST_MAX, SignatureLayer, signature_tag};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::payload::PAYLOAD_MAX;

/// Media type of a payload.
pub const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Annotation with the signature over a payload.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// Longest text of a signature, in bytes: that of the longest RSA key, with line ends.
pub const SIGNATURE_TEXT_MAX: usize = 2048;

/// Why a key or signature is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CosignFault {
    /// It verifies by none of the keys, or is about other bytes.
    #[error("cosign: expected a signature by a key of the policy, found another")]
    BadSignature,
    /// The key is not of the form.
    #[error("cosign: expected {expected}, found something else")]
    Key {
        /// What is.
        expected: &'static str,
    },
    /// The signature or its manifest is not of the form.
    #[error("cosign: expected {expected}, found something else")]
    Malformed {
        /// What is.
        expected: &'static str,
    },
    /// A private key, where a public one belongs.
    #[error("cosign: expected a public key, found a private one: it is no secret any more")]
    PrivateKey,
    /// Longer than its cap.
    #[error("cosign: expected at most {most} bytes of {what}, found more")]
    TooLarge {
        /// The cap.
        most: usize,
        /// Of what.
        what: &'static str,
    },
    /// A key that is too short.
    #[error("cosign: expected an RSA key of 2048 to 8192 bits, found {bits}")]
    WeakKey {
        /// Its length.
        bits: usize,
    },
}

impl CosignFault {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadSignature => "IMAGE_COSIGN_BAD_SIGNATURE",
            Self::Key { .. } => "IMAGE_COSIGN_KEY_INVALID",
            Self::Malformed { .. } => "IMAGE_COSIGN_MALFORMED",
            Self::PrivateKey => "IMAGE_COSIGN_PRIVATE_KEY",
            Self::TooLarge { .. } => "IMAGE_COSIGN_TOO_LARGE",
            Self::WeakKey { .. } => "IMAGE_COSIGN_WEAK_KEY",
        }
    }

    pub(crate) const fn rank(&self) -> u8 {
        match self {
            Self::BadSignature => 1,
            _ => 0,
        }
    }
}

/// A payload, and the signature that stands beside it: both untrusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CosignLayer {
    /// Bytes of the layer, at most [`super::PAYLOAD_MAX`].
    pub payload: Vec<u8>,
    /// Value of [`SIGNATURE_ANNOTATION`].
    pub signature: String,
}

impl CosignLayer {
    /// Which of the keys signed the payload.
    ///
    /// # Errors
    ///
    /// `IMAGE_COSIGN_BAD_SIGNATURE` when none did; `IMAGE_COSIGN_MALFORMED`, `IMAGE_COSIGN_TOO_LARGE`.
    pub fn verify<'k>(&self, keys: &'k [CosignKey]) -> Result<&'k CosignKey, CosignFault> {
        // GUARD: cosign-payload-size -> evil_huge_payload
        if self.payload.len() > PAYLOAD_MAX {
            return Err(CosignFault::TooLarge { most: PAYLOAD_MAX, what: "a payload" });
        }
        // GUARD: cosign-signature-size -> evil_huge_payload
        if self.signature.len() > SIGNATURE_TEXT_MAX {
            return Err(CosignFault::TooLarge { most: SIGNATURE_TEXT_MAX, what: "a signature" });
        }
        let text: String =
            self.signature.chars().filter(|character| !matches!(character, '\r' | '\n')).collect();
        let signature = STANDARD
            .decode(text)
            .map_err(|_| CosignFault::Malformed { expected: "a signature in base64" })?;
        keys.iter().find(|key| key.verifies(&self.payload, &signature)).ok_or(CosignFault::BadSignature)
    }
}

#[cfg(test)]
mod tests;
