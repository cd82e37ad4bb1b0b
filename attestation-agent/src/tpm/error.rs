//! The error of this module: who misbehaved, what was expected, a stable code.

use super::device::DeviceError;
use super::wire::{ResponseCode, WireError};

/// Why something with a TPM did not happen. Codes are listed in `docs/spec/attestation-v1.md`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TpmError {
    /// The TPM kept asking to be asked again.
    #[error("TPM: {command}: expected an answer within {attempts} attempts, found {code} each time")]
    Busy {
        /// The command.
        command: &'static str,
        /// How often it was sent.
        attempts: u32,
        /// The last answer.
        code: ResponseCode,
    },
    /// The cryptographic library failed, or a key of the TPM is none.
    #[error("TPM: {what}")]
    Crypto {
        /// What did not work.
        what: &'static str,
    },
    /// The way to the TPM failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// An initdata digest of a length that PCR 8 cannot carry.
    #[error("TPM: initdata digest: expected {expected} bytes, found {found}")]
    InitdataLength {
        /// 32.
        expected: usize,
        /// Its length.
        found: usize,
    },
    /// PCR 8 was extended by somebody else, or with other initdata, since this machine was started.
    #[error("TPM: PCR 8: expected zero or {expected}, found {found}")]
    InitdataTaken {
        /// The value with this initdata, in hex.
        expected: String,
        /// The value found, in hex.
        found: String,
    },
    /// A key in the place of the attestation key that is not fit to be one.
    #[error(
        "TPM: key {handle:#010x}: expected a restricted signing key that never leaves its TPM, found {found}"
    )]
    KeyUnfit {
        /// Its handle.
        handle: u32,
        /// What is wrong with it.
        found: &'static str,
    },
    /// The TPM has no full SHA-256 bank.
    #[error("TPM: expected PCR 0 to 23 in the SHA-256 bank, found banks {found:x?}")]
    NoBank {
        /// Banks with registers, as TPM_ALG.
        found: Vec<u16>,
    },
    /// Registers changed each time between the quote and the reading of them.
    #[error("TPM: expected registers to rest for one quote, found changes in {attempts} attempts")]
    PcrsChanging {
        /// How often it was tried.
        attempts: u32,
    },
    /// A quote that was refused.
    #[error(transparent)]
    Quote(#[from] QuoteError),
    /// The TPM refused a command.
    #[error("TPM: refused {command}: {code}")]
    Refused {
        /// The command.
        command: &'static str,
        /// Its reason.
        code: ResponseCode,
    },
    /// Sealing or unsealing was refused.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// No protected memory for a secret.
    #[error("memory for a secret of the TPM")]
    Secret(#[from] protected_memory::secret::SecretError),
    /// A response in a session that is not authentic: not from the TPM that has the storage key.
    #[error("TPM: {command}: response is not authentic: expected {expected}")]
    SessionForged {
        /// The command.
        command: &'static str,
        /// What the response had to have.
        expected: &'static str,
    },
    /// Bytes that are not of the form of TPM 2.0.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Why a quote was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuoteError {
    /// An attestation key that is not pinned.
    #[error("TPM quote: expected one of {pinned} pinned attestation keys, found SHA-256 {found}")]
    AkNotPinned {
        /// How many are pinned.
        pinned: usize,
        /// SHA-256 of the SubjectPublicKeyInfo that came, in hex.
        found: String,
    },
    /// JSON that is not evidence of a TPM.
    #[error("TPM evidence: expected {expected}, found {found}")]
    Malformed {
        /// The form.
        expected: &'static str,
        /// What is wrong; no bytes of the evidence.
        found: String,
    },
    /// PCR 8 does not carry the initdata.
    #[error("TPM quote: PCR 8: expected {expected} by initdata, found {found}")]
    OtherInitdata {
        /// By the digest, in hex.
        expected: String,
        /// In the quote, in hex.
        found: String,
    },
    /// A quote for another nonce: for somebody else, or of another time.
    #[error("TPM quote: nonce: expected {expected}, found {found}")]
    OtherNonce {
        /// In hex.
        expected: String,
        /// In hex.
        found: String,
    },
    /// Register values that are not those quoted.
    #[error("TPM quote: digest of PCRs: expected {expected} as quoted, found {found} of the values")]
    OtherPcrs {
        /// In hex.
        expected: String,
        /// In hex.
        found: String,
    },
    /// A quote of other registers than all 24.
    #[error("TPM quote: expected all 24 registers, found {found}")]
    OtherSelection {
        /// The selection.
        found: String,
    },
    /// The signature is not of the attestation key over this quote.
    #[error("TPM quote: signature: expected one by the attestation key over this quote, found another")]
    Signature,
}

/// Why sealing or unsealing was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The TPM has another storage key than the one expected: another TPM, a cleared one, or somebody in between.
    #[error("TPM: storage key: expected {expected}, found {found}")]
    ForeignStorageKey {
        /// Name of the key that is expected.
        expected: String,
        /// Name of the key found.
        found: String,
    },
    /// The object that the TPM made or loaded is not the one asked for.
    #[error("TPM: sealed object: expected {expected}, found another")]
    ForeignObject {
        /// What it had to be.
        expected: &'static str,
    },
    /// The registers are not those that the secret was sealed to.
    #[error("TPM: registers {selection}: expected the values that the secret was sealed to, found others")]
    OtherPcrs {
        /// Which registers.
        selection: String,
    },
    /// A policy digest that differs from the one computed here.
    #[error("TPM: policy digest: expected {expected}, found {found}")]
    PolicyMismatch {
        /// In hex.
        expected: String,
        /// In hex.
        found: String,
    },
    /// A selection of registers without PCR 8.
    #[error("TPM: expected a selection with PCR 8, found {found}")]
    SelectionWithoutInitdata {
        /// The selection.
        found: String,
    },
}

