//! Grants that open with a secret of 32 bytes: of a key broker, of an SEV-SNP processor, of a TPM.

use super::context::Context;
use super::{Form, Grant, GrantKind, GrantObject, KeyEpoch, RecipientId, WrapSuite};
use crate::core::Core;
use crate::digest::RecipientKeyDigest;
use crate::error::ArtifactError;
use crate::kbs::{BrokerName, KbsKek, KbsRecipient, ResourcePath};
use crate::keys::{ContentKey, fill_random};
use crate::policy::{PolicyDigest, PolicyDocument};
use crate::secret::{derive, unwrap, wrap};
use crate::snp::{SnpDerivedKey, SnpGuest, SnpSelection};
use crate::tpm::{TpmObject, TpmRecipient, TpmSecret};

impl Grant {
    /// Wraps `key` of `core` for a key broker: a grant, and the key-encryption key to store at
    /// [`Grant::kbs_resource_path`]. A broker's operator can open it: see [`super::refuse_forgeable`].
    ///
    /// # Errors
    /// `COMMITMENT_MISMATCH`, `RANDOM_UNAVAILABLE`.
    pub fn seal_kbs(
        core: &Core,
        key: &ContentKey,
        recipient: &KbsRecipient,
        policy: &PolicyDocument,
    ) -> Result<(Self, KbsKek), ArtifactError> {
        let kek = KbsKek::generate()?;
        let grant = Self::seal_kbs_with(core, key, recipient, policy, &kek)?;
        Ok((grant, kek))
    }

    /// As [`Grant::seal_kbs`] with a given key: for vectors, which are made inside this crate.
    pub(crate) fn seal_kbs_with(
        core: &Core,
        key: &ContentKey,
        recipient: &KbsRecipient,
        policy: &PolicyDocument,
        kek: &KbsKek,
    ) -> Result<Self, ArtifactError> {
        core.unlock(key)?;
        let context = kbs_context(recipient, core, policy);
        let wrapped = wrap(kek.expose_bytes(), &context.encode(), key)?;
        Ok(Self::new(&context, Form::Kbs { broker: recipient.name.clone() }, policy, wrapped))
    }

    /// Opens a grant with the key-encryption key that `own` released. Name and key of `own` come from bound configuration.
    ///
    /// # Errors
    /// `GRANT_WRONG_OBJECT`, `GRANT_WRONG_RECIPIENT`, else `GRANT_OPEN_FAILED`.
    pub fn open_kbs(
        &self,
        own: &KbsRecipient,
        kek: &KbsKek,
        core: &Core,
        policy: &PolicyDocument,
    ) -> Result<ContentKey, ArtifactError> {
        self.require_object(core)?;
        let context = kbs_context(own, core, policy);
        self.require_context(&context)?;
        unwrap(kek.expose_bytes(), &context.encode(), &self.wrapped)
    }

    /// Where the broker keeps the key-encryption key; `None` for other kinds.
    ///
    /// A guest that fetches computes the path from the core and policy that it was given, see [`ResourcePath::new`].
    #[must_use]
    pub fn kbs_resource_path(&self) -> Option<ResourcePath> {
        self.broker().map(|_| ResourcePath::new(self.core, PolicyDigest::of(&self.policy)))
    }

    /// What the sealer calls the broker; `None` for other kinds.
    #[must_use]
    pub fn broker(&self) -> Option<&BrokerName> {
        match &self.form {
            Form::Kbs { broker } => Some(broker),
            _ => None,
        }
    }

    /// Wraps `key` of `core` under a key that the processor derived for this guest with `selection`.
    ///
    /// # Errors
    /// `COMMITMENT_MISMATCH`, `RANDOM_UNAVAILABLE`.
    pub fn seal_snp(
        core: &Core,
        key: &ContentKey,
        own: &SnpGuest,
        selection: SnpSelection,
        derived: &SnpDerivedKey,
        policy: &PolicyDocument,
    ) -> Result<Self, ArtifactError> {
        let form = Form::Snp { selection, salt: fresh_salt()? };
        Self::seal_snp_with(core, key, own, form, derived, policy)
    }

    /// As [`Grant::seal_snp`] with a given salt.
    pub(crate) fn seal_snp_with(
        core: &Core,
        key: &ContentKey,
        own: &SnpGuest,
        form: Form,
        derived: &SnpDerivedKey,
        policy: &PolicyDocument,
    ) -> Result<Self, ArtifactError> {
        core.unlock(key)?;
        let context = snp_context(own, &form, core, policy);
        let secret = derived.expose_bytes();
        let wrapped = seal_derived(&form, secret, &[&context.encode(), &own.host_data], key)?;
        Ok(Self::new(&context, form, policy, wrapped))
    }

