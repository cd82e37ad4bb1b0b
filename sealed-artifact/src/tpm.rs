//! TPMs as recipients: a secret sealed under PolicyPCR. What the TPM makes is opaque here. A TPM never counts as a TEE.

use crate::digest::{RecipientKeyDigest, sha256};
use crate::error::{ArtifactError, Found, length, limit};
use crate::grant::RecipientId;
use crate::json::Value;
use crate::keys::fill_random;
use crate::parameters::count;

const RECIPIENT_LABEL: &[u8] = b"innerkeep tpm recipient v1";
const BANK: &str = "sha256";

crate::secret::secret! {
    /// Secret that the TPM seals and gives back only while its registers have the policy's values.
    TpmSecret, "a TPM secret of 32 bytes, not all zero"
}

impl TpmSecret {
    /// A fresh secret, for the TPM to seal.
    ///
    /// # Errors
    /// `RANDOM_UNAVAILABLE`.
    pub fn generate() -> Result<Self, ArtifactError> {
        let mut secret = Self(Box::new([0; 32]));
        fill_random(secret.0.as_mut())?;
        Ok(secret)
    }
}

/// A TPM as a recipient: SHA-256 of two public areas (`TPMT_PUBLIC`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TpmRecipient {
    /// Of the attestation key that bound initdata pins.
    pub attestation_key: [u8; 32],
    /// Of the storage key under which the sealed object is loaded.
    pub storage_key: RecipientKeyDigest,
}

impl TpmRecipient {
    /// The recipient with these public areas.
    #[must_use]
    pub fn of(attestation_public: &[u8], storage_public: &[u8]) -> Self {
        Self {
            attestation_key: sha256(attestation_public),
            storage_key: RecipientKeyDigest::of(storage_public),
        }
    }

    /// The recipient id: of the attestation key.
    #[must_use]
    pub fn recipient_id(&self) -> RecipientId {
        RecipientId::new(sha256(&[RECIPIENT_LABEL, &32u32.to_be_bytes(), &self.attestation_key].concat()))
    }
}

/// Registers of the SHA-256 bank that a secret is bound to: ascending, with the one that holds the initdata digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrSelection(Vec<u8>);

impl PcrSelection {
    /// The register that the initdata digest is extended into.
    pub const INITDATA: u8 = 8;

    /// The selection of these registers.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` above register 23, `MALFORMED` unless they ascend and contain [`Self::INITDATA`].
    pub fn new(registers: &[u8]) -> Result<Self, ArtifactError> {
        for register in registers {
            limit("pcrs", 0, 23, u64::from(*register))?;
        }
        let found = || Found::value(format_args!("{registers:?}"));
        // GUARD: pcrs-ascending -> evil_repeated_registers_are_refused
        if !registers.is_sorted_by(|a, b| a < b) {
            let expected = "registers ascending, each once";
            return Err(ArtifactError::Malformed { what: "pcrs", expected, found: found() });
        }
        // GUARD: pcr-of-initdata -> evil_tpm_secret_not_bound_to_initdata_is_refused
        if !registers.contains(&Self::INITDATA) {
            let expected = "register 8, which holds the initdata digest, among them";
            return Err(ArtifactError::Malformed { what: "pcrs", expected, found: found() });
        }
        Ok(Self(registers.to_vec()))
    }

    /// The registers.
    #[must_use]
    pub fn registers(&self) -> &[u8] {
        &self.0
    }
}

/// What the TPM made of a secret, and under which policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmObject {
    pcrs: PcrSelection,
    policy: [u8; 32],
    private: Vec<u8>,
    public: Vec<u8>,
}

impl TpmObject {
    /// Most bytes of each of the two parts.
    pub const MAXIMUM_PART: u64 = 512;

    /// The object: registers, policy digest (SHA-256, PolicyPCR), `TPM2B_PRIVATE`, `TPM2B_PUBLIC`.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED`.
    pub fn new(
        pcrs: PcrSelection,
        policy: [u8; 32],
        private: Vec<u8>,
        public: Vec<u8>,
    ) -> Result<Self, ArtifactError> {
        limit("TPM2B_PRIVATE", 1, Self::MAXIMUM_PART, length(&private))?;
        limit("TPM2B_PUBLIC", 1, Self::MAXIMUM_PART, length(&public))?;
        Ok(Self { pcrs, policy, private, public })
    }

    /// The registers.
    #[must_use]
    pub fn pcrs(&self) -> &PcrSelection {
        &self.pcrs
    }

    /// The policy digest.
    #[must_use]
    pub fn policy(&self) -> &[u8; 32] {
        &self.policy
    }

    /// `TPM2B_PRIVATE`.
    #[must_use]
    pub fn private(&self) -> &[u8] {
        &self.private
    }

    /// `TPM2B_PUBLIC`.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    pub(crate) fn from_value(value: Value) -> Result<(Self, [u8; 32]), ArtifactError> {
        let mut members = value.into_members("grant.tpm")?;
        let bank = members.take("bank")?.into_text("bank")?;
        let registers = members.take("pcrs")?.into_array("pcrs")?;
        limit("number of pcrs", 0, 24, count(&registers))?;
        let policy = members.take("policy")?.into_hex("grant.tpm.policy")?;
        let private = members.take("private")?.into_base64("grant.tpm.private")?;
        let public = members.take("public")?.into_base64("grant.tpm.public")?;
        let salt = members.take("salt")?.into_hex("salt")?;
        members.finish()?;
        if bank != BANK {
            return Err(ArtifactError::Malformed { what: "bank", expected: BANK, found: Found::text(&bank) });
        }
        let registers = registers.into_iter().map(|register| {
            // A number that does not fit is above 23 as well.
            register.into_integer("pcrs").map(|number| u8::try_from(number).unwrap_or(u8::MAX))
        });
        let pcrs = PcrSelection::new(&registers.collect::<Result<Vec<_>, _>>()?)?;
        Ok((Self::new(pcrs, policy, private, public)?, salt))
    }

    pub(crate) fn to_value(&self, salt: &[u8; 32]) -> Value {
        let registers = self.pcrs.0.iter().map(|register| Value::integer(u64::from(*register)));
        Value::object([
            ("bank", Value::text(BANK)),
            ("pcrs", Value::Array(registers.collect())),
            ("policy", Value::hex(&self.policy)),
            ("private", Value::base64(&self.private)),
            ("public", Value::base64(&self.public)),
            ("salt", Value::hex(salt)),
        ])
    }
}
