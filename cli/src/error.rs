//! What can go wrong in a command: whose fault, a stable code, an exit status.

use std::path::{Path, PathBuf};

use chip_client::abi::Status;
use sealed_artifact::grant::GrantKind;

/// A command's failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// The platform, or what it attests.
    #[error(transparent)]
    Attestation(#[from] attestation_agent::AttestationError),
    /// The artifact, its origin, a key or a policy.
    #[error(transparent)]
    Artifact(#[from] sealed_artifact::ArtifactError),
    /// The chip, or the way to it.
    #[error(transparent)]
    Chip(#[from] chip_client::error::ChipError),
    /// Evidence, its collateral, or a rule about it.
    #[error(transparent)]
    Evidence(#[from] evidence::EvidenceError),
    /// A file or directory.
    #[error("{purpose} {path}: {source}", path = path.display())]
    File {
        /// What was to be done.
        purpose: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it could not.
        source: std::io::Error,
    },
    /// Initdata: its form, or what vouches for it.
    #[error(transparent)]
    Initdata(#[from] initdata::InitdataError),
    /// An input is not fit to be sealed, or changed while it was read.
    #[error("input {path}: expected {expected}, found {found}", path = path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What a fit input is.
        expected: &'static str,
        /// What it was.
        found: String,
    },
    /// An insecure mode inside a TEE that bound initdata does not list.
    #[error(
        "insecure mode {mode}: inside a TEE expected it in `insecure` of innerkeep.toml in bound initdata (--initdata FILE), found it on the command line alone"
    )]
    InsecureUnbound {
        /// The mode.
        mode: &'static str,
    },
    /// The key broker, or the way to it.
    #[error(transparent)]
    Kbs(#[from] attestation_agent::kbs::KbsError),
    /// Protected memory.
    #[error(transparent)]
    Memory(#[from] protected_memory::Error),
    /// Evidence would be presented with nothing to verify it by.
    #[error("expected --collateral FILE: evidence of this TEE ({tee}) is not presented without; found none")]
    NoCollateral {
        /// Name of the TEE.
        tee: &'static str,
    },
    /// No grant beside the artifact is for this chip.
    #[error("expected a grant for chip {chip}, found {found} grant(s) for others")]
    NoGrantForChip {
        /// The chip's certified id.
        chip: String,
        /// How many grants there are.
        found: usize,
    },
    /// No grant beside the artifact is for this broker, guest or TPM.
    #[error("expected a grant for {recipient}, found {found}")]
    NoGrantForKey {
        /// Kind of grant that was looked for.
        kind: GrantKind,
        /// For whom.
        recipient: String,
        /// The grants that there are, by kind.
        found: String,
    },
    /// No pin was given.
    #[error("expected a pin: --core DIGEST, or --sealer-key FILE --family F --min-counter N; found none")]
    NoPin,
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] attestation_agent::tpm::TpmError),
    /// A TPM is all that there is.
    #[error("expected an active TEE beside the TPM, or --insecure-tpm-only; found none")]
    TpmAlone,
    /// An argument that cannot be understood.
    #[error("{argument}: expected {expected}, found {found:?}")]
    Usage {
        /// The argument's name.
        argument: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it was.
        found: String,
    },
    /// Weaknesses were found where the answer is the exit status.
    #[error("the policy is weak: {0} finding(s)")]
    Weak(usize),
}

impl Failure {
    /// A failed step with a file.
    pub(crate) fn file(purpose: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::File { purpose, path, source }
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Attestation(error) => error.code(),
            Self::Artifact(error) => error.code(),
            Self::Chip(error) => error.code(),
            Self::Evidence(error) => error.code(),
            Self::File { .. } => "FILE",
            Self::Initdata(error) => error.code(),
            Self::Input { .. } => "INPUT_UNFIT",
            Self::Kbs(error) => error.code(),
            Self::Memory(error) => error.code(),
            Self::InsecureUnbound { .. } => "INSECURE_UNBOUND",
            Self::NoCollateral { .. } => "NO_COLLATERAL",
            Self::NoGrantForChip { .. } => "NO_GRANT_FOR_CHIP",
            Self::NoGrantForKey { kind, .. } => match kind {
                GrantKind::Kbs => "NO_GRANT_FOR_KBS",
                GrantKind::Snp => "NO_GRANT_FOR_SNP",
                GrantKind::Tpm => "NO_GRANT_FOR_TPM",
                _ => "NO_GRANT_FOR_CHIP",
            },
            Self::NoPin => "NO_PIN",
            Self::Tpm(error) => error.code(),
            Self::TpmAlone => "TPM_ALONE",
            Self::Usage { .. } => "USAGE",
            Self::Weak(_) => "POLICY_WEAK",
        }
    }

    /// The exit status: sysexits(3), 2 for usage.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Attestation(error) => attestation_status(error),
            Self::Artifact(error) => artifact_status(error),
            Self::Chip(error) => chip_status(error),
            Self::Evidence(error) => evidence_status(error),
            Self::File { .. } => IO,
            Self::Initdata(error) => initdata_status(error),
            Self::Input { .. } => DATA,
            Self::Kbs(error) => broker_status(error),
            Self::Memory(error) => match error.class() {
                protected_memory::Class::DeviceFault => UNAVAILABLE,
                protected_memory::Class::Transient => TEMPORARY,
                protected_memory::Class::Bug => SOFTWARE,
                _ => CONFIG,
            },
            Self::InsecureUnbound { .. } | Self::NoCollateral { .. } | Self::TpmAlone => CONFIG,
            Self::NoGrantForChip { .. } | Self::NoGrantForKey { .. } | Self::NoPin | Self::Weak(_) => REFUSED,
            Self::Tpm(error) => tpm_status(error),
            Self::Usage { .. } => USAGE,
        }
    }

    /// Whether this grant was refused or did not open: another one may still open.
    pub(crate) fn is_about_one_grant(&self) -> bool {
        matches!(self.exit_status(), DATA | REFUSED)
            || matches!(self.code(), "ATTEST_FIRMWARE_REFUSED" | "TPM_REFUSED")
    }

    /// Whose fault, as a word.
    pub(crate) fn class(&self) -> &'static str {
        match self.exit_status() {
            USAGE => "usage",
            DATA => "artifact",
            UNAVAILABLE => "device",
            SOFTWARE => "bug",
            IO => "io",
            TEMPORARY => "transient",
            REFUSED => "refused",
            _ => "config",
        }
    }
}

