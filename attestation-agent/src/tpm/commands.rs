//! The commands without sessions, and keys.

use super::TpmError;
use super::channel::{Channel, Command, HandleKind, empty, password};
use super::pcr::{PCR_COUNT, PcrIndex, PcrSelection, Pcrs};
use super::wire::{
    ALG_NULL, ALG_SHA256, CommandCode, CreatedPrimary, HIERARCHY_ENDORSEMENT, HIERARCHY_OWNER, Handles,
    KeyKind, Name, PcrBanks, PcrRead, Properties, Public, Reader, Refusal, Writer,
};

const CAP_HANDLES: u32 = 1;
const CAP_PCRS: u32 = 5;
const CAP_TPM_PROPERTIES: u32 = 6;
/// Properties from this one on do not change (TPM_PT_FIXED).
const PROPERTIES_FIXED: u32 = 0x100;

const ATTEST_MAX_BYTES: usize = 1024;

/// A key that is loaded.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) handle: u32,
    pub(super) public: Public,
}

impl Channel {
    pub(super) fn properties(&mut self) -> Result<Properties, TpmError> {
        self.capability(CAP_TPM_PROPERTIES, PROPERTIES_FIXED, |bytes| Ok(Properties::parse(bytes)?))
    }

    pub(super) fn banks(&mut self) -> Result<PcrBanks, TpmError> {
        self.capability(CAP_PCRS, 0, |bytes| Ok(PcrBanks::parse(bytes)?))
    }

    /// Handles from `first` on that have the kind of `first`.
    pub(super) fn handles(&mut self, first: u32) -> Result<Vec<u32>, TpmError> {
        self.capability(CAP_HANDLES, first, |bytes| Ok(Handles::parse(bytes)?.0))
    }

    fn capability<T>(
        &mut self,
        capability: u32,
        property: u32,
        read: impl FnOnce(&[u8]) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let parameters = Writer::new().u32(capability).u32(property).u32(64).done();
        self.call(&plain(CommandCode::GetCapability, &parameters), |accepted| read(accepted.parameters))
    }

    /// All 24 registers of the SHA-256 bank. They may change between two of the three commands this takes.
    pub(super) fn read_pcrs(&mut self) -> Result<Pcrs, TpmError> {
        let mut pcrs = Pcrs::new([[0; 32]; PCR_COUNT]);
        let mut missing = PcrSelection::ALL;
        while missing.count() > 0 {
            let parameters = missing.marshal();
            let part = self.call(&plain(CommandCode::PcrRead, &parameters), |accepted| {
                Ok(PcrRead::parse(accepted.parameters)?)
            });
            let part = match part {
                // A TPM without the bank answers with another selection than the one bank that was asked for.
                Err(error) => return Err(self.without_bank(error)),
                Ok(part) => part,
            };
            let found = part.selection.bits();
            // GUARD: pcr-read-selection -> evil_host_tpm_values_of_other_registers
            if found & !missing.bits() != 0 {
                return Err(
                    super::wire::WireError::unexpected("PCR_Read", "registers asked for", found).into()
                );
            }
            part.selection.indices().zip(&part.digests).for_each(|(index, value)| pcrs.set(index, *value));
            missing = PcrSelection::from_bits(missing.bits() & !found).unwrap_or(PcrSelection::ALL);
        }
        Ok(pcrs)
    }

    /// `error`, or that the TPM has no SHA-256 bank, if that is so.
    fn without_bank(&mut self, error: TpmError) -> TpmError {
        if !matches!(error, TpmError::Wire(_) | TpmError::Refused { .. }) {
            return error;
        }
        match self.banks() {
            Ok(banks) if !banks.sha256 => TpmError::NoBank { found: banks.algorithms },
            _ => error,
        }
    }

    pub(super) fn extend(&mut self, index: PcrIndex, digest: &[u8; 32]) -> Result<(), TpmError> {
        let parameters = Writer::new().u32(1).u16(ALG_SHA256).raw(digest).done();
        let code = CommandCode::PcrExtend;
        let handles = [u32::from(index.value())];
        let auth = password();
        let command =
            Command { code, handles: &handles, auth: Some(&auth), parameters: &parameters, returns: None };
        self.call(&command, empty)
    }

    /// The public area at a handle; `None` if nothing is there.
    pub(super) fn read_public(&mut self, handle: u32) -> Result<Option<Public>, TpmError> {
        let code = CommandCode::ReadPublic;
        let command = Command { code, handles: &[handle], auth: None, parameters: &[], returns: None };
        match self.call(&command, |accepted| Ok(Public::parse_read_public(accepted.parameters)?)) {
            Err(TpmError::Refused { code, .. }) if code.refusal() == Refusal::Handle => Ok(None),
            found => found.map(Some),
        }
    }

