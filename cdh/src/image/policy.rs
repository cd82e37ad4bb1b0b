//! Which images may run: containers-policy.json(5), and nothing without it.
//!
//! ```text
//!  bytes ─▶ ImagePolicy ─▶ decide ◀── Subject: the name that was asked for, the digests that were pulled
//!                            │  ▲
//!             scope ─▶ requirements     SignatureSource: signatures by digest (untrusted)
//!                            │          Material: keys (files of the image, resources of the broker)
//!                            ▼
//!                         Accepted: by which requirement, by which key, for which digest
//! ```
//!
//! ```no_run
//! use cdh::image::policy::{Digest, ImageName, ImagePolicy, Material, SignatureSource, Subject};
//! # async fn example(bytes: Option<&[u8]>, body: &[u8], source: &dyn SignatureSource, keys: &dyn Material)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let policy = ImagePolicy::load(bytes)?;
//! let reference = ImageName::parse("registry.example/models/ranker:v3")?;
//! let subject = Subject { reference, mirror: None, manifest_digest: Digest::sha256(body), index_digest: None };
//! let accepted = policy.decide(&subject, source, keys).await?;
//! println!("{}", accepted.record());
//! # Ok(())
//! # }
//! ```
//!
//! # What differs from upstream, and why
//!
//! * No policy is a refusal (`IMAGE_POLICY_MISSING`), not permission. So is an empty list of requirements.
//! * The scope is looked up by the name that was asked for, not by the mirror that answered: a mirror is a place, and what is believed about
//!   an image does not depend on it. [`MirrorRule::Also`] makes the mirror's own entry hold too, as though the image had been asked for
//!   there; `remapIdentity` says then by which name it was signed.
//! * A name with tag and digest is a name with a digest: nobody resolved that tag.
//! * Identity is always compared; without `signedIdentity` it is `matchRepoDigestOrExact` for both kinds of signatures. cosign writes no tag
//!   unless it is told to, so that its signatures need `matchRepository` or `exactRepository`, as the page says.
//! * A signature may name the manifest of this platform or the index that names it; both were pulled and compared by digest. Signatures are
//!   looked up by these digests, never by asking for the tag once more.
//! * Of several signatures one has to be good; what is in the others does not matter. Payloads are read only after they verified.
//! * What is documented and not implemented (Fulcio, Rekor, PKI, `signedBaseLayer`) is refused when the policy is read.
//! * `keyData` of `sigstoreSigned` may be base64, as documented, or PEM, as upstream took it.

//!
//! # Codes
//!
//! | code | means |
//! |---|---|
//! | `IMAGE_COSIGN_BAD_SIGNATURE` | by no key of the policy, or over other bytes |
//! | `IMAGE_COSIGN_KEY_INVALID` | no public key for ECDSA on P-256 or P-384, RSA or Ed25519 in PEM |
//! | `IMAGE_COSIGN_MALFORMED` | a signature or its manifest of another form |
//! | `IMAGE_COSIGN_PRIVATE_KEY` | a private key in the policy |
//! | `IMAGE_COSIGN_TOO_LARGE` | a key, payload or signature above its cap |
//! | `IMAGE_COSIGN_WEAK_KEY` | RSA below 2048 bits |
//! | `IMAGE_DIGEST_MISMATCH` | the registry answered with another manifest than the reference names |
//! | `IMAGE_KEY_UNREADABLE` | a file or resource with a key could not be read |
//! | `IMAGE_PGP_BAD_SIGNATURE` | over another text |
//! | `IMAGE_PGP_KEY_EXPIRED` | of a date at which the key was not valid |
//! | `IMAGE_PGP_KEY_NOT_FOR_SIGNING` | by a key that is for something else |
//! | `IMAGE_PGP_KEY_REVOKED` | by a key that is revoked |
//! | `IMAGE_PGP_KEY_UNBOUND` | by a key whose newest self-signature or binding does not verify |
//! | `IMAGE_PGP_MALFORMED` | a message or keyring of another form |
//! | `IMAGE_PGP_NO_KEY` | a keyring without a key that may sign |
//! | `IMAGE_PGP_SECRET_KEY` | a secret key in the policy |
//! | `IMAGE_PGP_SIGNATURE_EXPIRES` | a signature that expires |
//! | `IMAGE_PGP_STRANGER` | by a key that is not in the keyring |
//! | `IMAGE_PGP_TOO_LARGE` | a message or keyring above its cap |
//! | `IMAGE_PGP_UNSUPPORTED` | a version, algorithm or demand that is not known here |
//! | `IMAGE_PGP_WEAK_HASH` | SHA-1, SHA-224 and their like |
//! | `IMAGE_PGP_WEAK_KEY` | RSA below 2048 bits |
//! | `IMAGE_POLICY_MALFORMED` | a policy, or a configuration of signatures, of another form |
//! | `IMAGE_POLICY_MISSING` | no policy |
//! | `IMAGE_POLICY_UNSUPPORTED` | a policy with a demand that is not implemented |
//! | `IMAGE_REFERENCE_INCOMPLETE` | neither tag nor digest |
//! | `IMAGE_REJECTED` | the policy says so |
//! | `IMAGE_SIGNATURES_TOO_MANY` | more signatures than are looked at |
//! | `IMAGE_SIGNATURES_UNREADABLE` | signatures could not be fetched |
//! | `IMAGE_SIGNATURE_OTHER_DIGEST` | by a trusted key, about another image |
//! | `IMAGE_SIGNATURE_OTHER_IDENTITY` | by a trusted key, about this image, under another name |
//! | `IMAGE_SIGNATURE_PAYLOAD` | by a trusted key, over a text of another form |
//! | `IMAGE_UNSIGNED` | no signature |

