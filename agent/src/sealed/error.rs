//! Why an artifact is not there, or not for this container.

use std::io;

use cdh::Class;
use protected_memory::landing::LandingError;
use protocol::status::RpcError;

use crate::hub::DataHubError;

/// An error of landing or of attaching.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealedError {
    /// Opening, judging, unsealing or landing.
    #[error(transparent)]
    Artifact(#[from] cdh::Error),
    /// No place where the host puts stored artifacts.
    #[error("stored artifacts: expected a virtio-fs {tag} or the directory {directory}, found neither")]
    NoCache {
        /// Tag of the file system.
        tag: &'static str,
        /// The directory.
        directory: String,
    },
    /// The artifact is not among those that the host offers, and no bound `cdh.toml` says how registries are asked.
    #[error("artifact {name}: expected {reference} among the stored artifacts, found none")]
    NotInCache {
        /// Its name.
        name: String,
        /// Where it was looked for.
        reference: String,
    },
    /// No evidence commits to the audit yet: what is released now could not be told from what is not.
    #[error("artifacts: expected evidence for the audit of this guest, found none yet")]
    NotAttested,
    /// The data hub, through which registries are asked.
    #[error(transparent)]
    Hub(#[from] DataHubError),
    /// The file or mount of a landing, or the way into a container.
    #[error("sealed artifacts: {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Landed, and not to be attached.
    #[error(transparent)]
    Landing(#[from] LandingError),
    /// The container is to have it, and it has not landed yet.
    #[error("artifact {name} is not ready: {state}")]
    NotReady {
        /// Its name.
        name: String,
        /// What is being done about it.
        state: String,
    },
    /// The container's root is not the one that was verified when it was made.
    #[error("container: expected the verified root at its /, found another file system")]
    Root,
    /// The directory for the artifact is missing in the verified root, or something is mounted on the way to it.
    #[error(
        "container: expected the directory {path} in the verified root, reached through no link and no other mount"
    )]
    Target {
        /// The path.
        path: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The host provides files of the container beside its verified root.
    #[error(
        "container: expected no files of the host beside the verified root, found {kind} mounted at {path}"
    )]
    HostFiles {
        /// Where.
        path: String,
        /// Type of the file system.
        kind: String,
    },
    /// The policy takes the container for one that bound configuration names, and its root is not the one that it names.
    #[error(
        "container: expected the root that sealed.toml names beside artifact {name}, verified by this guest; found {found}"
    )]
    Impostor {
        /// The artifact.
        name: String,
        /// Its root: one that the host provides, or another verified one.
        found: &'static str,
    },
    /// The index that an artifact is named by is one of another policy.
    #[error(
        "artifact {name}: expected policy.rego of initdata in force, whose container {index} it is for; found another policy"
    )]
    OtherPolicy {
        /// The artifact.
        name: String,
        /// The container's index.
        index: u32,
    },
    /// The container was not made under this id, or is gone.
    #[error("container: expected one that was admitted")]
    Unknown,
}

impl SealedError {
    /// The stable code.
    #[must_use]
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Artifact(error) => error.code(),
            Self::HostFiles { .. } => "SEALED_HOST_FILES",
            Self::Hub(error) => error.code(),
            Self::Impostor { .. } => "SEALED_IMPOSTOR",
            Self::Landing(error) => error.code(),
            Self::NoCache { .. } => "SEALED_NO_CACHE",
            Self::NotAttested => "SEALED_NOT_ATTESTED",
            Self::NotInCache { .. } => "SEALED_NOT_IN_CACHE",
            Self::NotReady { .. } => "SEALED_NOT_READY",
            Self::OtherPolicy { .. } => "SEALED_OTHER_POLICY",
            Self::Root => "SEALED_ROOT",
            Self::System { .. } => "SEALED_SYSTEM",
            Self::Target { .. } => "SEALED_TARGET",
            Self::Unknown => "SEALED_CONTAINER",
        }
    }

    /// Whether it was refused for what it is, and not for what is missing here.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Artifact(error) if matches!(error.class(), Class::Artifact | Class::Refused))
    }

    pub(super) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { what, source: source.into() }
    }
}

impl From<SealedError> for RpcError {
    fn from(error: SealedError) -> Self {
        match &error {
            // What is wrong with an artifact is the log's to say; a path of the container is the host's own word.
            SealedError::Artifact(_)
            | SealedError::Hub(_)
            | SealedError::Landing(_)
            | SealedError::System { .. } => {
                Self::Failed(error.code(), "sealed artifact: see the log of the guest".to_owned())
            }
            _ => Self::Precondition(error.code(), error.to_string()),
        }
    }
}
