//! Grants for chips: HPKE to the chip's own key.

use getrandom::SysRng;
use hpke::rand_core::{CryptoRng, UnwrapErr};

use super::context::Context;
use super::{ChipPart, Form, Grant, GrantKind, GrantObject, Recipient, RecipientIdentity, WrapSuite};
use crate::core::Core;
use crate::error::{ArtifactError, Found};
use crate::keys::{ContentKey, fill_random};
use crate::policy::PolicyDocument;

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
        let context = Context {
            kind: GrantKind::Chip,
            suite: WrapSuite::Hpke(recipient.key.suite()),
            object: GrantObject::Core,
            core: core.digest(),
            recipient: recipient.id,
            recipient_key: recipient.key.digest(),
            key_epoch: recipient.key_epoch,
            policy: policy.digest(),
        };
        let (encapsulated, wrapped) = recipient.key.seal(&context.encode(), key, random)?;
        let wrapped = wrapped.try_into().map_err(|_| ArtifactError::KeyInvalid {
            expected: "48 wrapped bytes",
            found: Found::text("another length"),
        })?;
        let form = Form::Chip { suite: recipient.key.suite(), encapsulated };
        Ok(Self::new(&context, form, policy, wrapped))
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
        let part = self.chip_part()?;
        let key = own.key.public_key();
        self.require_recipient(own.id, &key, own.key_epoch)?;
        let context = Context {
            kind: GrantKind::Chip,
            suite: WrapSuite::Hpke(own.key.suite()),
            object: GrantObject::Core,
            core: core.digest(),
            recipient: own.id,
            recipient_key: key.digest(),
            key_epoch: own.key_epoch,
            policy: policy.digest(),
        };
        own.key.open(part.encapsulated, &context.encode(), &self.wrapped)
    }

    /// What a chip needs beside the wrapped key.
    ///
    /// # Errors
    /// `GRANT_WRONG_RECIPIENT` for a grant of another kind.
    pub fn chip_part(&self) -> Result<ChipPart<'_>, ArtifactError> {
        match &self.form {
            Form::Chip { suite, encapsulated } => Ok(ChipPart { suite: *suite, encapsulated }),
            _ => Err(self.other_kind(GrantKind::Chip)),
        }
    }
}
