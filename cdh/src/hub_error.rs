//! What can go wrong in the hub's configuration, secrets and service: whose fault, and a stable code.

use std::io;

use attestation_agent::AttestationError;
use attestation_agent::kbs::{ConfigFault, Hop, KbsError};
use attestation_agent::service::ServiceError;
use protected_memory::secret::SecretError;

use crate::Class;

/// A failure of the hub. Nothing secret is in it; what a peer or a secret's author wrote is shortened and escaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A secret that is an artifact, or whoever opens it.
    #[error("sealed secret: {0}")]
    Artifact(#[source] Box<crate::Error>),
    /// The platform, initdata, or what vouches for a configuration.
    #[error(transparent)]
    Attestation(#[from] AttestationError),
    /// Too many requests of this peer are waiting, or it has too many jobs.
    #[error("too many {what} of this peer; try again")]
    Busy {
        /// Of what.
        what: &'static str,
    },
    /// A configuration without the form of one.
    #[error("cdh.toml: {reason}")]
    ConfigInvalid {
        /// What is wrong.
        reason: String,
    },
    /// A credential cannot be written.
    #[error("{action} credential {path}")]
    CredentialIo {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A credential would go where it must not.
    #[error("credential path: expected {expected}, found {found:?}")]
    CredentialPath {
        /// The rule.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// The directory of credentials is not in memory.
    #[error("credentials: expected a directory in memory (tmpfs), found {path} on another file system")]
    CredentialPlace {
        /// The directory.
        path: String,
    },
    /// Nothing vouches for an insecure mode.
    #[error("{asked}: expected {mode:?} among the insecure modes of bound initdata, found none")]
    InsecureUnbound {
        /// What asked for it.
        asked: &'static str,
        /// The mode.
        mode: &'static str,
    },
    /// A flag for machines without a TEE.
    #[error("{flag}: expected no TEE, found {tee}; there only bound initdata names insecure modes")]
    InsecureInTee {
        /// The flag.
        flag: &'static str,
        /// Which TEE.
        tee: &'static str,
    },
    /// Nobody waits for it any more.
    #[error("the deadline of the request passed")]
    Late,
    /// A worker was lost.
    #[error("the request was interrupted")]
    Interrupted,
    /// No such job of this peer.
    #[error("expected a job of this peer, found none with this number")]
    JobUnknown,
    /// A job that has not come so far, or a file that it has not.
    #[error("expected {expected}, found {found}")]
    JobState {
        /// What it takes.
        expected: &'static str,
        /// How it is.
        found: &'static str,
    },
    /// The key broker, or the way to it.
    #[error(transparent)]
    Kbs(#[from] KbsError),
    /// A request for a layer's key that is none.
    #[error("request for a layer's key: expected {expected}")]
    KeyRequest {
        /// What it takes.
        expected: &'static str,
    },
    /// No protected pages.
    #[error(transparent)]
    Memory(#[from] SecretError),
    /// No broker is configured.
    #[error("expected [kbc] in bound cdh.toml, found none")]
    NoBroker,
    /// Something that this guest does not serve.
    #[error("{what} is not available in this guest")]
    NotAvailable {
        /// What was asked for.
        what: &'static str,
    },
    /// An artifact that bound initdata does not name.
    #[error("artifact {reference:?}: expected one that bound sealed.toml names, found none such")]
    NotNamed {
        /// What was asked for.
        reference: String,
    },
    /// The files of an offline KBC.
    #[error("offline resources {path}: {reason}")]
    Offline {
        /// Which file.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A resource that no offline file has.
    #[error("offline resources: expected {uri}, found no such")]
    OfflineMissing {
        /// Which resource.
        uri: String,
    },
    /// A sealed secret that names another algorithm than ES256.
    #[error("sealed secret: expected alg ES256, found {found:?}")]
    SealedAlgorithm {
        /// What it names.
        found: String,
    },
    /// A sealed secret with extensions that nobody here knows.
    #[error("sealed secret: expected no critical extension but b64 = true")]
    SealedCritical,
    /// A sealed secret without the form of one.
    #[error("sealed secret: {part}: expected {expected}")]
    SealedForm {
        /// Which part.
        part: &'static str,
        /// Its form.
        expected: &'static str,
    },
    /// A verification key that cannot be used.
    #[error("sealed secret: kid: expected {expected}")]
    SealedKey {
        /// What it takes.
        expected: &'static str,
    },
    /// A provider that is not there.
    #[error("sealed secret: provider: expected {expected}, found {found:?}")]
    SealedProvider {
        /// Which there is.
        expected: &'static str,
        /// What it names.
        found: String,
    },
    /// A signature that does not verify.
    #[error("sealed secret: expected a signature by the key that kid names, found another")]
    SealedSignature,
    /// A version that is not known.
    #[error("sealed secret: expected version 0.1.0, found {found:?}")]
    SealedVersion {
        /// What it names.
        found: String,
    },
    /// The peer, or the socket.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// More bytes than are taken.
    #[error("{what}: expected at most {most} bytes, found {found}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// The cap.
        most: usize,
        /// What came.
        found: usize,
    },
    /// Something wrapped that does not open: another key, or changed. One code for all causes.
    #[error("{what}: decryption failed")]
    WrapAuthentication {
        /// What was wrapped.
        what: &'static str,
    },
    /// A wrapped key or secret without the form of one.
    #[error("{what}: expected {expected}")]
    WrapForm {
        /// What is wrapped.
        what: &'static str,
        /// Its form.
        expected: &'static str,
    },
    /// A cipher that does not authenticate.
    #[error("wrap type: expected A256GCM, found A256CTR, which does not authenticate")]
    WrapUnauthenticated,
}

impl HubError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Artifact(error) => error.code(),
            Self::Attestation(error) => error.code(),
            Self::Busy { .. } => "CDH_BUSY",
            Self::ConfigInvalid { .. } => "CDH_CONFIG_INVALID",
            Self::CredentialIo { .. } => "CDH_CREDENTIAL_IO",
            Self::CredentialPath { .. } => "CDH_CREDENTIAL_PATH",
            Self::CredentialPlace { .. } => "CDH_CREDENTIAL_PLACE",
            Self::InsecureUnbound { .. } => "CDH_INSECURE_UNBOUND",
            Self::InsecureInTee { .. } => "CDH_INSECURE_IN_TEE",
            Self::Interrupted => "CDH_INTERRUPTED",
            Self::Late => "CDH_DEADLINE",
            Self::JobUnknown => "CDH_JOB_UNKNOWN",
            Self::JobState { .. } => "CDH_JOB_STATE",
            Self::Kbs(error) => error.code(),
            Self::KeyRequest { .. } => "CDH_KEY_REQUEST",
            Self::Memory(_) => "CDH_MEMORY",
            Self::NoBroker => "CDH_NO_BROKER",
            Self::NotAvailable { .. } => "CDH_NOT_AVAILABLE",
            Self::NotNamed { .. } => "CDH_ARTIFACT_NOT_NAMED",
            Self::Offline { .. } => "CDH_OFFLINE_INVALID",
            Self::OfflineMissing { .. } => "CDH_OFFLINE_NO_RESOURCE",
            Self::SealedAlgorithm { .. } => "SEALED_SECRET_ALGORITHM",
            Self::SealedCritical => "SEALED_SECRET_CRITICAL",
            Self::SealedForm { .. } => "SEALED_SECRET_MALFORMED",
            Self::SealedKey { .. } => "SEALED_SECRET_KEY",
            Self::SealedProvider { .. } => "SEALED_SECRET_PROVIDER",
            Self::SealedSignature => "SEALED_SECRET_SIGNATURE",
            Self::SealedVersion { .. } => "SEALED_SECRET_VERSION",
            Self::Service(error) => match error {
                ServiceError::Denied { .. } => "CDH_PEER_DENIED",
                ServiceError::PeerUnknown(_) => "CDH_PEER_UNKNOWN",
                ServiceError::Socket { .. } => "CDH_SOCKET",
                ServiceError::Busy => "CDH_BUSY",
                other => other.code(),
            },
            Self::TooLarge { .. } => "CDH_REQUEST_TOO_LARGE",
            Self::WrapAuthentication { .. } => "WRAP_AUTHENTICATION",
            Self::WrapForm { .. } => "WRAP_MALFORMED",
            Self::WrapUnauthenticated => "WRAP_UNAUTHENTICATED",
        }
    }

    /// Whose fault.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Artifact(error) => error.class(),
            Self::Attestation(_) | Self::Service(_) | Self::Memory(_) => Class::Device,
            Self::Busy { .. } | Self::Late => Class::Transient,
            Self::ConfigInvalid { .. }
            | Self::CredentialPath { .. }
            | Self::CredentialPlace { .. }
            | Self::InsecureUnbound { .. }
            | Self::InsecureInTee { .. }
            | Self::NoBroker
            | Self::NotAvailable { .. } => Class::Config,
            Self::CredentialIo { .. } | Self::Offline { .. } => Class::Io,
            Self::Interrupted => Class::Bug,
            Self::Kbs(error) => match error.class() {
                attestation_agent::kbs::Class::Bug => Class::Bug,
                attestation_agent::kbs::Class::Config => Class::Config,
                attestation_agent::kbs::Class::Denied => Class::Refused,
                attestation_agent::kbs::Class::Transient => Class::Transient,
                _ => Class::Device,
            },
            Self::JobUnknown
            | Self::JobState { .. }
            | Self::KeyRequest { .. }
            | Self::NotNamed { .. }
            | Self::OfflineMissing { .. }
            | Self::TooLarge { .. } => Class::Usage,
            Self::SealedProvider { .. } | Self::SealedSignature | Self::WrapUnauthenticated => Class::Refused,
            _ => Class::Artifact,
        }
    }
}

impl From<crate::Error> for HubError {
    fn from(error: crate::Error) -> Self {
        match error {
            crate::Error::Hub(error) => error,
            other => Self::Artifact(Box::new(other)),
        }
    }
}

impl From<ConfigFault> for HubError {
    fn from(fault: ConfigFault) -> Self {
        Self::Kbs(KbsError::new(Hop::Setup, fault))
    }
}

/// What somebody wrote, fit for an error: at most 64 characters, escaped.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}
