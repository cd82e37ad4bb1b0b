//! Why a keyring or a message is refused.

/// Nothing of the text is quoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenPgpFault {
    /// The signature does not verify.
    #[error("OpenPGP: expected a signature over what is there, found another")]
    BadSignature,
    /// The key had expired at the date of the signature, or was not made yet.
    #[error("OpenPGP: expected a signature of the time when key {key} was valid, found one of another")]
    KeyExpired {
        /// Its fingerprint.
        key: String,
    },
    /// The key is not for signing.
    #[error("OpenPGP: expected a key for signing, found {key} for something else")]
    KeyNotForSigning {
        /// Its fingerprint.
        key: String,
    },
    /// The key is revoked.
    #[error("OpenPGP: expected a key that is not revoked, found {key}")]
    KeyRevoked {
        /// Its fingerprint.
        key: String,
    },
    /// The key does not vouch for itself.
    #[error("OpenPGP: expected key {key} to be bound by its newest self-signature, found none that verifies")]
    KeyUnbound {
        /// Its fingerprint.
        key: String,
    },
    /// The bytes are not of the form.
    #[error("OpenPGP: expected {expected}, found something else")]
    Malformed {
        /// What should have been there.
        expected: &'static str,
    },
    /// A keyring without a key that may sign.
    #[error("OpenPGP: expected a key that may sign, found none; the first: {first}")]
    NoKey {
        /// Why the first one may not.
        first: Box<OpenPgpFault>,
    },
    /// A secret key, where a public one belongs.
    #[error("OpenPGP: expected public keys, found a secret one: it is no secret any more")]
    SecretKey,
    /// The signature expires.
    #[error(
        "OpenPGP: expected a signature that does not expire, found one that does: there is no clock here to tell"
    )]
    SignatureExpires,
    /// Signed by nobody in the keyring.
    #[error("OpenPGP: expected a signature by a key of the policy, found one by key id {key_id}")]
    Stranger {
        /// Whose it says to be, in hex.
        key_id: String,
    },
    /// Longer than its cap.
    #[error("OpenPGP: expected at most {most} {unit}, found more")]
    TooLarge {
        /// The cap.
        most: usize,
        /// Of what.
        unit: &'static str,
    },
    /// A version, algorithm or demand that is not supported.
    #[error("OpenPGP: expected a supported {what}, found {found}")]
    Unsupported {
        /// Of what kind.
        what: &'static str,
        /// Its number.
        found: u8,
    },
    /// A hash function that is too weak.
    #[error("OpenPGP: expected SHA-256, SHA-384 or SHA-512, found hash algorithm {found}")]
    WeakHash {
        /// Its number.
        found: u8,
    },
    /// A key that is too short.
    #[error("OpenPGP: expected an RSA key of 2048 to 8192 bits, found {bits}")]
    WeakKey {
        /// Its length.
        bits: usize,
    },
}

impl OpenPgpFault {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadSignature => "IMAGE_PGP_BAD_SIGNATURE",
            Self::KeyExpired { .. } => "IMAGE_PGP_KEY_EXPIRED",
            Self::KeyNotForSigning { .. } => "IMAGE_PGP_KEY_NOT_FOR_SIGNING",
            Self::KeyRevoked { .. } => "IMAGE_PGP_KEY_REVOKED",
            Self::KeyUnbound { .. } => "IMAGE_PGP_KEY_UNBOUND",
            Self::Malformed { .. } => "IMAGE_PGP_MALFORMED",
            Self::NoKey { .. } => "IMAGE_PGP_NO_KEY",
            Self::SecretKey => "IMAGE_PGP_SECRET_KEY",
            Self::SignatureExpires => "IMAGE_PGP_SIGNATURE_EXPIRES",
            Self::Stranger { .. } => "IMAGE_PGP_STRANGER",
            Self::TooLarge { .. } => "IMAGE_PGP_TOO_LARGE",
            Self::Unsupported { .. } => "IMAGE_PGP_UNSUPPORTED",
            Self::WeakHash { .. } => "IMAGE_PGP_WEAK_HASH",
            Self::WeakKey { .. } => "IMAGE_PGP_WEAK_KEY",
        }
    }

    /// How far a message came.
    pub(crate) const fn rank(&self) -> u8 {
        match self {
            Self::Malformed { .. } | Self::TooLarge { .. } | Self::Unsupported { .. } => 0,
            Self::Stranger { .. } => 1,
            _ => 2,
        }
    }

    pub(super) const fn malformed(expected: &'static str) -> Self {
        Self::Malformed { expected }
    }
}
