//! Grants: the content key wrapped for one recipient under one policy. A grant is no evidence of origin: anyone can make one.

use getrandom::SysRng;
use hpke::rand_core::{CryptoRng, UnwrapErr};

use crate::core::Core;
use crate::digest::{CoreDigest, RecipientKeyDigest};
use crate::error::{ArtifactError, Found, length, limit};
use crate::json::Value;
use crate::keys::{ContentKey, fill_random};
use crate::policy::{MAXIMUM_PREIMAGE, PolicyDigest, PolicyDocument};
pub use crate::recipient::{GrantSuite, KeyEpoch, RecipientId, RecipientPublicKey, RecipientSecretKey};

#[cfg(test)]
mod tests;

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
}

impl GrantKind {
    /// The name in grants.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chip => "chip",
        }
    }

    fn parse(text: &str) -> Result<Self, ArtifactError> {
        match text {
            "chip" => Ok(Self::Chip),
            other => Err(ArtifactError::GrantKindUnknown { member: "kind", found: Found::text(other) }),
        }
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

/// A parsed grant. What it says about recipient and core helps to find it; opening never relies on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    core: CoreDigest,
    encapsulated: Vec<u8>,
    kind: GrantKind,
    object: GrantObject,
    policy: Vec<u8>,
    recipient: RecipientId,
    recipient_key: RecipientKeyDigest,
    key_epoch: KeyEpoch,
    suite: GrantSuite,
    wrapped: [u8; 48],
}

impl Grant {
    /// Wraps `key` of `core` for `recipient` under `policy`.
    ///
    /// Refuses a key that is not the core's: such a grant would open to nothing.
    ///
    /// # Errors
    /// `COMMITMENT_MISMATCH`, `KEY_INVALID`, `RANDOM_UNAVAILABLE`.
    pub fn seal(
        core: &Core,
        key: &ContentKey,
        recipient: &Recipient,
        policy: &PolicyDocument,
    ) -> Result<Self, ArtifactError> {
        // The generator below has no way to report failure, so it is asked once before.
        fill_random(&mut [0; 32])?;
        Self::seal_with(core, key, recipient, policy, &mut UnwrapErr(SysRng))
    }

    /// As [`Grant::seal`] with given randomness: for vectors, which are made inside this crate.
    pub(crate) fn seal_with(
        core: &Core,
        key: &ContentKey,
        recipient: &Recipient,
        policy: &PolicyDocument,
        random: &mut impl CryptoRng,
    ) -> Result<Self, ArtifactError> {
        core.unlock(key)?;
        let info = Info {
            kind: GrantKind::Chip,
            suite: recipient.key.suite(),
            object: GrantObject::Core,
            core: core.digest(),
            recipient: recipient.id,
            recipient_key: recipient.key.digest(),
            key_epoch: recipient.key_epoch,
            policy: policy.digest(),
        };
        let (encapsulated, wrapped) = recipient.key.seal(&info.encode(), key, random)?;
        let wrapped = wrapped.try_into().map_err(|_| ArtifactError::KeyInvalid {
            expected: "48 wrapped bytes",
            found: Found::text("another length"),
        })?;
        Ok(Self {
            core: info.core,
            encapsulated,
            kind: info.kind,
            object: info.object,
            policy: policy.preimage().to_vec(),
            recipient: info.recipient,
            recipient_key: info.recipient_key,
            key_epoch: info.key_epoch,
            suite: info.suite,
            wrapped,
        })
    }

