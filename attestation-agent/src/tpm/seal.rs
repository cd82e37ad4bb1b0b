//! A secret that a TPM gives back only while its registers have the values that they had to have.
//!
//! The secret crosses the bus in sessions salted to the storage key. That key is part of the sealed object: unsealing
//! by another TPM, a cleared one or somebody in between ends before a secret moves.

use protected_memory::secret::SecretKey;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::channel::Channel;
use super::commands::Key;
use super::pcr::{INITDATA_PCR, PcrSelection, Pcrs};
use super::session::{Authorised, Encrypted, Session, SessionKind, start_trial};
use super::wire::{
    ADMIN_WITH_POLICY, CommandCode, Created, DECRYPT, EccPoint, FIXED_PARENT, FIXED_TPM, KeyKind, NO_LOCKOUT,
    Name, Public, RESTRICTED, Reader, Refusal, Scheme, Symmetric, TPM_MADE, USER_WITH_AUTH, WireError,
    Writer,
};
use super::{SealError, TpmError};

/// The longest part of a sealed object.
const PART_MAX_BYTES: usize = 512;

/// Which storage key a secret may be sealed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageKey {
    /// Whichever answers. Who sits on the bus can offer a key of its own and read the secret.
    FirstFound,
    /// The key with this name.
    Named(Name),
}

/// A sealed secret: public, and useless without its TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    selection: PcrSelection,
    policy: [u8; 32],
    storage_key: Name,
    public: Public,
    private: Vec<u8>,
}

impl Sealed {
    /// From its parts as a grant carries them: registers, policy digest, name of the storage key, `TPM2B_PUBLIC`,
    /// `TPM2B_PRIVATE`.
    ///
    /// # Errors
    ///
    /// Parts of another form, a selection without PCR 8, an object with another policy or that a password opens.
    pub fn parse(
        selection: PcrSelection,
        policy: [u8; 32],
        storage_key: Name,
        public: &[u8],
        private: &[u8],
    ) -> Result<Self, TpmError> {
        with_initdata(selection)?;
        let public = Public::parse(unsized_part("TPM2B_PUBLIC", public)?)?;
        let private = unsized_part("TPM2B_PRIVATE", private)?.to_vec();
        // GUARD: sealed-policy -> evil_sealed_object_of_another_policy
        if !public.is_made_from(&template(policy)) {
            return Err(
                SealError::ForeignObject { expected: "data under the policy of its grant alone" }.into()
            );
        }
        Ok(Self { selection, policy, storage_key, public, private })
    }

    /// Which registers it depends on.
    pub fn selection(&self) -> PcrSelection {
        self.selection
    }

    /// Policy digest: of PolicyPCR over these registers with the values that they have to have.
    pub fn policy(&self) -> [u8; 32] {
        self.policy
    }

    /// Name of the storage key it was sealed to.
    pub fn storage_key(&self) -> Name {
        self.storage_key
    }

    /// `TPM2B_PUBLIC`.
    pub fn public(&self) -> Vec<u8> {
        Writer::new().sized(&self.public.marshal()).done().to_vec()
    }

    /// `TPM2B_PRIVATE`, encrypted by the storage key.
    pub fn private(&self) -> Vec<u8> {
        Writer::new().sized(&self.private).done().to_vec()
    }

    pub(super) fn seal(
        channel: &mut Channel,
        secret: &SecretKey<32>,
        selection: PcrSelection,
        pcrs: &Pcrs,
        expected: StorageKey,
    ) -> Result<Self, TpmError> {
        with_initdata(selection)?;
        let pcr_digest = pcrs.digest(selection);
        let policy = policy_digest(selection, &pcr_digest);
        let trial = start_trial(channel)?;
        channel.policy_pcr(trial, selection, &pcr_digest)?;
        let found = channel.policy_digest(trial)?;
        // GUARD: tpm-policy-digest -> evil_host_tpm_computes_another_policy
        if found != policy {
            let (expected, found) = (hex::encode(policy), hex::encode(found));
            return Err(SealError::PolicyMismatch { expected, found }.into());
        }
        channel.flush(trial)?;

        let storage = storage_key(channel)?;
        let storage_name = storage.public.name();
        if let StorageKey::Named(name) = expected {
            // GUARD: seal-storage-key -> evil_host_tpm_offers_its_own_storage_key
            same_storage_key(name, storage_name)?;
        }
        let template = template(policy);
        let sensitive = Writer::new().sized(&[]).sized(secret.expose()).done();
        let parameters = Writer::new().sized(&sensitive).sized(&template.marshal()).sized(&[]).u32(0).done();
        let mut session = Session::start(channel, SessionKind::Hmac, &storage)?;
        let create = Authorised {
            code: CommandCode::Create,
            handle: storage.handle,
            name: storage_name,
            encrypted: Encrypted::Command,
        };
        let created = Created::parse(&session.call(channel, &create, parameters)?)?;
        // Authentic, so only a TPM out of its standard gets here.
        if !created.public.is_made_from(&template) {
            return Err(SealError::ForeignObject { expected: "data under the policy asked for" }.into());
        }
        let Created { public, private } = created;
        Ok(Self { selection, policy, storage_key: storage_name, public, private })
    }

