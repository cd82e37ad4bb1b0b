//! What can go wrong with the confinement of a consumer.

use std::io;
use std::path::PathBuf;

use crate::Class;
use crate::landing::LandingError;

/// An error of the confinement.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfineError {
    /// The landing could not be attached.
    #[error(transparent)]
    Attach(#[from] LandingError),
    /// The directory to attach at could not be made.
    #[error("attach point {}: {step} failed", path.display())]
    AttachPoint {
        /// The directory.
        path: PathBuf,
        /// The step that failed.
        step: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The ids could not be mapped.
    #[error("ids could not be mapped into the namespace: {step} failed; expected a dumpable process")]
    IdMap {
        /// The step that failed.
        step: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The kernel refuses a namespace.
    #[error("namespace refused: {step} failed; expected user namespaces to be allowed, or root")]
    NamespaceRefused {
        /// The step that failed.
        step: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// None of the usual directories is there and empty.
    #[error("no directory to attach at: expected one of {candidates} to exist and be empty")]
    NoAttachPoint {
        /// The directories that were looked at.
        candidates: String,
    },
    /// The consumer command did not start.
    #[error("consumer {} could not be started in its confinement", program.display())]
    Start {
        /// The command.
        program: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The process already has more than one thread.
    #[error("namespaces are entered before any thread starts: expected 1 thread, found {count}")]
    ThreadsExist {
        /// Number of threads found.
        count: usize,
    },
    /// A process could not give up what a worker does not have.
    #[error("worker: {step} failed; expected root of the machine")]
    Worker {
        /// The step that failed.
        step: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Waiting for the consumer failed.
    #[error("waiting for the consumer: {step} failed")]
    Wait {
        /// The step that failed.
        step: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl ConfineError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Attach(error) => error.code(),
            Self::ThreadsExist { .. } => "MEM-060",
            Self::NamespaceRefused { .. } => "MEM-061",
            Self::IdMap { .. } => "MEM-062",
            Self::NoAttachPoint { .. } => "MEM-063",
            Self::AttachPoint { .. } => "MEM-064",
            Self::Start { .. } => "MEM-065",
            Self::Wait { .. } => "MEM-066",
            Self::Worker { .. } => "MEM-067",
        }
    }

    /// Who misbehaved.
    pub fn class(&self) -> Class {
        match self {
            Self::Attach(error) => error.class(),
            Self::ThreadsExist { .. } => Class::Bug,
            Self::NoAttachPoint { .. } | Self::Start { .. } => Class::Config,
            Self::AttachPoint { .. }
            | Self::IdMap { .. }
            | Self::NamespaceRefused { .. }
            | Self::Wait { .. }
            | Self::Worker { .. } => Class::HostFault,
        }
    }
}