    /// Opens a grant with the key that the processor derived for [`Grant::snp_selection`]. `own` comes from the guest's own
    /// report; its HOST_DATA is part of the derivation, so a guest with other initdata has another key.
    ///
    /// # Errors
    /// `GRANT_WRONG_OBJECT`, `GRANT_WRONG_RECIPIENT`, else `GRANT_OPEN_FAILED`.
    pub fn open_snp(
        &self,
        own: &SnpGuest,
        derived: &SnpDerivedKey,
        core: &Core,
        policy: &PolicyDocument,
    ) -> Result<ContentKey, ArtifactError> {
        self.require_object(core)?;
        let context = snp_context(own, &self.form, core, policy);
        self.require_context(&context)?;
        open_derived(self, derived.expose_bytes(), &[&context.encode(), &own.host_data])
    }

    /// What to ask the processor for; `None` for other kinds.
    #[must_use]
    pub fn snp_selection(&self) -> Option<SnpSelection> {
        match &self.form {
            Form::Snp { selection, .. } => Some(*selection),
            _ => None,
        }
    }

    /// Wraps `key` of `core` under `secret`, which the TPM sealed as `object`.
    ///
    /// # Errors
    /// `COMMITMENT_MISMATCH`, `RANDOM_UNAVAILABLE`.
    pub fn seal_tpm(
        core: &Core,
        key: &ContentKey,
        own: &TpmRecipient,
        object: TpmObject,
        secret: &TpmSecret,
        policy: &PolicyDocument,
    ) -> Result<Self, ArtifactError> {
        let form = Form::Tpm { object, salt: fresh_salt()? };
        Self::seal_tpm_with(core, key, own, form, secret, policy)
    }

    /// As [`Grant::seal_tpm`] with a given salt.
    pub(crate) fn seal_tpm_with(
        core: &Core,
        key: &ContentKey,
        own: &TpmRecipient,
        form: Form,
        secret: &TpmSecret,
        policy: &PolicyDocument,
    ) -> Result<Self, ArtifactError> {
        core.unlock(key)?;
        let context = tpm_context(own, core, policy);
        let wrapped = seal_derived(&form, secret.expose_bytes(), &[&context.encode()], key)?;
        Ok(Self::new(&context, form, policy, wrapped))
    }

    /// Opens a grant with the secret that the TPM gave back for [`Grant::tpm_object`].
    ///
    /// # Errors
    /// `GRANT_WRONG_OBJECT`, `GRANT_WRONG_RECIPIENT`, else `GRANT_OPEN_FAILED`.
    pub fn open_tpm(
        &self,
        own: &TpmRecipient,
        secret: &TpmSecret,
        core: &Core,
        policy: &PolicyDocument,
    ) -> Result<ContentKey, ArtifactError> {
        self.require_object(core)?;
        let context = tpm_context(own, core, policy);
        self.require_context(&context)?;
        open_derived(self, secret.expose_bytes(), &[&context.encode()])
    }

    /// What to load into the TPM; `None` for other kinds.
    #[must_use]
    pub fn tpm_object(&self) -> Option<&TpmObject> {
        match &self.form {
            Form::Tpm { object, .. } => Some(object),
            _ => None,
        }
    }
}

fn fresh_salt() -> Result<[u8; 32], ArtifactError> {
    let mut salt = [0; 32];
    fill_random(&mut salt)?;
    Ok(salt)
}

fn seal_derived(
    form: &Form,
    secret: &[u8; 32],
    info: &[&[u8]],
    key: &ContentKey,
) -> Result<[u8; 48], ArtifactError> {
    let wrapping = derive(form.salt(), secret, info)?;
    wrap(&wrapping, &form.object_bytes(), key)
}

fn open_derived(grant: &Grant, secret: &[u8; 32], info: &[&[u8]]) -> Result<ContentKey, ArtifactError> {
    let wrapping = derive(grant.form.salt(), secret, info)?;
    unwrap(&wrapping, &grant.form.object_bytes(), &grant.wrapped)
}

fn context(
    kind: GrantKind,
    recipient: RecipientId,
    recipient_key: RecipientKeyDigest,
    core: &Core,
    policy: &PolicyDocument,
) -> Context {
    let suite = if kind == GrantKind::Kbs { WrapSuite::Broker } else { WrapSuite::Derived };
    Context {
        kind,
        suite,
        object: GrantObject::Core,
        core: core.digest(),
        recipient,
        recipient_key,
        key_epoch: KeyEpoch::new(0),
        policy: policy.digest(),
    }
}

fn kbs_context(own: &KbsRecipient, core: &Core, policy: &PolicyDocument) -> Context {
    context(GrantKind::Kbs, own.name.recipient_id(), own.key, core, policy)
}

fn snp_context(own: &SnpGuest, form: &Form, core: &Core, policy: &PolicyDocument) -> Context {
    // Of another kind there is no selection: then the kind differs, and the id does not matter.
    let root = match form {
        Form::Snp { selection, .. } => selection.root(),
        _ => crate::snp::SnpRootKey::Vcek,
    };
    context(GrantKind::Snp, own.recipient_id(root), SnpGuest::recipient_key(), core, policy)
}

fn tpm_context(own: &TpmRecipient, core: &Core, policy: &PolicyDocument) -> Context {
    context(GrantKind::Tpm, own.recipient_id(), own.storage_key, core, policy)
}
