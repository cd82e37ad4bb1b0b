//! What can go wrong: whose fault, and a stable code.

use std::path::{Path, PathBuf};

use attestation_agent::AttestationError;
use attestation_agent::kbs::KbsError;
use attestation_agent::tpm::TpmError;
use chip_client::abi::Status;
use chip_client::error::ChipError;
use sealed_artifact::ArtifactError;
use sealed_artifact::grant::GrantKind;

use crate::composefs::ComposefsError;
use crate::image::layer::LayerError;
use crate::image::ocicrypt::OcicryptError;
use crate::image::policy::PolicyError;
use crate::image::pull::PullError;
use crate::registry::{RegistryClass, RegistryError};

/// A failure. Codes are those of the part that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CdhError {
    /// The platform, or what it attests.
    #[error(transparent)]
    Attestation(#[from] AttestationError),
    /// The artifact, its origin, a key or a policy.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The chip, or the way to it.
    #[error(transparent)]
    Chip(#[from] ChipError),
    /// A tree that is mounted with integrity.
    #[error(transparent)]
    Composefs(#[from] ComposefsError),
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
    /// The image policy, or what it refuses.
    #[error(transparent)]
    ImagePolicy(#[from] PolicyError),
    /// The hub's configuration, secrets or service.
    #[error(transparent)]
    Hub(#[from] crate::hub_error::HubError),
    /// An input is not fit to be sealed or opened, or changed while it was read.
    #[error("input {path}: expected {expected}, found {found}", path = path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What a fit input is.
        expected: &'static str,
        /// What it was.
        found: String,
    },
    /// The key broker, or the way to it.
    #[error(transparent)]
    Kbs(#[from] KbsError),
    /// Who opens artifacts here.
    #[error(transparent)]
    Opener(#[from] crate::artifact::OpenerError),
    /// The layers of an image, or the objects made of them.
    #[error(transparent)]
    Layer(#[from] LayerError),
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
    /// An encrypted layer.
    #[error(transparent)]
    Ocicrypt(#[from] OcicryptError),
    /// The pull of an image.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// A registry, the way to it, or the blob store.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The REST front.
    #[error(transparent)]
    Rest(#[from] crate::rest::RestError),
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// An encrypted volume.
    #[error(transparent)]
    Volume(#[from] crate::volume::VolumeError),
    /// A TPM is all that there is.
    #[error("expected an active TEE beside the TPM, or --insecure-tpm-only; found none")]
    TpmAlone,
    /// An argument that cannot be understood, or asks for what this machine does not have.
    #[error("{argument}: expected {expected}, found {found:?}")]
    Usage {
        /// The argument's name.
        argument: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it was.
        found: String,
    },
}

/// Whose fault it is, or what may be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// Damaged, forged or malformed data.
    Artifact,
    /// A mistake in this program.
    Bug,
    /// Configuration or environment unfit.
    Config,
    /// Chip, broker or TEE unreachable or misbehaving.
    Device,
    /// Input or output.
    Io,
    /// Refused by origin, policy, chip or broker.
    Refused,
    /// Trying again may help.
    Transient,
    /// Asked for in a way that cannot be.
    Usage,
}

impl CdhError {
    /// A failed step with a file.
    pub fn file(purpose: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::File { purpose, path, source }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Attestation(error) => error.code(),
            Self::Artifact(error) => error.code(),
            Self::Chip(error) => error.code(),
            Self::Composefs(error) => error.code(),
            Self::File { .. } => "FILE",
            Self::ImagePolicy(error) => error.code(),
            Self::Hub(error) => error.code(),
            Self::Input { .. } => "INPUT_UNFIT",
            Self::Kbs(error) => error.code(),
            Self::Layer(error) => error.code(),
            Self::Opener(error) => error.code(),
            Self::Memory(error) => error.code(),
            Self::NoCollateral { .. } => "NO_COLLATERAL",
            Self::NoGrantForChip { .. } => "NO_GRANT_FOR_CHIP",
            Self::NoGrantForKey { kind, .. } => match kind {
                GrantKind::Kbs => "NO_GRANT_FOR_KBS",
                GrantKind::Snp => "NO_GRANT_FOR_SNP",
                GrantKind::Tpm => "NO_GRANT_FOR_TPM",
                _ => "NO_GRANT_FOR_CHIP",
            },
            Self::Ocicrypt(error) => error.code(),
            Self::Pull(error) => error.code(),
            Self::Registry(error) => error.code(),
            Self::Rest(error) => error.code(),
            Self::Tpm(error) => error.code(),
            Self::TpmAlone => "TPM_ALONE",
            Self::Usage { .. } => "USAGE",
            Self::Volume(error) => error.code(),
        }
    }

    /// Whose fault.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Attestation(error) => attestation_class(error),
            Self::Artifact(error) => artifact_class(error),
            Self::Chip(error) => chip_class(error),
            Self::Composefs(error) => composefs_class(error),
            Self::File { .. } => Class::Io,
            Self::ImagePolicy(error) => policy_class(error),
            Self::Hub(error) => error.class(),
            Self::Input { .. } => Class::Artifact,
            Self::Kbs(error) => broker_class(error),
            Self::Layer(error) => layer_class(error),
            Self::Opener(error) => error.class(),
            Self::Memory(error) => match error.class() {
                protected_memory::Class::DeviceFault => Class::Device,
                protected_memory::Class::Transient => Class::Transient,
                protected_memory::Class::Bug => Class::Bug,
                _ => Class::Config,
            },
            Self::NoCollateral { .. } | Self::TpmAlone => Class::Config,
            Self::NoGrantForChip { .. } | Self::NoGrantForKey { .. } => Class::Refused,
            Self::Ocicrypt(error) => ocicrypt_class(error),
            Self::Pull(error) => error.class(),
            Self::Registry(error) => match error.class() {
                RegistryClass::Config => Class::Config,
                RegistryClass::Denied => Class::Refused,
                RegistryClass::Local => Class::Io,
                RegistryClass::Transient => Class::Transient,
                RegistryClass::Fault => Class::Artifact,
            },
            Self::Rest(error) => error.class(),
            Self::Tpm(error) => tpm_class(error),
            Self::Usage { .. } => Class::Usage,
            Self::Volume(error) => error.class(),
        }
    }

    /// Whether this grant was refused or did not open: another one may still open.
    pub(crate) fn is_about_one_grant(&self) -> bool {
        matches!(self.class(), Class::Artifact | Class::Refused)
            || matches!(self.code(), "ATTEST_FIRMWARE_REFUSED" | "TPM_REFUSED")
    }
}

fn artifact_class(error: &ArtifactError) -> Class {
    match error.class() {
        sealed_artifact::Class::Bug => Class::Bug,
        sealed_artifact::Class::Config => Class::Config,
        sealed_artifact::Class::PolicyDenied => Class::Refused,
        sealed_artifact::Class::Transient => Class::Transient,
        _ => Class::Artifact,
    }
}

fn attestation_class(error: &AttestationError) -> Class {
    if let AttestationError::Presentation(error) = error {
        return evidence_class(error);
    }
    match error.class() {
        attestation_agent::Class::Config => Class::Config,
        attestation_agent::Class::PolicyDenied => Class::Refused,
        attestation_agent::Class::Transient => Class::Transient,
        _ => Class::Device,
    }
}

fn layer_class(error: &LayerError) -> Class {
    match error.code() {
        "LAYER_READ" | "OBJECT_FILE" | "OBJECT_ROOM" => Class::Io,
        "LAYER_CHILD" => Class::Bug,
        _ => Class::Artifact,
    }
}

fn tpm_class(error: &TpmError) -> Class {
    match error.code() {
        "TPM_NOT_FOUND" => Class::Config,
        "TPM_SEALED_PCRS" | "TPM_STORAGE_KEY_FOREIGN" => Class::Refused,
        "TPM_BUSY" => Class::Transient,
        _ => Class::Device,
    }
}

/// A policy that cannot be used is the operator's; what could not be read is said to be that; all else is a refusal.
fn policy_class(error: &PolicyError) -> Class {
    match error {
        PolicyError::Key { .. }
        | PolicyError::Malformed { .. }
        | PolicyError::NoPolicy
        | PolicyError::Unsupported { .. } => Class::Config,
        PolicyError::KeyUnreadable { .. } | PolicyError::SignaturesUnreadable { .. } => Class::Io,
        PolicyError::NotWhole => Class::Usage,
        _ => Class::Refused,
    }
}

fn ocicrypt_class(error: &OcicryptError) -> Class {
    match error {
        OcicryptError::Crypto(_) => Class::Bug,
        OcicryptError::Io(_) => Class::Io,
        OcicryptError::Memory(_) => Class::Config,
        OcicryptError::Unwrap { .. } => Class::Refused,
        _ => Class::Artifact,
    }
}

const fn composefs_class(error: &ComposefsError) -> Class {
    match error {
        ComposefsError::Digest { .. } | ComposefsError::Store { .. } => Class::Config,
        ComposefsError::System { .. } => Class::Io,
        ComposefsError::Unnamed { .. } => Class::Bug,
        _ => Class::Artifact,
    }
}

fn broker_class(error: &KbsError) -> Class {
    match error.class() {
        attestation_agent::kbs::Class::Bug => Class::Bug,
        attestation_agent::kbs::Class::Config => Class::Config,
        attestation_agent::kbs::Class::Denied => Class::Refused,
        attestation_agent::kbs::Class::Transient => Class::Transient,
        _ => Class::Device,
    }
}

/// The class of an error about evidence.
#[must_use]
pub fn evidence_class(error: &evidence::EvidenceError) -> Class {
    match error.class() {
        evidence::Class::PolicyDenied => Class::Refused,
        evidence::Class::Unavailable => Class::Transient,
        _ => Class::Artifact,
    }
}

/// The class of a chip's error: a refusal by it is a decision, a damaged artifact, or a quarrel about the interface.
fn chip_class(error: &ChipError) -> Class {
    if let ChipError::Refused { status, .. } = error {
        return refusal_class(*status);
    }
    if let ChipError::Artifact(error) = error {
        return artifact_class(error);
    }
    match error.class() {
        chip_client::error::Class::Bug => Class::Bug,
        chip_client::error::Class::Config => Class::Config,
        chip_client::error::Class::PolicyDenied => Class::Refused,
        chip_client::error::Class::Transient => Class::Transient,
        _ => Class::Device,
    }
}

fn refusal_class(status: Status) -> Class {
    match status {
        Status::CommitmentMismatch
        | Status::CoreMalformed
        | Status::SegmentAuth
        | Status::SignatureInvalid
        | Status::TagsMismatch => Class::Artifact,
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
        | Status::UnwrapFailed => Class::Refused,
        _ => Class::Device,
    }
}

macro_rules! from_memory {
    ($($name:ty),*) => {$(
        impl From<$name> for CdhError {
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
