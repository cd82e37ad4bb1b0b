//! Why there is no sandbox.

use std::path::PathBuf;

use protocol::status::RpcError;

use crate::error::chain;
use crate::namespaces::NamespaceError;
use crate::network::dns::DnsError;

/// An error of the sandbox.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    /// Name servers.
    #[error("name servers")]
    Dns(#[from] DnsError),
    /// Hooks of the image.
    #[error("hooks in {}: {reason}", path.display())]
    Hooks {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A task ended by a defect.
    #[error("the work ended by a defect of the agent")]
    Lost,
    /// A kernel module.
    #[error("kernel module {name}: {reason}")]
    Module {
        /// Which.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Shared namespaces.
    #[error("namespaces")]
    Namespaces(#[from] NamespaceError),
    /// There are containers that share what is there.
    #[error("expected no container, found some: the sandbox is in use")]
    Occupied,
}

impl SandboxError {
    /// The stable code.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Dns(error) => error.code(),
            Self::Hooks { .. } => "SANDBOX_HOOKS",
            Self::Lost => "SANDBOX_LOST",
            Self::Module { .. } => "SANDBOX_MODULE",
            Self::Namespaces(error) => error.code(),
            Self::Occupied => "SANDBOX_OCCUPIED",
        }
    }
}

impl From<SandboxError> for RpcError {
    fn from(error: SandboxError) -> Self {
        match error {
            SandboxError::Occupied => Self::Precondition(error.code(), error.to_string()),
            other => Self::Failed(other.code(), chain(&other)),
        }
    }
}
