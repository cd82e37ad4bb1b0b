//! Why there is no container, or not the one that was meant.

use std::io;

use protocol::status::RpcError;

use crate::containers::State;

/// An error of the life of containers. It names no place that the host chose.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerError {
    /// The container's directory.
    #[error("container's directory: {action} it")]
    Bundle {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Somebody else's directory is where the container's belongs.
    #[error("container id: expected no directory of that name")]
    DirectoryTaken,
    /// The id is a name that the agent uses itself.
    #[error("container id: expected none that the agent uses itself")]
    IdReserved,
    /// There is a container of this id, or one is being made.
    #[error("container id: expected one that is not in use")]
    IdTaken,
    /// There was a container of this id, and something of it may be left.
    #[error("container id: its former container could not be removed as a whole, it is not used again")]
    Tombstone,
    /// More containers than there may be.
    #[error("containers: expected at most {maximum}, removed ones that left something included", maximum = crate::containers::MAXIMUM_CONTAINERS)]
    TooMany,
    /// More processes of a container than there may be.
    #[error("processes: expected at most {maximum} of one container", maximum = crate::containers::process::MAXIMUM_PROCESSES)]
    TooManyProcesses,
    /// An exec id of a process that runs, or whose status nobody took yet.
    #[error("exec id: expected one that is not in use")]
    ExecIdTaken(String),
    /// The process ids of the sandbox, and nobody who has them.
    #[error("Sandbox does not have sandbox_pidns")]
    PidNamespace,
    /// The place of the root.
    #[error(
        "root.path: expected a directory of the host's shared ones or of a storage of the container, without links"
    )]
    Root,
    /// It is not in a state for that.
    #[error("container: expected it to be {expected}, found it {found}")]
    State {
        /// What it has to be.
        expected: &'static str,
        /// What it is.
        found: State,
    },
}

impl ContainerError {
    /// The stable code.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Bundle { .. } => "CONTAINER_BUNDLE",
            Self::DirectoryTaken => "CONTAINER_DIRECTORY_TAKEN",
            Self::ExecIdTaken(_) => "CONTAINER_EXEC_ID_TAKEN",
            Self::IdReserved => "CONTAINER_ID_RESERVED",
            Self::IdTaken => "CONTAINER_ID_TAKEN",
            Self::PidNamespace => "CONTAINER_PID_NAMESPACE",
            Self::Root => "CONTAINER_ROOT",
            Self::State { .. } => "CONTAINER_STATE",
            Self::Tombstone => "CONTAINER_TOMBSTONE",
            Self::TooMany => "CONTAINER_TOO_MANY",
            Self::TooManyProcesses => "CONTAINER_TOO_MANY_PROCESSES",
        }
    }

    /// The error of an action on the container's directory.
    pub(crate) fn bundle(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Bundle { action, source }
    }
}

impl From<ContainerError> for RpcError {
    fn from(error: ContainerError) -> Self {
        match error {
            ContainerError::ExecIdTaken(id) => Self::ExecIdTaken(id),
            error @ ContainerError::State { .. } => Self::Precondition(error.code(), error.to_string()),
            error => Self::Failed(error.code(), error.to_string()),
        }
    }
}
