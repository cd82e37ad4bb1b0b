//! Why an image is refused, with stable codes.

use std::error::Error;

use super::cosign::CosignFault;
use super::digest::Digest;
use super::json::JsonFault;
use super::openpgp::OpenPgpFault;

/// What failed below: a broker, a file, a registry.
pub type Cause = Box<dyn Error + Send + Sync>;

/// An image is refused, or could not be judged, which is the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The digest in the reference is not that of what was pulled.
    #[error("expected the image {expected} that the reference names, found {found} from the registry")]
    DigestMismatch {
        /// What the reference names.
        expected: Digest,
        /// The manifest that was pulled.
        found: Digest,
    },
    /// A key of the policy is none that can be used.
    #[error("image policy, key {place}: {source}")]
    Key {
        /// Where the key is from: a path, a URI, or the name of a member.
        place: String,
        /// Why it cannot be used.
        source: KeyFault,
    },
    /// A key of the policy cannot be read.
    #[error("image policy, key {place}: could not be read: {source}")]
    KeyUnreadable {
        /// Its path or URI.
        place: String,
        /// Why.
        source: Cause,
    },
    /// The policy, or the configuration of signatures, is not of the documented form.
    #[error("{what}, {place}: {source}")]
    Malformed {
        /// Which document.
        what: &'static str,
        /// Where in it.
        place: String,
        /// What was expected and found.
        source: JsonFault,
    },
    /// There is no policy.
    #[error(
        "expected an image policy in the bound configuration, found none: no image is accepted without one"
    )]
    NoPolicy,
    /// The subject has neither tag nor digest.
    #[error("expected a tag or digest in the name of the image, found neither")]
    NotWhole,
    /// The policy rejects what is in this scope.
    #[error("the image policy rejects images of {scope}")]
    Rejected {
        /// The scope of the entry.
        scope: String,
    },
    /// Signatures were looked at, and none is good.
    #[error(
        "expected a signature that {scope} accepts, found {found} that it does not; the nearest: {nearest}"
    )]
    Signature {
        /// The scope of the entry.
        scope: String,
        /// How many there were.
        found: usize,
        /// Why the one was refused that came furthest.
        nearest: SignatureFault,
    },
    /// Signatures cannot be fetched.
    #[error("signatures of {digest} could not be read: {source}")]
    SignaturesUnreadable {
        /// Of which manifest.
        digest: Digest,
        /// Why.
        source: Cause,
    },
    /// More signatures than are looked at.
    #[error("expected at most {most} signatures of an image, found {found}")]
    TooManySignatures {
        /// The cap.
        most: usize,
        /// How many came.
        found: usize,
    },
    /// There is no signature.
    #[error("expected a signature that {scope} demands, found none")]
    Unsigned {
        /// The scope of the entry.
        scope: String,
    },
    /// A demand that is documented and not implemented here. It is refused rather than left out.
    #[error("image policy, {place}: expected only what is supported, found {found}")]
    Unsupported {
        /// Where in the policy.
        place: String,
        /// The demand.
        found: &'static str,
    },
}

impl PolicyError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::DigestMismatch { .. } => "IMAGE_DIGEST_MISMATCH",
            Self::Key { source, .. } => source.code(),
            Self::KeyUnreadable { .. } => "IMAGE_KEY_UNREADABLE",
            Self::Malformed { .. } => "IMAGE_POLICY_MALFORMED",
            Self::NoPolicy => "IMAGE_POLICY_MISSING",
            Self::NotWhole => "IMAGE_REFERENCE_INCOMPLETE",
            Self::Rejected { .. } => "IMAGE_REJECTED",
            Self::Signature { nearest, .. } => nearest.code(),
            Self::SignaturesUnreadable { .. } => "IMAGE_SIGNATURES_UNREADABLE",
            Self::TooManySignatures { .. } => "IMAGE_SIGNATURES_TOO_MANY",
            Self::Unsigned { .. } => "IMAGE_UNSIGNED",
            Self::Unsupported { .. } => "IMAGE_POLICY_UNSUPPORTED",
        }
    }
}

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// A public key in PEM.
    #[error(transparent)]
    Cosign(#[from] CosignFault),
    /// A keyring.
    #[error(transparent)]
    OpenPgp(#[from] OpenPgpFault),
}

impl KeyFault {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Cosign(fault) => fault.code(),
            Self::OpenPgp(fault) => fault.code(),
        }
    }
}

/// Why a signature was refused, in the order in which it is looked at: the last of several is the one that came furthest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureFault {
    /// A signature by cosign that does not verify.
    #[error(transparent)]
    Cosign(#[from] CosignFault),
    /// An OpenPGP message that does not verify.
    #[error(transparent)]
    OpenPgp(#[from] OpenPgpFault),
    /// It verified, but what was signed is not of the documented form.
    #[error("signed text: {0}")]
    Payload(#[from] JsonFault),
    /// It verified, and is about another image.
    #[error("expected a signature of the image that was pulled, found one of {found}")]
    OtherDigest {
        /// Of which image.
        found: Digest,
    },
    /// It verified, is about this image, and gives it another name.
    #[error("expected a name in the signature that {expected} accepts for {intended}, found {found}{hint}")]
    OtherIdentity {
        /// Which rule.
        expected: &'static str,
        /// The name that was asked for.
        intended: String,
        /// The name in the signature.
        found: String,
        /// What may help.
        hint: &'static str,
    },
}

impl SignatureFault {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Cosign(fault) => fault.code(),
            Self::OpenPgp(fault) => fault.code(),
            Self::OtherDigest { .. } => "IMAGE_SIGNATURE_OTHER_DIGEST",
            Self::OtherIdentity { .. } => "IMAGE_SIGNATURE_OTHER_IDENTITY",
            Self::Payload(_) => "IMAGE_SIGNATURE_PAYLOAD",
        }
    }

    /// How far it came.
    pub(crate) const fn rank(&self) -> u8 {
        match self {
            Self::Cosign(fault) => fault.rank(),
            Self::OpenPgp(fault) => fault.rank(),
            Self::Payload(_) => 10,
            Self::OtherDigest { .. } => 11,
            Self::OtherIdentity { .. } => 12,
        }
    }
}
