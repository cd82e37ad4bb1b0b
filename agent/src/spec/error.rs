//! Why a specification is not run.

/// A specification that the engine is not given. It names the place, never what stands there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A value that is not of its form.
    #[error("{at}: expected {expected}, the host sent another")]
    Value {
        /// Where, for example `process.rlimits[2]`.
        at: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// Something that the specification has to have.
    #[error("{at}: expected {expected}, the host sent none")]
    Missing {
        /// Where.
        at: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// More than may be.
    #[error("{at}: expected at most {most}, the host sent {found}")]
    TooMany {
        /// Where.
        at: String,
        /// The limit.
        most: usize,
        /// What came.
        found: usize,
    },
    /// Something that this agent does not enforce: it is refused, not ignored.
    #[error("{at}: {what} cannot be enforced in this guest")]
    NotEnforced {
        /// Where.
        at: String,
        /// What was asked for.
        what: &'static str,
    },
    /// The group of processes.
    #[error("linux.cgroupsPath: expected a place of its own below the root, without '..'")]
    CgroupPath,
    /// A mount of a form that is not taken.
    #[error("{at}: expected {expected}, the host sent another")]
    Mount {
        /// Where.
        at: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// The source of a bind mount that is not there, or cannot be looked at.
    #[error("{at}: expected a file or directory of the guest")]
    MountSource {
        /// Where.
        at: String,
    },
    /// A kernel parameter.
    #[error("linux.sysctl: expected {expected}, the host sent another")]
    Sysctl {
        /// What may be set.
        expected: &'static str,
    },
    /// The filter of system calls.
    #[error("{at}: expected {expected}, the host sent another")]
    Seccomp {
        /// Where.
        at: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// No container may, whatever the policy says.
    #[error("{at}: no container may {what}")]
    Floor {
        /// Where.
        at: String,
        /// What it would do.
        what: &'static str,
    },
    /// No container of a confidential guest may.
    #[error("{at}: no container of a confidential guest may {what}")]
    Tee {
        /// Where.
        at: String,
        /// What it would do.
        what: &'static str,
    },
}

impl SpecError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Value { .. } => "SPEC_VALUE",
            Self::Missing { .. } => "SPEC_MISSING",
            Self::TooMany { .. } => "SPEC_TOO_MANY",
            Self::NotEnforced { .. } => "SPEC_NOT_ENFORCED",
            Self::CgroupPath => "SPEC_CGROUP_PATH",
            Self::Mount { .. } => "SPEC_MOUNT",
            Self::MountSource { .. } => "SPEC_MOUNT_SOURCE",
            Self::Sysctl { .. } => "SPEC_SYSCTL",
            Self::Seccomp { .. } => "SPEC_SECCOMP",
            Self::Floor { .. } => "SPEC_FLOOR",
            Self::Tee { .. } => "SPEC_FLOOR_TEE",
        }
    }
}
