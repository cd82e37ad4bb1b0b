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
    ADMIN_WITH_POLICY, CommandCode, Created, DECRYPT, EccPoint, FIXED_PARENT, FIXED_TPM, KeyKind, NO_LOCKOUT, Name,
    Public, RESTRICTED, Reader, Refusal, Scheme, Symmetric, TPM_MADE, USER_WITH_AUTH, WireError, Writer,
};
use super::{SealError, TpmError};

/// The longest sealed object.
pub const SEALED_MAX_BYTES: usize = 2048;

const VERSION: u16 = 1;
const PART_MAX_BYTES: usize = 1024;

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
    pcr_digest: [u8; 32],
    storage_key: Name,
    public: Public,
    private: Vec<u8>,
}

impl Sealed {
    /// Parses a sealed object, big-endian as TPM 2.0 writes: `u16(1) ‖ u32(selection, bit i = PCR i) ‖ digest of
    /// the registers (32) ‖ name of the storage key (34) ‖ TPM2B_PUBLIC ‖ TPM2B_PRIVATE`.
    ///
    /// # Errors
    ///
    /// Another form; a selection without PCR 8; a public area whose policy is not that selection and digest.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        if bytes.len() > SEALED_MAX_BYTES {
            let (what, found) = ("sealed object", bytes.len());
            return Err(WireError::TooLarge { what, maximum: SEALED_MAX_BYTES, found }.into());
        }
        let mut reader = Reader::new("sealed object", bytes);
        if reader.u16()? != VERSION {
            return Err(SealError::Malformed { expected: "version 1" }.into());
        }
        let selection = PcrSelection::from_bits(reader.u32()?)
            .ok_or(SealError::Malformed { expected: "a selection of PCR 0 to 23" })?;
        with_initdata(selection)?;
        let pcr_digest = reader.array()?;
        let storage_key = Name::parse(reader.take(34)?)?;
        let public = Public::parse(reader.sized(PART_MAX_BYTES)?)?;
        let private = reader.sized(PART_MAX_BYTES)?.to_vec();
        reader.finish()?;
        // GUARD: sealed-policy -> evil_sealed_object_of_another_policy
        if !public.is_made_from(&template(policy(selection, &pcr_digest))) {
            return Err(SealError::ForeignObject { expected: "data under the policy of its registers" }.into());
        }
        Ok(Self { selection, pcr_digest, storage_key, public, private })
    }

    /// The bytes that [`Self::parse`] takes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let writer = Writer::new().u16(VERSION).u32(self.selection.bits()).raw(&self.pcr_digest);
        let writer = writer.raw(&self.storage_key.0).sized(&self.public.marshal()).sized(&self.private);
        writer.done().to_vec()
    }

    /// Which registers it depends on.
    pub fn selection(&self) -> PcrSelection {
        self.selection
    }

    /// Digest of the values that they have to have.
    pub fn pcr_digest(&self) -> [u8; 32] {
        self.pcr_digest
    }

    /// Name of the storage key it was sealed to.
    pub fn storage_key(&self) -> Name {
        self.storage_key
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
        let policy = policy(selection, &pcr_digest);
        let trial = start_trial(channel)?;
        channel.policy_pcr(trial, selection, &pcr_digest)?;
        same_policy(&policy, &channel.policy_digest(trial)?)?;
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
        Ok(Self { selection, pcr_digest, storage_key: storage_name, public, private })
    }

    pub(super) fn unseal(&self, channel: &mut Channel) -> Result<SecretKey<32>, TpmError> {
        let storage = storage_key(channel)?;
        // GUARD: unseal-storage-key -> evil_host_tpm_unseals_by_another_tpm
        same_storage_key(self.storage_key, storage.public.name())?;
        let object = channel.load(&storage, &self.public, &self.private)?;
        let mut session = Session::start(channel, SessionKind::Policy, &storage)?;
        channel
            .policy_pcr(session.handle, self.selection, &self.pcr_digest)
            .map_err(|error| self.changed(error, &[Refusal::Value]))?;
        let expected = policy(self.selection, &self.pcr_digest);
        same_policy(&expected, &channel.policy_digest(session.handle)?)?;
        let unseal = Authorised {
            code: CommandCode::Unseal,
            handle: object,
            name: self.public.name(),
            encrypted: Encrypted::Response,
        };
        let parameters = session
            .call(channel, &unseal, Zeroizing::new(Vec::new()))
            .map_err(|error| self.changed(error, &[Refusal::PolicyFail, Refusal::PcrChanged]))?;
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

    /// `error`, or that the registers have other values, if that is what it means.
    fn changed(&self, error: TpmError, reasons: &[Refusal]) -> TpmError {
        match error {
            TpmError::Refused { code, .. } if reasons.contains(&code.refusal()) => {
                SealError::OtherPcrs { selection: self.selection.to_string() }.into()
            }
            error => error,
        }
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
fn policy(selection: PcrSelection, pcr_digest: &[u8; 32]) -> [u8; 32] {
    let hash = Sha256::new().chain_update([0; 32]).chain_update(CommandCode::PolicyPcr.value().to_be_bytes());
    hash.chain_update(selection.marshal()).chain_update(pcr_digest).finalize().into()
}

fn same_policy(expected: &[u8; 32], found: &[u8]) -> Result<(), TpmError> {
    // GUARD: policy-digest -> evil_host_tpm_computes_another_policy
    if found != expected {
        let (expected, found) = (hex::encode(expected), hex::encode(found));
        return Err(SealError::PolicyMismatch { expected, found }.into());
    }
    Ok(())
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
