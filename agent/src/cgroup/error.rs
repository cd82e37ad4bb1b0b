//! What can go wrong with a control group.

use std::io;

use protocol::status::RpcError;

/// An error of a control group.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// A file or directory.
    #[error("control group: {action} {file}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file, without the place of the group.
        file: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file whose contents are not of its form.
    #[error("control group: {file}: expected what the kernel writes there, found something else")]
    Malformed {
        /// The file.
        file: &'static str,
    },
    /// A parent has processes: it is the group of a container.
    #[error("control group: expected parents without processes, found one with processes")]
    Parent,
    /// There is such a group.
    #[error("control group: expected none at this place, found one")]
    Taken,
    /// Processes do not stop, start or end.
    #[error("control group: expected a change of {what:?} within {seconds} s, found none")]
    Timeout {
        /// The event.
        what: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// A file that is too long, or too many groups below.
    #[error("control group: found more {what} than there may be")]
    TooMany {
        /// Of what.
        what: String,
    },
    /// A value that does not fit another one, or its file.
    #[error("resources: {field}: {reason}")]
    Value {
        /// The field of the request.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is nothing that could hold this limit.
    #[error("resources: {field}: expected one that this kernel can hold, found one that it cannot")]
    Unsupported {
        /// The field of the request.
        field: &'static str,
    },
    /// An earlier value could not be put back after another one failed.
    #[error("control group: {file} could not be put back after an error")]
    NotRestored {
        /// The file.
        file: String,
        /// The error that came first.
        #[source]
        source: Box<CgroupError>,
    },
}

impl CgroupError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "CGROUP_FILE",
            Self::Malformed { .. } => "CGROUP_MALFORMED",
            Self::NotRestored { .. } => "CGROUP_NOT_RESTORED",
            Self::Parent => "CGROUP_PARENT",
            Self::Taken => "CGROUP_TAKEN",
            Self::Timeout { .. } => "CGROUP_TIMEOUT",
            Self::TooMany { .. } => "CGROUP_TOO_MANY",
            Self::Unsupported { .. } => "CGROUP_UNSUPPORTED",
            Self::Value { .. } => "CGROUP_VALUE",
        }
    }

    pub(super) fn file<E: Into<io::Error>>(action: &'static str, file: &str) -> impl FnOnce(E) -> Self {
        let file = file.to_owned();
        move |source| Self::File { action, file, source: source.into() }
    }
}

impl From<CgroupError> for RpcError {
    fn from(error: CgroupError) -> Self {
        Self::Failed(error.code(), crate::error::chain(&error))
    }
}
