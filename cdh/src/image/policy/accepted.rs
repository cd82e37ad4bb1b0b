//! That an image was accepted, and why: what is measured and written into the audit.

use serde::Serialize;

use super::Subject;
use super::digest::Digest;

/// A decision for an image. Only [`super::ImagePolicy::decide`] makes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Accepted {
    reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mirror: Option<String>,
    manifest_digest: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    index_digest: Option<Digest>,
    grounds: Vec<Ground>,
}

/// One requirement that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ground {
    /// By which name the requirement was found.
    pub location: Location,
    /// The scope of the entry: as in the policy, `docker` for the transport's own, `default` for the last.
    pub scope: String,
    /// Which requirement of the entry, counted from zero.
    pub requirement: usize,
    /// What satisfied it.
    pub proof: Proof,
}

/// By which name an entry of the policy was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Location {
    /// The place from which the image was pulled.
    Mirror,
    /// The name that was asked for.
    Original,
}

/// What satisfied a requirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
#[non_exhaustive]
pub enum Proof {
    /// Nothing was asked.
    InsecureAcceptAnything,
    /// A signature of cosign.
    SigstoreSigned {
        /// SHA-256 of the key's SubjectPublicKeyInfo (DER).
        key: Digest,
        /// The digest that was signed.
        signed: Digest,
        /// The name that was signed.
        identity: String,
    },
    /// An OpenPGP signature.
    SignedBy {
        /// Fingerprint of the primary key, in upper-case hex.
        key: String,
        /// Fingerprint of the key that signed.
        signer: String,
        /// The digest that was signed.
        signed: Digest,
        /// The name that was signed.
        identity: String,
    },
}

impl Accepted {
    pub(super) fn new(subject: &Subject, grounds: Vec<Ground>) -> Self {
        Self {
            reference: subject.reference.to_string(),
            mirror: subject.mirror.as_ref().map(ToString::to_string),
            manifest_digest: subject.manifest_digest.clone(),
            index_digest: subject.index_digest.clone(),
            grounds,
        }
    }

    /// The name that was asked for, expanded.
    #[must_use]
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Digest of the manifest that may be used. Nothing else was accepted.
    #[must_use]
    pub const fn manifest_digest(&self) -> &Digest {
        &self.manifest_digest
    }

    /// All requirements, each with what satisfied it. There is at least one.
    #[must_use]
    pub fn grounds(&self) -> &[Ground] {
        &self.grounds
    }

    /// Whether some signature was verified.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.grounds.iter().any(|ground| ground.proof != Proof::InsecureAcceptAnything)
    }

    /// One line of JSON, its members always in the same order: for the audit and for a measured event.
    #[must_use]
    pub fn record(&self) -> String {
        // Texts and numbers only: this encoding has no way to fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}
