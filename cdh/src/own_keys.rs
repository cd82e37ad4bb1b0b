//! Keys that this guest has of itself: derived by an SEV-SNP processor, or sealed by a TPM. For grants that only this guest opens.

use std::fmt;
use std::path::Path;

use attestation_agent::derived_key::{DerivedKeyRequest, GuestFields, RootKey, derived_keys};
use attestation_agent::error::TeeError;
use attestation_agent::tpm::pcr::{PcrIndex, PcrSelection as TpmSelection};
use attestation_agent::tpm::wire::Name;
use attestation_agent::tpm::{Sealed, StorageKey, Tpm, TpmError, TpmLocation};
use attestation_agent::{AttestationError, Attester, Claim, Tee, TeeRoot};
use protected_memory::secret::SecretKey;
use sealed_artifact::policy::Hex;
use sealed_artifact::snp::{SnpDerivedKey, SnpGuest, SnpRootKey, SnpSelection};
use sealed_artifact::tpm::{PcrSelection, TpmObject, TpmRecipient, TpmSecret};

use crate::Error;

/// An SEV-SNP guest as its own, fresh report says.
pub struct SnpKeys {
    /// What grants name it by.
    pub guest: SnpGuest,
    committed_tcb: [u8; 8],
    root: TeeRoot,
}

impl fmt::Debug for SnpKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SnpKeys(..)")
    }
}

impl fmt::Debug for TpmKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TpmKeys(..)")
    }
}

impl SnpKeys {
    /// Those of a platform that was found below `root`.
    ///
    /// # Errors
    ///
    /// No SEV-SNP guest, or it gives no report.
    pub fn of_guest(attester: &Attester, root: TeeRoot) -> Result<Self, Error> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|_| AttestationError::Tee(TeeError::Random))?;
        let evidence = attester.evidence(&Claim::OwnRegisters { nonce })?;
        let Some(report) = evidence.snp_report() else {
            return Err(Error::Usage {
                argument: "--to snp, --snp",
                expected: "a SEV-SNP guest",
                found: attester.tee().name().to_owned(),
            });
        };
        debug_assert_eq!(attester.tee(), Tee::Snp, "only SNP gives SNP reports");
        Ok(Self {
            guest: SnpGuest {
                chip_id: report.chip_id.0,
                guest_policy: report.policy.0,
                host_data: report.host_data.0,
                measurement: report.measurement.0,
            },
            committed_tcb: report.committed_tcb.encode().0,
            root,
        })
    }

    /// What a new grant selects: what the format demands, at the committed TCB of now.
    pub fn selection(&self) -> Result<SnpSelection, Error> {
        Ok(SnpSelection::new(SnpRootKey::Vcek, SnpSelection::REQUIRED, 0, Hex(self.committed_tcb))?)
    }

    /// The key of a selection.
    pub fn derive(&self, selection: &SnpSelection) -> Result<SnpDerivedKey, Error> {
        let optional = [
            (SnpSelection::IMAGE_ID, GuestFields::IMAGE_ID),
            (SnpSelection::FAMILY_ID, GuestFields::FAMILY_ID),
            (SnpSelection::GUEST_SVN, GuestFields::GUEST_SVN),
        ];
        let more =
            optional.into_iter().filter(|(bit, _)| selection.fields() & bit != 0).map(|(_, field)| field);
        let request = DerivedKeyRequest {
            root_key: match selection.root() {
                SnpRootKey::Vcek => RootKey::Vek,
                SnpRootKey::Vmrk => RootKey::Vmrk,
            },
            vmpl: SnpSelection::VMPL,
            fields: GuestFields::of(more),
            guest_svn: selection.guest_svn(),
            tcb_version: selection.tcb_version().0,
        };
        let key = derived_keys(&self.root).derive(&request).map_err(AttestationError::Tee)?;
        Ok(SnpDerivedKey::from_bytes(key.expose())?)
    }
}

/// The TPM of this guest.
pub struct TpmKeys {
    /// What grants name it by.
    pub recipient: TpmRecipient,
    storage_key: Name,
    tpm: Tpm,
}

impl TpmKeys {
    /// The TPM of this machine, or of the emulated platform below a directory.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn found(insecure_below: Option<&Path>) -> Result<Self, Error> {
        let location = match insecure_below {
            None => TpmLocation::find(),
            Some(root) => TpmLocation::danger_find_below(root),
        };
        let tpm = Tpm::new(location.map_err(TpmError::from)?);
        let (attestation, storage) = (tpm.attestation_public()?, tpm.storage_public()?);
        let storage_key = storage.name();
        Ok(Self { recipient: TpmRecipient::of(&attestation.marshal(), &storage.marshal()), storage_key, tpm })
    }

    /// A fresh secret, sealed under the present values of the registers, to the storage key of this digest if one is given.
    pub fn seal(&self, registers: &[u8], pinned: Option<&[u8; 32]>) -> Result<(TpmObject, TpmSecret), Error> {
        let mut registers = registers.to_vec();
        registers.push(PcrSelection::INITDATA);
        registers.sort_unstable();
        registers.dedup();
        let selection = PcrSelection::new(&registers)?;
        let secret = TpmSecret::generate()?;
        let mut copy = zeroize::Zeroizing::new(*secret.expose_bytes());
        let held = SecretKey::take_from(&mut copy)?;
        let pcrs = self.tpm.read_pcrs()?;
        let key = pinned.map_or(self.storage_key, Name::of_digest);
        let sealed = self.tpm.seal(&held, of_tpm(&selection), &pcrs, StorageKey::Named(key))?;
        let object = TpmObject::new(selection, sealed.policy(), sealed.private(), sealed.public())?;
        Ok((object, secret))
    }

    /// The secret of a grant's object, if the registers have the values that it was sealed under.
    pub fn unseal(&self, object: &TpmObject) -> Result<TpmSecret, Error> {
        let (selection, policy) = (of_tpm(object.pcrs()), *object.policy());
        let sealed = Sealed::parse(selection, policy, self.storage_key, object.public(), object.private())?;
        Ok(TpmSecret::from_bytes(self.tpm.unseal(&sealed)?.expose())?)
    }
}

fn of_tpm(selection: &PcrSelection) -> TpmSelection {
    TpmSelection::of(selection.registers().iter().filter_map(|register| PcrIndex::new(u32::from(*register))))
}
