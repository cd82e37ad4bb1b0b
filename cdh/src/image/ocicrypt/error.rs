//! Why an encrypted layer is not opened.

use protected_memory::secret::SecretError;

use crate::image::policy::Cause;

/// A refusal, or a failure on the way. Nothing of key or plaintext is in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OcicryptError {
    /// The blob is not what was encrypted, or the key is another.
    #[error(
        "encrypted layer: expected the bytes that its authenticator covers, found others, or another key"
    )]
    Authentication,
    /// The cryptographic library failed.
    #[error("encrypted layer: the cryptographic library could not {0}")]
    Crypto(&'static str),
    /// The plaintext is not the one for which the key was given.
    #[error("encrypted layer: expected the plaintext that came with the key, found another")]
    Digest,
    /// Media type and annotations contradict one another.
    #[error("layer: expected media type and annotations to say the same, found {found}")]
    Inconsistent {
        /// What they say.
        found: &'static str,
    },
    /// The blob cannot be read.
    #[error("encrypted layer: {0}")]
    Io(#[from] std::io::Error),
    /// The blob has another length than its descriptor says.
    #[error("encrypted layer: expected {expected} bytes, found {found}")]
    Length {
        /// Length in the descriptor.
        expected: u64,
        /// How many there are, up to one too many.
        found: u64,
    },
    /// Options are not of the form.
    #[error("encrypted layer, {what}: expected {expected}, found something else")]
    Malformed {
        /// Which options.
        what: &'static str,
        /// What should have been there.
        expected: &'static str,
    },
    /// There are no pages for the key.
    #[error(transparent)]
    Memory(#[from] SecretError),
    /// Nobody here can open it.
    #[error("encrypted layer: expected a recipient of a key provider, found {found}")]
    NoRecipient {
        /// What was there.
        found: &'static str,
    },
    /// Longer or more than the cap.
    #[error("encrypted layer: expected at most {most} {what}, found more")]
    TooLarge {
        /// The cap.
        most: u64,
        /// Of what.
        what: &'static str,
    },
    /// Another cipher.
    #[error("encrypted layer: expected cipher AES_256_CTR_HMAC_SHA256, found another")]
    Unsupported,
    /// No recipient could be opened.
    #[error("encrypted layer: none of {tried} recipients could be opened; the last: {last}")]
    Unwrap {
        /// How many there were.
        tried: usize,
        /// Why the last one could not.
        last: Cause,
    },
}

impl OcicryptError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Authentication => "OCICRYPT_AUTHENTICATION",
            Self::Crypto(_) => "OCICRYPT_CRYPTO",
            Self::Digest => "OCICRYPT_DIGEST",
            Self::Inconsistent { .. } => "OCICRYPT_INCONSISTENT",
            Self::Io(_) => "OCICRYPT_IO",
            Self::Length { .. } => "OCICRYPT_LENGTH",
            Self::Malformed { .. } => "OCICRYPT_MALFORMED",
            Self::Memory(_) => "OCICRYPT_MEMORY",
            Self::NoRecipient { .. } => "OCICRYPT_NO_RECIPIENT",
            Self::TooLarge { .. } => "OCICRYPT_TOO_LARGE",
            Self::Unsupported => "OCICRYPT_UNSUPPORTED",
            Self::Unwrap { .. } => "OCICRYPT_UNWRAP",
        }
    }
}
