//! Why the agent cannot start, or cannot go on.

use std::io;

use attestation_agent::AttestationError;
use attestation_agent::service::ServiceError;
use cdh::hub_error::HubError;
use cdh::rest::RestError;
use initdata::InitdataError;
use policy_engine::PolicyError;
use policy_engine::audit::AuditError;
use protected_memory::harden::HardenError;
use protected_memory::landing::LandingError;

use crate::engine::EngineError;

/// An error of the agent. As PID 1 each of them ends the machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The platform: not its absence, which is no error here.
    #[error("platform")]
    Attestation(#[from] AttestationError),
    /// The address to serve.
    #[error("server address: expected vsock://-1:PORT, unix:///PATH or unix://@NAME, found {found}")]
    Address {
        /// What was given.
        found: String,
    },
    /// The audit cannot begin.
    #[error("audit")]
    Audit(#[from] AuditError),
    /// A control group file.
    #[error("control groups: {action} {path}")]
    Cgroup {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// What makes containers.
    #[error("container engine")]
    Engine(#[from] EngineError),
    /// The program cannot be started again without environment and arguments.
    #[error("start {path} again with an empty environment")]
    Environment {
        /// The program.
        path: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A switch of the kernel.
    #[error("hardening: {path}: expected {expected:?}, found {found:?}")]
    Hardening {
        /// The file.
        path: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// The data hub: `cdh.toml` of bound initdata.
    #[error("cdh.toml of bound initdata")]
    Hub(#[from] HubError),
    /// A policy of an image that nothing vouches for.
    #[error("{path}: expected a file of the initramfs or of a dm-verity device, which are measured")]
    ImagePolicy {
        /// The file.
        path: String,
    },
    /// Initdata is withheld, not bound, or not of its form.
    #[error(transparent)]
    Initdata(#[from] InitdataError),
    /// The file of insecure modes.
    #[error("{path}: {reason}")]
    InsecureFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Insecure modes inside a confidential guest.
    #[error("insecure modes refused: {found} shows a confidential guest")]
    InsecureOnTee {
        /// The sign.
        found: String,
    },
    /// A file that has to be read or written.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The port that is served.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Facts about memory.
    #[error("memory")]
    Memory(#[from] LandingError),
    /// A mount.
    #[error("mount {kind} on {target}")]
    Mount {
        /// The type.
        kind: &'static str,
        /// Where.
        target: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Something else is mounted there.
    #[error("{target}: expected a {expected}, found a {found} mounted there")]
    MountOccupied {
        /// Where.
        target: &'static str,
        /// The type that belongs there.
        expected: &'static str,
        /// The type that is there.
        found: String,
    },
    /// Process 1 of a container: what PID 1 does to the machine is not this process's to do.
    #[error("process 1 of {found}, not of the machine; expected {expected}")]
    NotTheMachine {
        /// The process id namespace of a machine.
        expected: &'static str,
        /// Its own.
        found: String,
    },
    /// The policy that the guest begins with.
    #[error("policy")]
    Policy(#[from] PolicyError),
    /// A policy by an argument, in a confidential guest.
    #[error(
        "--policy: inside a confidential guest the policy comes from initdata or from the measured image"
    )]
    PolicyArgument,
    /// Hardening of the process.
    #[error("process")]
    Process(#[from] HardenError),
    /// The REST front for containers.
    #[error("REST front")]
    Rest(#[from] RestError),
    /// The socket that is served.
    #[error(transparent)]
    Socket(#[from] ServiceError),
    /// Something that the system does for every program.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The process that starts compartments.
    #[error("zygote: {what}")]
    Zygote {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// It is dead: nothing can be confined any more.
    #[error("zygote: it died")]
    ZygoteGone,
}

impl AgentError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Address { .. } => "AGENT_ADDRESS",
            Self::Attestation(error) => error.code(),
            Self::Audit(error) => error.code(),
            Self::Cgroup { .. } => "AGENT_CGROUP",
            Self::Engine(error) => error.code(),
            Self::Environment { .. } => "AGENT_ENVIRONMENT",
            Self::Hardening { .. } => "AGENT_HARDENING",
            Self::Hub(error) => error.code(),
            Self::ImagePolicy { .. } => "AGENT_IMAGE_POLICY",
            Self::Initdata(error) => error.code(),
            Self::InsecureFile { .. } => "AGENT_INSECURE_FILE",
            Self::InsecureOnTee { .. } => "AGENT_INSECURE_ON_TEE",
            Self::Io { .. } => "AGENT_IO",
            Self::Listen { .. } => "AGENT_LISTEN",
            Self::Memory(error) => error.code(),
            Self::Mount { .. } => "AGENT_MOUNT",
            Self::MountOccupied { .. } => "AGENT_MOUNT_OCCUPIED",
            Self::NotTheMachine { .. } => "AGENT_NOT_THE_MACHINE",
            Self::Policy(error) => error.code(),
            Self::PolicyArgument => "AGENT_POLICY_ARGUMENT",
            Self::Process(error) => error.code(),
            Self::Rest(error) => error.code(),
            Self::Socket(error) => error.code(),
            Self::System { .. } => "AGENT_SYSTEM",
            Self::Zygote { .. } | Self::ZygoteGone => "AGENT_ZYGOTE",
        }
    }

    /// The error of a system call that has no better word.
    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { what, source: source.into() }
    }

    /// The error of an action on a file.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: &str,
    ) -> impl FnOnce(E) -> Self + use<E> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source: source.into() }
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
