//! What can go wrong in a command: whose fault, a stable code, an exit status.

use std::path::{Path, PathBuf};

use cdh::Class;

/// A command's failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// An artifact and what it takes to seal, open or land it; files; platform, chip, broker and TPM.
    #[error(transparent)]
    Data(#[from] cdh::Error),
    /// An agent policy, or what its author gave with it.
    #[error(transparent)]
    Authoring(#[from] policy_engine::authoring::AuthoringError),
    /// An audit that is not as it has to be.
    #[error(transparent)]
    Audit(#[from] policy_engine::audit::AuditError),
    /// Cases that an agent policy does not pass.
    #[error("expected every case to pass, found {0} that fail")]
    CasesFailed(usize),
    /// A request that an agent policy denies, where the answer is the exit status.
    #[error("the policy denies the request [{0}]")]
    Denied(&'static str),
    /// Evidence, its collateral, or a rule about it.
    #[error(transparent)]
    Evidence(#[from] evidence::EvidenceError),
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
    /// No pin was given.
    #[error("expected a pin: --core DIGEST, or --sealer-key FILE --family F --min-counter N; found none")]
    NoPin,
    /// The agent was not reached, or did not do what it was asked for.
    #[error("the agent's audit: {found}")]
    Service {
        /// The stable code.
        code: &'static str,
        /// What was answered.
        found: String,
    },
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
        let failed = cdh::Error::file(purpose, path);
        move |source| Self::Data(failed(source))
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Authoring(error) => error.code(),
            Self::Audit(error) => error.code(),
            Self::CasesFailed(_) => "POLICY_CASES_FAILED",
            Self::Denied(code) => code,
            Self::Data(error) => error.code(),
            Self::Evidence(error) => error.code(),
            Self::Initdata(error) => error.code(),
            Self::Input { .. } => "INPUT_UNFIT",
            Self::InsecureUnbound { .. } => "INSECURE_UNBOUND",
            Self::NoPin => "NO_PIN",
            Self::Service { code, .. } => code,
            Self::Usage { .. } => "USAGE",
            Self::Weak(_) => "POLICY_WEAK",
        }
    }

    /// The exit status: sysexits(3), 2 for usage.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Authoring(error) => authoring_status(error),
            Self::Audit(error) => audit_status(error),
            Self::Data(error) => status(error.class()),
            Self::Evidence(error) => status(cdh::evidence_class(error)),
            Self::Initdata(error) => initdata_status(error),
            Self::Input { .. } => DATA,
            Self::InsecureUnbound { .. } => CONFIG,
            Self::CasesFailed(_) | Self::Denied(_) | Self::NoPin | Self::Weak(_) => REFUSED,
            Self::Service { code: "AUDIT_DENIED", .. } => REFUSED,
            Self::Service { .. } => UNAVAILABLE,
            Self::Usage { .. } => USAGE,
        }
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

fn status(class: Class) -> u8 {
    match class {
        Class::Artifact => DATA,
        Class::Bug => SOFTWARE,
        Class::Device => UNAVAILABLE,
        Class::Io => IO,
        Class::Refused => REFUSED,
        Class::Transient => TEMPORARY,
        Class::Usage => USAGE,
        _ => CONFIG,
    }
}

fn authoring_status(error: &policy_engine::authoring::AuthoringError) -> u8 {
    match error.code() {
        "POLICY_PROPOSAL" => SOFTWARE,
        _ => DATA,
    }
}

fn audit_status(error: &policy_engine::audit::AuditError) -> u8 {
    match error.code() {
        "AUDIT_KEY" => CONFIG,
        "AUDIT_RANDOM" => SOFTWARE,
        "AUDIT_INITDATA" | "AUDIT_REPLAYED" | "AUDIT_RESTARTED" | "AUDIT_UNATTESTED" => REFUSED,
        _ => DATA,
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

macro_rules! from_data {
    ($($name:ty),*) => {$(
        impl From<$name> for Failure {
            fn from(error: $name) -> Self {
                Self::Data(error.into())
            }
        }
    )*};
}

from_data!(
    attestation_agent::AttestationError,
    attestation_agent::kbs::KbsError,
    attestation_agent::tpm::TpmError,
    chip_client::error::ChipError,
    protected_memory::Error,
    protected_memory::confine::ConfineError,
    protected_memory::harden::HardenError,
    protected_memory::landing::LandingError,
    sealed_artifact::ArtifactError
);
