//! Grants: the content key wrapped for one recipient under one policy. A grant is no evidence of origin: anyone can make one.

use std::fmt;

use crate::core::Core;
use crate::digest::{CoreDigest, RecipientKeyDigest};
use crate::error::{ArtifactError, Found};
use crate::kbs::BrokerName;
use crate::policy::PolicyDocument;
pub use crate::recipient::{
    GrantSuite, KeyEpoch, RecipientId, RecipientPublicKey, RecipientSecretKey, SharedSecret,
};
use crate::snp::SnpSelection;
use crate::tpm::TpmObject;

mod chip;
mod context;
mod json;
mod secret_kinds;
mod strength;

#[cfg(test)]
mod secret_tests;
#[cfg(test)]
mod tests;

use context::Context;
pub use strength::{WeakestGrant, weakest};

const TYPE: &str = "innerkeep grant v1";
/// Largest grant in bytes.
pub const MAXIMUM_GRANT: u64 = 131_072;
/// Most grants of one artifact that a reader looks at.
pub const MAXIMUM_GRANTS: usize = 1_024;

/// What kind of recipient a grant is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GrantKind {
    /// A chip with its own key.
    Chip,
    /// A key broker.
    Kbs,
    /// An SEV-SNP guest, for itself.
    Snp,
    /// A TPM, which never counts as a TEE.
    Tpm,
}

impl GrantKind {
    /// The name in grants.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chip => "chip",
            Self::Kbs => "kbs",
            Self::Snp => "snp",
            Self::Tpm => "tpm",
        }
    }

    fn parse(text: &str) -> Result<Self, ArtifactError> {
        match text {
            "chip" => Ok(Self::Chip),
            "kbs" => Ok(Self::Kbs),
            "snp" => Ok(Self::Snp),
            "tpm" => Ok(Self::Tpm),
            other => Err(ArtifactError::GrantKindUnknown { member: "kind", found: Found::text(other) }),
        }
    }
}

impl fmt::Display for GrantKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What kind of key a grant wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GrantObject {
    /// The key of an audit log.
    Audit,
    /// The content key of a core.
    Core,
    /// A small secret.
    Secret,
}

impl GrantObject {
    /// The name in grants.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Core => "core",
            Self::Secret => "secret",
        }
    }

    fn parse(text: &str) -> Result<Self, ArtifactError> {
        match text {
            "audit" => Ok(Self::Audit),
            "core" => Ok(Self::Core),
            "secret" => Ok(Self::Secret),
            other => Err(ArtifactError::Malformed {
                what: "grant.object",
                expected: "core, secret or audit",
                found: Found::text(other),
            }),
        }
    }
}

/// To whom a grant is sealed. Whoever fills this in has verified that key, id and epoch belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Identity of the recipient.
    pub id: RecipientId,
    /// Public key.
    pub key: RecipientPublicKey,
    /// Epoch of that key.
    pub key_epoch: KeyEpoch,
}

/// Who opens: a recipient's own identity, epoch and secret key.
#[expect(missing_debug_implementations, reason = "holds key material")]
pub struct RecipientIdentity {
    /// Identity.
    pub id: RecipientId,
    /// Current epoch.
    pub key_epoch: KeyEpoch,
    /// Secret key of that epoch.
    pub key: RecipientSecretKey,
}

/// How a grant of any kind wraps its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WrapSuite {
    /// HPKE, for chips.
    Hpke(GrantSuite),
    /// AES-256-GCM under a key-encryption key, for brokers.
    Broker,
    /// AES-256-GCM under a key that HKDF-SHA-512 derives from a secret, for SEV-SNP guests and TPMs.
    Derived,
}

