//! Digests as types: what was hashed is part of the type.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::error::{ArtifactError, Found};
use crate::json::lower_hex;

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

macro_rules! sha256_digest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The digest with these bytes.
            #[must_use]
            pub const fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Hashes `bytes`.
            #[must_use]
            pub fn of(bytes: &[u8]) -> Self {
                Self(sha256(bytes))
            }

            /// Parses `sha256:` and 64 lower-case hex digits.
            ///
            /// # Errors
            /// `MALFORMED` for any other text.
            pub fn parse(text: &str) -> Result<Self, ArtifactError> {
                text.strip_prefix("sha256:")
                    .and_then(lower_hex)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or_else(|| ArtifactError::Malformed {
                        what: "digest",
                        expected: "sha256: and 64 lower-case hex digits",
                        found: Found::text(text),
                    })
            }

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "sha256:{}", hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

sha256_digest! {
    /// SHA-256 of the bytes of a core: the name of the artifact.
    CoreDigest
}
sha256_digest! {
    /// SHA-256 of the canonical bytes of `parameters`: what keys are bound to.
    ParametersDigest
}
sha256_digest! {
    /// SHA-256 of a tag table.
    TagTableDigest
}
sha256_digest! {
    /// SHA-256 of a sealer public key's SubjectPublicKeyInfo in DER.
    SealerKeyDigest
}
sha256_digest! {
    /// SHA-256 of a recipient public key, in the serialisation of the grant's kind.
    RecipientKeyDigest
}
sha256_digest! {
    /// SHA-256 of a blob in a store.
    BlobDigest
}

impl From<CoreDigest> for BlobDigest {
    /// The core is itself a blob: the config of the artifact's manifest.
    fn from(core: CoreDigest) -> Self {
        Self(core.0)
    }
}