    /// A primary key of the endorsement hierarchy: the same one each time, as long as the TPM is not cleared.
    pub(super) fn endorsement_primary(&mut self, template: &Public) -> Result<Key, TpmError> {
        self.primary(HIERARCHY_ENDORSEMENT, template)
    }

    /// A primary key of the owner hierarchy, likewise.
    pub(super) fn owner_primary(&mut self, template: &Public) -> Result<Key, TpmError> {
        self.primary(HIERARCHY_OWNER, template)
    }

    fn primary(&mut self, hierarchy: u32, template: &Public) -> Result<Key, TpmError> {
        let no_secret = [0; 4];
        let parameters = Writer::new().sized(&no_secret).sized(&template.marshal()).sized(&[]).u32(0).done();
        let auth = password();
        let command = Command {
            code: CommandCode::CreatePrimary,
            handles: &[hierarchy],
            auth: Some(&auth),
            parameters: &parameters,
            returns: Some(HandleKind::Transient),
        };
        let (handle, public) = self.call(&command, |accepted| {
            Ok((accepted.handle.unwrap_or_default(), CreatedPrimary::parse(accepted.parameters)?.public))
        })?;
        // GUARD: primary-as-asked -> evil_host_tpm_key_of_another_template
        if !public.is_made_from(template) {
            return Err(TpmError::KeyUnfit { handle, found: "a key that is not of the template" });
        }
        Ok(Key { handle, public })
    }

    /// Attestation and signature, as they came.
    pub(super) fn quote(&mut self, key: &Key, nonce: &[u8; 32]) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        let selection = PcrSelection::ALL.marshal();
        let parameters = Writer::new().sized(nonce).u16(ALG_NULL).raw(&selection).done();
        let auth = password();
        let command = Command {
            code: CommandCode::Quote,
            handles: &[key.handle],
            auth: Some(&auth),
            parameters: &parameters,
            returns: None,
        };
        self.call(&command, |accepted| {
            let mut reader = Reader::new("Quote", accepted.parameters);
            let attest = reader.sized(ATTEST_MAX_BYTES)?;
            Ok((attest.to_vec(), reader.rest().to_vec()))
        })
    }

    /// Loads a sealed object. Its name is that of `public`.
    pub(super) fn load(&mut self, parent: &Key, public: &Public, private: &[u8]) -> Result<u32, TpmError> {
        let parameters = Writer::new().sized(private).sized(&public.marshal()).done();
        let auth = password();
        let command = Command {
            code: CommandCode::Load,
            handles: &[parent.handle],
            auth: Some(&auth),
            parameters: &parameters,
            returns: Some(HandleKind::Transient),
        };
        self.call(&command, |accepted| {
            let mut reader = Reader::new("Load", accepted.parameters);
            // The session over Unseal is what authenticates the name; this only tells a mistake earlier.
            Name::parse(reader.sized(64)?)?;
            reader.finish()?;
            Ok(accepted.handle.unwrap_or_default())
        })
    }

    /// PolicyPCR for registers with this digest; an empty one stands for their values now.
    pub(super) fn policy_pcr(
        &mut self,
        session: u32,
        selection: PcrSelection,
        digest: &[u8],
    ) -> Result<(), TpmError> {
        let parameters = Writer::new().sized(digest).raw(&selection.marshal()).done();
        let code = CommandCode::PolicyPcr;
        self.call(
            &Command { code, handles: &[session], auth: None, parameters: &parameters, returns: None },
            empty,
        )
    }

    pub(super) fn policy_digest(&mut self, session: u32) -> Result<Vec<u8>, TpmError> {
        let code = CommandCode::PolicyGetDigest;
        let command = Command { code, handles: &[session], auth: None, parameters: &[], returns: None };
        self.call(&command, |accepted| {
            let mut reader = Reader::new("PolicyGetDigest", accepted.parameters);
            let digest = reader.sized(64)?.to_vec();
            reader.finish()?;
            Ok(digest)
        })
    }
}

impl Key {
    /// Length of an RSA key in bits; `None` for others.
    pub(super) fn rsa_bits(&self) -> Option<u16> {
        match self.public.kind {
            KeyKind::Rsa { bits, .. } => Some(bits),
            _ => None,
        }
    }
}

fn plain(code: CommandCode, parameters: &[u8]) -> Command<'_> {
    Command { code, handles: &[], auth: None, parameters, returns: None }
}