    /// Opens the grant. Everything that it is bound to comes from the arguments, nothing from the grant.
    ///
    /// `policy` is the document that the recipient was given and has evaluated.
    ///
    /// # Errors
    /// `GRANT_WRONG_OBJECT` and `GRANT_WRONG_RECIPIENT` where the grant itself names another, else `GRANT_OPEN_FAILED`.
    pub fn open(
        &self,
        own: &RecipientIdentity,
        core: &Core,
        policy: &PolicyDocument,
    ) -> Result<ContentKey, ArtifactError> {
        self.require_object(core)?;
        let key = own.key.public_key();
        self.require_recipient(own.id, &key, own.key_epoch)?;
        let info = Info {
            kind: GrantKind::Chip,
            suite: own.key.suite(),
            object: GrantObject::Core,
            core: core.digest(),
            recipient: own.id,
            recipient_key: key.digest(),
            key_epoch: own.key_epoch,
            policy: policy.digest(),
        };
        own.key.open(&self.encapsulated, &info.encode(), &self.wrapped)
    }

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
        same("id", id, self.recipient)?;
        same("key", key.digest(), self.recipient_key)?;
        same("key epoch", key_epoch, self.key_epoch)?;
        same("suite", key.suite(), self.suite)
    }

    /// Parses untrusted bytes.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED`, `MALFORMED`, `NOT_CANONICAL`, `GRANT_KIND_UNKNOWN`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let mut members = Value::parse("grant", bytes, MAXIMUM_GRANT)?.into_members("grant")?;
        members.take_type(TYPE)?;
        let kind = GrantKind::parse(&members.take("kind")?.into_text("grant.kind")?)?;
        let suite = GrantSuite::parse(&members.take("suite")?.into_text("grant.suite")?)?;
        let core = CoreDigest::parse(&members.take("core")?.into_text("grant.core")?)?;
        let object = GrantObject::parse(&members.take("object")?.into_text("grant.object")?)?;
        let encapsulated = members.take("enc")?.into_base64("grant.enc")?;
        let policy = members.take("policy")?.into_base64("grant.policy")?;
        limit("policy", 0, MAXIMUM_PREIMAGE, length(&policy))?;
        let wrapped = members.take("wrapped")?.into_base64("grant.wrapped")?;
        let mut recipient = members.take("recipient")?.into_members("grant.recipient")?;
        members.finish()?;
        let id = RecipientId::new(recipient.take("id")?.into_hex("grant.recipient.id")?);
        let key = RecipientKeyDigest::parse(&recipient.take("key")?.into_text("grant.recipient.key")?)?;
        let key_epoch =
            KeyEpoch::new(recipient.take("key_epoch")?.into_integer("grant.recipient.key_epoch")?);
        recipient.finish()?;
        let expected = "enc and wrapped of the suite's lengths";
        let found = Found::value(format_args!("{} and {} bytes", encapsulated.len(), wrapped.len()));
        let malformed = ArtifactError::Malformed { what: "grant", expected, found };
        // GUARD: grant-enc-length -> evil_grant_with_foreign_lengths_is_refused
        if encapsulated.len() != suite.encapsulated_length() {
            return Err(malformed);
        }
        let wrapped = wrapped.try_into().map_err(|_| malformed)?;
        let recipient_key = key;
        let recipient = id;
        Ok(Self {
            core,
            encapsulated,
            kind,
            object,
            policy,
            recipient,
            recipient_key,
            key_epoch,
            suite,
            wrapped,
        })
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Value::object([
            ("@type", Value::text(TYPE)),
            ("core", Value::text(self.core.to_string())),
            ("enc", Value::base64(&self.encapsulated)),
            ("kind", Value::text(self.kind.as_str())),
            ("object", Value::text(self.object.as_str())),
            ("policy", Value::base64(&self.policy)),
            (
                "recipient",
                Value::object([
                    ("id", Value::hex(self.recipient.as_bytes())),
                    ("key", Value::text(self.recipient_key.to_string())),
                    ("key_epoch", Value::integer(self.key_epoch.value())),
                ]),
            ),
            ("suite", Value::text(self.suite.as_str())),
            ("wrapped", Value::base64(&self.wrapped)),
        ])
        .encode()
    }

    /// Which core the grant says it is for.
    #[must_use]
    pub fn core(&self) -> CoreDigest {
        self.core
    }

    /// What kind of recipient it is for.
    #[must_use]
    pub fn kind(&self) -> GrantKind {
        self.kind
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

    /// HPKE suite.
    #[must_use]
    pub fn suite(&self) -> GrantSuite {
        self.suite
    }

    /// HPKE encapsulated key.
    #[must_use]
    pub fn encapsulated(&self) -> &[u8] {
        &self.encapsulated
    }

    /// The wrapped content key, with its tag.
    #[must_use]
    pub fn wrapped(&self) -> &[u8] {
        &self.wrapped
    }
}

/// Refuses a second recipient for a core whose key holders can forge its payloads.
///
/// # Errors
/// `GRANT_FORGEABLE`.
pub fn refuse_forgeable(core: &Core, existing: &[Grant], new: &Grant) -> Result<(), ArtifactError> {
    let other = existing.iter().any(|grant| grant.recipient != new.recipient);
    // GUARD: forgeable-grant -> evil_second_recipient_without_payload_digests_is_refused
    if other && !core.has_payload_digests() {
        return Err(ArtifactError::GrantForgeable { reason: "a second recipient could forge for the first" });
    }
    Ok(())
}

fn same<T: PartialEq + std::fmt::Display>(
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

/// Everything that a grant is bound to.
struct Info {
    kind: GrantKind,
    suite: GrantSuite,
    object: GrantObject,
    core: CoreDigest,
    recipient: RecipientId,
    recipient_key: RecipientKeyDigest,
    key_epoch: KeyEpoch,
    policy: PolicyDigest,
}

impl Info {
    fn encode(&self) -> Vec<u8> {
        let epoch = self.key_epoch.value().to_be_bytes();
        let parts: [&[u8]; 10] = [
            b"innerkeep grant",
            b"v1",
            self.kind.as_str().as_bytes(),
            self.suite.as_str().as_bytes(),
            self.object.as_str().as_bytes(),
            self.core.as_bytes(),
            self.recipient.as_bytes(),
            self.recipient_key.as_bytes(),
            &epoch,
            self.policy.as_bytes(),
        ];
        let mut info = Vec::new();
        for part in parts {
            info.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            info.extend_from_slice(part);
        }
        info
    }
}