impl WrapSuite {
    /// The name in grants.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hpke(suite) => suite.as_str(),
            Self::Broker => "AES-256-GCM",
            Self::Derived => "HKDF-SHA-512 AES-256-GCM",
        }
    }

    /// Parses the name of a suite of this kind.
    fn parse(kind: GrantKind, text: &str) -> Result<Self, ArtifactError> {
        let suite = match kind {
            GrantKind::Chip => Self::Hpke(GrantSuite::parse(text)?),
            GrantKind::Kbs => Self::Broker,
            GrantKind::Snp | GrantKind::Tpm => Self::Derived,
        };
        // GUARD: grant-suite-of-kind -> evil_grant_of_another_kinds_suite_is_refused
        if text != suite.as_str() {
            return Err(ArtifactError::GrantKindUnknown { member: "suite", found: Found::text(text) });
        }
        Ok(suite)
    }
}

impl PartialEq<GrantSuite> for WrapSuite {
    fn eq(&self, other: &GrantSuite) -> bool {
        *self == Self::Hpke(*other)
    }
}

impl fmt::Display for WrapSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What differs between the kinds of grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// HPKE.
    Chip { suite: GrantSuite, encapsulated: Vec<u8> },
    /// A key-encryption key at a broker.
    Kbs { broker: BrokerName },
    /// A key derived by the processor.
    Snp { selection: SnpSelection, salt: [u8; 32] },
    /// A secret sealed by a TPM.
    Tpm { object: TpmObject, salt: [u8; 32] },
}

impl Form {
    fn kind(&self) -> GrantKind {
        match self {
            Self::Chip { .. } => GrantKind::Chip,
            Self::Kbs { .. } => GrantKind::Kbs,
            Self::Snp { .. } => GrantKind::Snp,
            Self::Tpm { .. } => GrantKind::Tpm,
        }
    }

    fn suite(&self) -> WrapSuite {
        match self {
            Self::Chip { suite, .. } => WrapSuite::Hpke(*suite),
            Self::Kbs { .. } => WrapSuite::Broker,
            Self::Snp { .. } | Self::Tpm { .. } => WrapSuite::Derived,
        }
    }

    /// Salt of a derived wrapping key; zeros for kinds without.
    fn salt(&self) -> &[u8; 32] {
        match self {
            Self::Chip { .. } | Self::Kbs { .. } => &[0; 32],
            Self::Snp { salt, .. } | Self::Tpm { salt, .. } => salt,
        }
    }
}

/// What a chip needs of its grant beside the wrapped key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChipPart<'a> {
    /// HPKE suite.
    pub suite: GrantSuite,
    /// HPKE encapsulated key.
    pub encapsulated: &'a [u8],
}

/// A parsed grant. What it says about recipient and core helps to find it; opening never relies on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    core: CoreDigest,
    form: Form,
    object: GrantObject,
    policy: Vec<u8>,
    recipient: RecipientId,
    recipient_key: RecipientKeyDigest,
    key_epoch: KeyEpoch,
    wrapped: [u8; 48],
}

impl Grant {
    /// Refuses a grant that names another object or core: an early answer, no protection by itself.
    ///
    /// # Errors
    /// `GRANT_WRONG_OBJECT`.
    pub fn require_object(&self, core: &Core) -> Result<(), ArtifactError> {
        // GUARD: grant-object -> evil_grant_for_another_core_is_refused
        if self.object != GrantObject::Core || self.core != core.digest() {
            return Err(ArtifactError::GrantWrongObject {
                expected: Found::value(format_args!("core {}", core.digest())),
                found: Found::value(format_args!("{} {}", self.object.as_str(), self.core)),
            });
        }
        Ok(())
    }

    /// Refuses a grant that names another recipient, key, epoch or suite: an early answer, no protection by itself.
    ///
    /// # Errors
    /// `GRANT_WRONG_RECIPIENT`.
    pub fn require_recipient(
        &self,
        id: RecipientId,
        key: &RecipientPublicKey,
        key_epoch: KeyEpoch,
    ) -> Result<(), ArtifactError> {
        self.require(GrantKind::Chip, WrapSuite::Hpke(key.suite()), id, key.digest(), key_epoch)
    }