impl TpmError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "TPM_BUSY",
            Self::Crypto { .. } => "TPM_CRYPTO",
            Self::Device(e) => e.code(),
            Self::InitdataLength { .. } => "TPM_INITDATA_LENGTH",
            Self::InitdataTaken { .. } => "TPM_INITDATA_TAKEN",
            Self::KeyUnfit { .. } => "TPM_KEY_UNFIT",
            Self::NoBank { .. } => "TPM_NO_BANK",
            Self::PcrsChanging { .. } => "TPM_PCRS_CHANGING",
            Self::Quote(e) => e.code(),
            Self::Refused { .. } => "TPM_REFUSED",
            Self::Seal(e) => e.code(),
            Self::Secret(e) => e.code(),
            Self::SessionForged { .. } => "TPM_SESSION_FORGED",
            Self::Wire(e) => e.code(),
        }
    }
}

impl QuoteError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::AkNotPinned { .. } => "TPM_AK_NOT_PINNED",
            Self::Malformed { .. } => "TPM_EVIDENCE_MALFORMED",
            Self::OtherInitdata { .. } => "TPM_QUOTE_INITDATA",
            Self::OtherNonce { .. } => "TPM_QUOTE_NONCE",
            Self::OtherPcrs { .. } => "TPM_QUOTE_PCRS",
            Self::OtherSelection { .. } => "TPM_QUOTE_SELECTION",
            Self::Signature => "TPM_QUOTE_SIGNATURE",
        }
    }
}

impl SealError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ForeignObject { .. } => "TPM_SEALED_FOREIGN",
            Self::ForeignStorageKey { .. } => "TPM_STORAGE_KEY_FOREIGN",
            Self::OtherPcrs { .. } => "TPM_SEALED_PCRS",
            Self::PolicyMismatch { .. } => "TPM_POLICY_MISMATCH",
            Self::SelectionWithoutInitdata { .. } => "TPM_SELECTION",
        }
    }
}
