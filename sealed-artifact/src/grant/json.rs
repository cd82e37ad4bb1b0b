//! Grants as canonical JSON: common members, and those of each kind.

use super::{Form, Grant, GrantKind, GrantObject, KeyEpoch, MAXIMUM_GRANT, RecipientId, TYPE, WrapSuite};
use crate::digest::{CoreDigest, RecipientKeyDigest};
use crate::error::{ArtifactError, Found, length, limit};
use crate::json::{Members, Name, Value};
use crate::kbs::BrokerName;
use crate::policy::MAXIMUM_PREIMAGE;
use crate::snp::{SnpGuest, SnpSelection};
use crate::tpm::TpmObject;

impl Grant {
    /// Parses untrusted bytes.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED`, `MALFORMED`, `NOT_CANONICAL`, `GRANT_KIND_UNKNOWN`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let mut members = Value::parse("grant", bytes, MAXIMUM_GRANT)?.into_members("grant")?;
        members.take_type(TYPE)?;
        let kind = GrantKind::parse(&members.take("kind")?.into_text("grant.kind")?)?;
        let suite = members.take("suite")?.into_text("grant.suite")?;
        let core = CoreDigest::parse(&members.take("core")?.into_text("grant.core")?)?;
        let object = GrantObject::parse(&members.take("object")?.into_text("grant.object")?)?;
        let policy = members.take("policy")?.into_base64("grant.policy")?;
        limit("policy", 0, MAXIMUM_PREIMAGE, length(&policy))?;
        let wrapped = members.take("wrapped")?.into_base64("grant.wrapped")?;
        let mut recipient = members.take("recipient")?.into_members("grant.recipient")?;
        let form = Form::take(kind, &suite, &mut members)?;
        members.finish()?;
        let id = RecipientId::new(recipient.take("id")?.into_hex("grant.recipient.id")?);
        let key = RecipientKeyDigest::parse(&recipient.take("key")?.into_text("grant.recipient.key")?)?;
        let key_epoch =
            KeyEpoch::new(recipient.take("key_epoch")?.into_integer("grant.recipient.key_epoch")?);
        recipient.finish()?;
        form.require_recipient_form(id, key, key_epoch)?;
        let found = Found::value(format_args!("{} bytes", wrapped.len()));
        let wrapped = wrapped.try_into().map_err(|_| ArtifactError::Malformed {
            what: "grant.wrapped",
            expected: "48 bytes",
            found,
        })?;
        Ok(Self { core, form, object, policy, recipient: id, recipient_key: key, key_epoch, wrapped })
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (member, value) = self.form.to_member();
        Value::object([
            ("@type", Value::text(TYPE)),
            ("core", Value::text(self.core.to_string())),
            ("kind", Value::text(self.kind().as_str())),
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
            ("suite", Value::text(self.suite().as_str())),
            ("wrapped", Value::base64(&self.wrapped)),
            (member, value),
        ])
        .encode()
    }
}

impl Form {
    /// Takes the members of a kind.
    fn take(kind: GrantKind, suite: &str, members: &mut Members) -> Result<Self, ArtifactError> {
        if let WrapSuite::Hpke(suite) = WrapSuite::parse(kind, suite)? {
            let encapsulated = members.take("enc")?.into_base64("grant.enc")?;
            // GUARD: grant-enc-length -> evil_grant_with_foreign_lengths_is_refused
            if encapsulated.len() != suite.encapsulated_length() {
                let found = Found::value(format_args!("{} bytes", encapsulated.len()));
                let expected = "the length of the suite's encapsulated keys";
                return Err(ArtifactError::Malformed { what: "grant.enc", expected, found });
            }
            return Ok(Self::Chip { suite, encapsulated });
        }
        let value = members.take(kind.as_str())?;
        Ok(match kind {
            GrantKind::Snp => {
                let (selection, salt) = SnpSelection::from_value(value)?;
                Self::Snp { selection, salt }
            }
            GrantKind::Tpm => {
                let (object, salt) = TpmObject::from_value(value)?;
                Self::Tpm { object, salt }
            }
            GrantKind::Chip | GrantKind::Kbs => {
                let mut members = value.into_members("grant.kbs")?;
                let broker = BrokerName::parse(&members.take("broker")?.into_text("grant.kbs.broker")?)?;
                members.finish()?;
                Self::Kbs { broker }
            }
        })
    }

    /// The member that only this kind has.
    fn to_member(&self) -> (&'static str, Value) {
        match self {
            Self::Chip { encapsulated, .. } => ("enc", Value::base64(encapsulated)),
            Self::Kbs { broker } => ("kbs", Value::object([("broker", Value::text(broker.as_str()))])),
            Self::Snp { selection, salt } => ("snp", selection.to_value(salt)),
            Self::Tpm { object, salt } => ("tpm", object.to_value(salt)),
        }
    }

    /// The kind's own object in its canonical form: associated data of the kinds whose key is derived.
    pub(super) fn object_bytes(&self) -> Vec<u8> {
        let (member, value) = self.to_member();
        Value::Object([(Name(member.to_owned()), value)].into()).encode()
    }

    /// Refuses what a kind's recipient cannot be: each grant has one form.
    fn require_recipient_form(
        &self,
        id: RecipientId,
        key: RecipientKeyDigest,
        epoch: KeyEpoch,
    ) -> Result<(), ArtifactError> {
        // GUARD: grant-epoch-of-kind -> evil_grants_with_members_of_another_kind_are_refused
        if !matches!(self, Self::Chip { .. }) && epoch != KeyEpoch::new(0) {
            let (expected, found) = ("0 for this kind", Found::value(epoch));
            return Err(ArtifactError::Malformed { what: "grant.recipient.key_epoch", expected, found });
        }
        // GUARD: grant-id-of-broker -> evil_grant_that_shows_another_broker_is_refused
        if matches!(self, Self::Kbs { broker } if broker.recipient_id() != id) {
            let (expected, found) = ("the id of the broker's name", Found::value(id));
            return Err(ArtifactError::Malformed { what: "grant.recipient.id", expected, found });
        }
        // GUARD: grant-key-of-snp -> evil_grants_with_members_of_another_kind_are_refused
        if matches!(self, Self::Snp { .. }) && key != SnpGuest::recipient_key() {
            let (expected, found) = ("the digest of no bytes", Found::value(key));
            return Err(ArtifactError::Malformed { what: "grant.recipient.key", expected, found });
        }
        Ok(())
    }
}