mod accepted;
pub mod cosign;
mod decide;
mod digest;
mod document;
mod error;
mod identity;
pub(crate) mod json;
mod lookaside;
mod material;
mod name;
pub mod openpgp;
mod payload;
mod scope;
mod source;

pub use accepted::{Accepted, Ground, Location, Proof};
pub use digest::{Digest, DigestAlgorithm};
pub use document::{KEYS_MAX, POLICY_MAX, REQUIREMENTS_MAX, SCOPES_MAX};
pub use error::{Cause, KeyFault, PolicyError, SignatureFault};
pub use json::JsonFault;
pub use lookaside::{LOOKASIDE_CONFIG_MAX, LookasideConfig};
pub use material::{Material, MaterialUri};
pub use name::{ImageName, NameFault};
pub use payload::{PAYLOAD_MAX, Payload, PayloadKind};
pub use source::{NoSignatures, SIGNATURES_MAX, SignatureSource};

use document::Document;

/// An image, about which a policy is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The name that was asked for, with tag or digest.
    pub reference: ImageName,
    /// Where it was pulled from, when that is another place.
    pub mirror: Option<ImageName>,
    /// Digest of the manifest of this platform: of the bytes that were pulled.
    pub manifest_digest: Digest,
    /// Digest of the index in which that manifest is named, if there was one.
    pub index_digest: Option<Digest>,
}

impl Subject {
    /// The digests that a signature may name.
    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        std::iter::once(&self.manifest_digest).chain(&self.index_digest)
    }
}

/// What the place says from which an image was pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MirrorRule {
    /// The requirements of the mirror's scope hold too.
    Also,
    /// Nothing: requirements are those of the name that was asked for.
    #[default]
    OriginalOnly,
}

/// A policy.
#[derive(Debug)]
pub struct ImagePolicy {
    document: Document,
    mirrors: MirrorRule,
}

impl ImagePolicy {
    /// Reads the policy that the bound configuration holds.
    ///
    /// # Errors
    ///
    /// `IMAGE_POLICY_MISSING` when it holds none, else as [`Self::parse`].
    pub fn load(bytes: Option<&[u8]>) -> Result<Self, PolicyError> {
        Self::parse(bytes.ok_or(PolicyError::NoPolicy)?)
    }

    /// Reads a policy of at most [`POLICY_MAX`] bytes. Keys that it holds itself are read too.
    ///
    /// # Errors
    ///
    /// `IMAGE_POLICY_MALFORMED`, `IMAGE_POLICY_UNSUPPORTED`, codes of keys.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        Ok(Self { document: Document::parse(bytes)?, mirrors: MirrorRule::default() })
    }

    /// The same policy, with another rule about mirrors.
    #[must_use]
    pub fn with_mirrors(self, mirrors: MirrorRule) -> Self {
        Self { mirrors, ..self }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
