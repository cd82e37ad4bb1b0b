//! Why a container or a process was not made.

use std::io;

use crate::cgroup::CgroupError;

/// An error of the engine. Texts are the host's to read: they name no argument, no variable of an environment and no contents.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A container of this id is there already.
    #[error("container {id} is there already")]
    Exists {
        /// Its id.
        id: String,
    },
    /// There is none of this id.
    #[error("there is no container {id}")]
    Missing {
        /// The id.
        id: String,
    },
    /// Something that belongs to another state of the container.
    #[error("container {id}: expected {expected}, found {found}")]
    State {
        /// Its id.
        id: String,
        /// The state that was expected.
        expected: &'static str,
        /// The state that it is in.
        found: &'static str,
    },
    /// Its control group cannot be made.
    #[error(transparent)]
    Group(#[from] CgroupError),
    /// An order that the engine does not carry out.
    #[error("order: {what}")]
    Order {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The helper could not make it.
    #[error("{action}: {reason}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The helper's own words, at most 512 bytes of printable ASCII.
        reason: String,
    },
    /// The program of a process could not be executed: it is not there, for example.
    #[error("execute the program: {source}")]
    Program {
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The process ended before its program ran.
    #[error("the process ended before its program was executed")]
    Ended,
    /// A process is not what it was to be. It has been killed.
    #[error("not enforced: {what}: expected {expected}, found {found}")]
    NotEnforced {
        /// What is not.
        what: &'static str,
        /// What was asked for.
        expected: String,
        /// What the kernel says.
        found: String,
    },
    /// The helper did not finish in time. It has been killed.
    #[error("{action}: not done within {seconds} s")]
    Deadline {
        /// What was tried.
        action: &'static str,
        /// Its time.
        seconds: u64,
    },
    /// The helper died, or answered something that is no answer.
    #[error("{action}: the helper {what}")]
    Helper {
        /// What was tried.
        action: &'static str,
        /// What it did.
        what: &'static str,
    },
    /// What was made could not be taken away.
    #[error("take away what is left of {id}: {what}")]
    Left {
        /// The container.
        id: String,
        /// What is left.
        what: String,
    },
    /// There is no zygote in this process, or it has died: nothing can be made any more.
    #[error("no zygote: {why}")]
    Unavailable {
        /// Why.
        why: &'static str,
    },
    /// Something that the system does for every program.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl EngineError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Deadline { .. } => "ENGINE_DEADLINE",
            Self::Ended => "ENGINE_ENDED",
            Self::Exists { .. } => "ENGINE_EXISTS",
            Self::Group(error) => error.code(),
            Self::Helper { .. } => "ENGINE_HELPER",
            Self::Left { .. } => "ENGINE_LEFT",
            Self::Missing { .. } => "ENGINE_MISSING",
            Self::NotEnforced { .. } => "ENGINE_NOT_ENFORCED",
            Self::Order { .. } => "ENGINE_ORDER",
            Self::Program { .. } => "ENGINE_PROGRAM",
            Self::Refused { .. } => "ENGINE_REFUSED",
            Self::State { .. } => "ENGINE_STATE",
            Self::System { .. } => "ENGINE_SYSTEM",
            Self::Unavailable { .. } => "ENGINE_UNAVAILABLE",
        }
    }

    /// The error of a system call that has no better word.
    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { what, source: source.into() }
    }
}
