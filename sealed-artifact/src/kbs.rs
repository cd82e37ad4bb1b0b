//! Key brokers as recipients: a Trustee KBS keeps one key-encryption key per core and policy and judges only its path.

use std::fmt;

use crate::digest::{CoreDigest, RecipientKeyDigest, sha256};
use crate::error::{ArtifactError, Found, length, limit};
use crate::grant::RecipientId;
use crate::keys::fill_random;
use crate::policy::PolicyDigest;

mod fragment;
mod merge;
mod rego;

#[cfg(test)]
mod tests;

pub use fragment::{PolicyFragment, Unenforced, policy_fragment};
pub use merge::{MAXIMUM_RESOURCE_POLICY, Merged, merge, remove};

const RECIPIENT_LABEL: &[u8] = b"innerkeep kbs recipient v1";
/// First segment of every resource path.
pub const REPOSITORY: &str = "innerkeep";

/// What the sealer calls a broker: 1 to 128 bytes of letters, digits, `.`, `_`, `/`, `:`, `-`, first a letter or digit.
///
/// It is a name, not a route: a guest takes its own broker's name from bound initdata, never from a URL that the host
/// resolves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerName(String);

impl BrokerName {
    /// Parses untrusted text.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` for a length outside the limits, `MALFORMED` for other characters.
    pub fn parse(text: &str) -> Result<Self, ArtifactError> {
        limit("broker", 1, 128, length(text.as_bytes()))?;
        let starts_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let fitting = |byte: u8| byte.is_ascii_alphanumeric() || b"._/:-".contains(&byte);
        // GUARD: broker-characters -> evil_broker_names_with_foreign_characters_are_refused
        if !starts_well || !text.bytes().all(fitting) {
            let expected = "letters, digits, '.', '_', '/', ':', '-', first a letter or digit";
            return Err(ArtifactError::Malformed { what: "broker", expected, found: Found::text(text) });
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The recipient id of the broker: SHA-256 of a label and the name.
    #[must_use]
    pub fn recipient_id(&self) -> RecipientId {
        let name = self.0.as_bytes();
        let count = u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes();
        RecipientId::new(sha256(&[RECIPIENT_LABEL, &count, name].concat()))
    }
}

impl fmt::Display for BrokerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A broker as a recipient: its name, and the key by which guests authenticate it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KbsRecipient {
    /// Name.
    pub name: BrokerName,
    /// SHA-256 of the SubjectPublicKeyInfo (DER) of the authority or server key that guests pin for TLS.
    pub key: RecipientKeyDigest,
}

impl KbsRecipient {
    /// A broker that is not authenticated by TLS: one on the loopback interface.
    #[must_use]
    pub fn without_tls(name: BrokerName) -> Self {
        Self { name, key: RecipientKeyDigest::of(b"") }
    }
}

crate::secret::secret! {
    /// Key-encryption key of one grant: what the broker keeps at the grant's path. Its 32 bytes are the whole resource.
    KbsKek, "a key-encryption key of 32 bytes"
}

impl KbsKek {
    /// A fresh key. Only sealing makes one, so that each encrypts one content key.
    pub(crate) fn generate() -> Result<Self, ArtifactError> {
        let mut key = Self(Box::new([0; 32]));
        fill_random(key.0.as_mut())?;
        Ok(key)
    }
}

/// Where a broker keeps the key-encryption key of one core and policy: `innerkeep/CORE/POLICY`, both in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourcePath {
    core: CoreDigest,
    policy: PolicyDigest,
}

impl ResourcePath {
    /// The path of a core under a policy. A guest computes both digests itself.
    #[must_use]
    pub const fn new(core: CoreDigest, policy: PolicyDigest) -> Self {
        Self { core, policy }
    }

    /// The three segments.
    #[must_use]
    pub fn segments(&self) -> [String; 3] {
        [REPOSITORY.to_owned(), hex::encode(self.core.as_bytes()), self.policy.to_string()]
    }

    /// Names the path in markers and in Rego: 64 hex digits.
    pub(crate) fn id(&self) -> String {
        hex::encode(sha256(self.to_string().as_bytes()))
    }
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.segments().join("/"))
    }
}