/// Usage error.
const USAGE: u8 = 2;
/// Artifact damaged, forged or malformed.
const DATA: u8 = 65;
/// Chip or TEE unreachable or misbehaving.
const UNAVAILABLE: u8 = 69;
/// A mistake in this program.
pub(crate) const SOFTWARE: u8 = 70;
/// Input or output.
const IO: u8 = 74;
/// Trying again may help.
const TEMPORARY: u8 = 75;
/// Refused by origin, policy or chip.
const REFUSED: u8 = 77;
/// Configuration or environment unfit.
const CONFIG: u8 = 78;

fn artifact_status(error: &sealed_artifact::ArtifactError) -> u8 {
    match error.class() {
        sealed_artifact::Class::Bug => SOFTWARE,
        sealed_artifact::Class::Config => CONFIG,
        sealed_artifact::Class::PolicyDenied => REFUSED,
        sealed_artifact::Class::Transient => TEMPORARY,
        _ => DATA,
    }
}

fn attestation_status(error: &attestation_agent::AttestationError) -> u8 {
    if let attestation_agent::AttestationError::Presentation(error) = error {
        return evidence_status(error);
    }
    match error.class() {
        attestation_agent::Class::Config => CONFIG,
        attestation_agent::Class::PolicyDenied => REFUSED,
        attestation_agent::Class::Transient => TEMPORARY,
        _ => UNAVAILABLE,
    }
}

fn initdata_status(error: &initdata::InitdataError) -> u8 {
    match error {
        initdata::InitdataError::Io { .. } => IO,
        initdata::InitdataError::Mismatch { .. } => REFUSED,
        initdata::InitdataError::Register { .. } => USAGE,
        _ => DATA,
    }
}

fn tpm_status(error: &attestation_agent::tpm::TpmError) -> u8 {
    match error.code() {
        "TPM_NOT_FOUND" => CONFIG,
        "TPM_SEALED_PCRS" | "TPM_STORAGE_KEY_FOREIGN" => REFUSED,
        "TPM_BUSY" => TEMPORARY,
        _ => UNAVAILABLE,
    }
}

fn broker_status(error: &attestation_agent::kbs::KbsError) -> u8 {
    match error.class() {
        attestation_agent::kbs::Class::Bug => SOFTWARE,
        attestation_agent::kbs::Class::Config => CONFIG,
        attestation_agent::kbs::Class::Denied => REFUSED,
        attestation_agent::kbs::Class::Transient => TEMPORARY,
        _ => UNAVAILABLE,
    }
}

fn evidence_status(error: &evidence::EvidenceError) -> u8 {
    match error.class() {
        evidence::Class::PolicyDenied => REFUSED,
        evidence::Class::Unavailable => TEMPORARY,
        _ => DATA,
    }
}

fn chip_status(error: &chip_client::error::ChipError) -> u8 {
    if let chip_client::error::ChipError::Refused { status, .. } = error {
        return refusal_status(*status);
    }
    if let chip_client::error::ChipError::Artifact(error) = error {
        return artifact_status(error);
    }
    match error.class() {
        chip_client::error::Class::Bug => SOFTWARE,
        chip_client::error::Class::Config => CONFIG,
        chip_client::error::Class::PolicyDenied => REFUSED,
        chip_client::error::Class::Transient => TEMPORARY,
        _ => UNAVAILABLE,
    }
}

/// What a refusal by the chip comes to: a decision, a damaged artifact, or a quarrel about the interface.
fn refusal_status(status: Status) -> u8 {
    match status {
        Status::CommitmentMismatch
        | Status::CoreMalformed
        | Status::SegmentAuth
        | Status::SignatureInvalid
        | Status::TagsMismatch => DATA,
        Status::Epoch
        | Status::EvidenceRefused
        | Status::EvidenceRequired
        | Status::InsecureRefused
        | Status::NotProvisioned
        | Status::AlreadyProvisioned
        | Status::Path
        | Status::PolicyDenied
        | Status::PolicyMalformed
        | Status::Rollback
        | Status::Suite
        | Status::UnwrapFailed => REFUSED,
        _ => UNAVAILABLE,
    }
}

macro_rules! from_memory {
    ($($name:ty),*) => {$(
        impl From<$name> for Failure {
            fn from(error: $name) -> Self {
                Self::Memory(error.into())
            }
        }
    )*};
}

from_memory!(
    protected_memory::confine::ConfineError,
    protected_memory::dma::DmaError,
    protected_memory::harden::HardenError,
    protected_memory::landing::LandingError,
    protected_memory::secret::SecretError
);