    /// As [`Grant::require_recipient`], for all kinds.
    fn require_context(&self, own: &Context) -> Result<(), ArtifactError> {
        self.require(own.kind, own.suite, own.recipient, own.recipient_key, own.key_epoch)
    }

    fn require(
        &self,
        kind: GrantKind,
        suite: WrapSuite,
        id: RecipientId,
        key: RecipientKeyDigest,
        key_epoch: KeyEpoch,
    ) -> Result<(), ArtifactError> {
        same("kind", kind, self.kind())?;
        same("id", id, self.recipient)?;
        same("key", key, self.recipient_key)?;
        same("key epoch", key_epoch, self.key_epoch)?;
        same("suite", suite, self.suite())
    }

    fn other_kind(&self, expected: GrantKind) -> ArtifactError {
        let (expected, found) = (Found::value(expected), Found::value(self.kind()));
        ArtifactError::GrantWrongRecipient { member: "kind", expected, found }
    }

    fn new(context: &Context, form: Form, policy: &PolicyDocument, wrapped: [u8; 48]) -> Self {
        Self {
            core: context.core,
            form,
            object: context.object,
            policy: policy.preimage().to_vec(),
            recipient: context.recipient,
            recipient_key: context.recipient_key,
            key_epoch: context.key_epoch,
            wrapped,
        }
    }

    /// Which core the grant says it is for.
    #[must_use]
    pub fn core(&self) -> CoreDigest {
        self.core
    }

    /// What kind of recipient it is for.
    #[must_use]
    pub fn kind(&self) -> GrantKind {
        self.form.kind()
    }

    /// What kind of key it wraps.
    #[must_use]
    pub fn object(&self) -> GrantObject {
        self.object
    }

    /// The policy preimage that travels with the grant; a recipient parses and evaluates it before it opens.
    #[must_use]
    pub fn preimage(&self) -> &[u8] {
        &self.policy
    }

    /// Which recipient the grant says it is for.
    #[must_use]
    pub fn recipient(&self) -> RecipientId {
        self.recipient
    }

    /// Which of the recipient's keys the grant says it is for.
    #[must_use]
    pub fn recipient_key(&self) -> RecipientKeyDigest {
        self.recipient_key
    }

    /// Which epoch the grant says it is for.
    #[must_use]
    pub fn key_epoch(&self) -> KeyEpoch {
        self.key_epoch
    }

    /// The suite.
    #[must_use]
    pub fn suite(&self) -> WrapSuite {
        self.form.suite()
    }

    /// The wrapped content key, with its tag.
    #[must_use]
    pub fn wrapped(&self) -> &[u8] {
        &self.wrapped
    }
}

/// Refuses a second recipient, and a broker, for a core whose key holders can forge its payloads.
///
/// # Errors
/// `GRANT_FORGEABLE`.
pub fn refuse_forgeable(core: &Core, existing: &[Grant], new: &Grant) -> Result<(), ArtifactError> {
    let other = existing.iter().any(|grant| grant.recipient != new.recipient);
    // GUARD: forgeable-grant -> evil_second_recipient_without_payload_digests_is_refused
    if other && !core.has_payload_digests() {
        return Err(ArtifactError::GrantForgeable { reason: "a second recipient could forge for the first" });
    }
    // GUARD: forgeable-kbs-grant -> evil_broker_without_payload_digests_is_refused
    if new.kind() == GrantKind::Kbs && !core.has_payload_digests() {
        return Err(ArtifactError::GrantForgeable { reason: "the broker's operator could forge payloads" });
    }
    Ok(())
}

fn same<T: PartialEq + fmt::Display>(
    member: &'static str,
    expected: T,
    found: T,
) -> Result<(), ArtifactError> {
    // GUARD: grant-recipient -> evil_grant_for_another_recipient_is_refused
    if expected != found {
        let (expected, found) = (Found::value(expected), Found::value(found));
        return Err(ArtifactError::GrantWrongRecipient { member, expected, found });
    }
    Ok(())
}