    pub(super) fn unseal(&self, channel: &mut Channel) -> Result<SecretKey<32>, TpmError> {
        let storage = storage_key(channel)?;
        // GUARD: unseal-storage-key -> evil_host_tpm_unseals_by_another_tpm
        same_storage_key(self.storage_key, storage.public.name())?;
        let object = channel.load(&storage, &self.public, &self.private)?;
        let mut session = Session::start(channel, SessionKind::Policy, &storage)?;
        // Without a digest of ours: the session's policy is that of the values which the registers have now.
        channel.policy_pcr(session.handle, self.selection, &[])?;
        if channel.policy_digest(session.handle)? != self.policy {
            return Err(self.other_pcrs());
        }
        let unseal = Authorised {
            code: CommandCode::Unseal,
            handle: object,
            name: self.public.name(),
            encrypted: Encrypted::Response,
        };
        let parameters =
            session.call(channel, &unseal, Zeroizing::new(Vec::new())).map_err(|error| match error {
                TpmError::Refused { code, .. }
                    if matches!(code.refusal(), Refusal::PolicyFail | Refusal::PcrChanged) =>
                {
                    self.other_pcrs()
                }
                error => error,
            })?;
        let mut reader = Reader::new("Unseal", &parameters);
        let found = reader.sized(128)?;
        if found.len() != 32 {
            return Err(SealError::ForeignObject { expected: "a secret of 32 bytes" }.into());
        }
        let mut secret = SecretKey::zeroed()?;
        secret.expose_mut().copy_from_slice(found);
        reader.finish()?;
        Ok(secret)
    }

    fn other_pcrs(&self) -> TpmError {
        SealError::OtherPcrs { selection: self.selection.to_string() }.into()
    }
}

/// The storage key: a primary key of the owner hierarchy, the same one until the TPM is cleared.
pub(super) fn storage_key(channel: &mut Channel) -> Result<Key, TpmError> {
    let attributes = FIXED_TPM | FIXED_PARENT | TPM_MADE | USER_WITH_AUTH | NO_LOCKOUT | RESTRICTED | DECRYPT;
    let point = EccPoint { x: Vec::new(), y: Vec::new() };
    let kind = KeyKind::Ecc { symmetric: Symmetric::Aes128Cfb, scheme: Scheme::Null, point };
    channel.owner_primary(&Public { attributes, policy: Vec::new(), kind })
}

/// Sealed data that no password opens or changes: policy alone.
fn template(policy: [u8; 32]) -> Public {
    let attributes = FIXED_TPM | FIXED_PARENT | ADMIN_WITH_POLICY | NO_LOCKOUT;
    Public { attributes, policy: policy.to_vec(), kind: KeyKind::Data { unique: Vec::new() } }
}

/// The policy digest of PolicyPCR alone (Part 3 §23.7).
fn policy_digest(selection: PcrSelection, pcr_digest: &[u8; 32]) -> [u8; 32] {
    let hash = Sha256::new().chain_update([0; 32]).chain_update(CommandCode::PolicyPcr.value().to_be_bytes());
    hash.chain_update(selection.marshal()).chain_update(pcr_digest).finalize().into()
}

fn same_storage_key(expected: Name, found: Name) -> Result<(), TpmError> {
    if found != expected {
        let (expected, found) = (expected.to_string(), found.to_string());
        return Err(SealError::ForeignStorageKey { expected, found }.into());
    }
    Ok(())
}

fn with_initdata(selection: PcrSelection) -> Result<(), TpmError> {
    // GUARD: seal-selects-initdata -> evil_seal_without_initdata_register
    if !selection.contains(INITDATA_PCR) {
        return Err(SealError::SelectionWithoutInitdata { found: selection.to_string() }.into());
    }
    Ok(())
}

/// The contents of a TPM2B that is all there is.
fn unsized_part<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], WireError> {
    let mut reader = Reader::new(what, bytes);
    let contents = reader.sized(PART_MAX_BYTES)?;
    reader.finish()?;
    Ok(contents)
}
