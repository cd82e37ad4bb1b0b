//! What keeps an image from becoming a root, beside what its parts refuse with codes of their own.

use std::io;
use std::path::{Path, PathBuf};

use crate::Class;
use crate::image::policy::Cause;
use crate::registry::Transferred;

/// A pull that did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The directory that the root and its configuration are put into.
    #[error("{purpose} bundle {path}: {source}", path = path.display())]
    Bundle {
        /// What was to be done.
        purpose: &'static str,
        /// With which directory or file.
        path: PathBuf,
        /// Why it could not.
        source: io::Error,
    },
    /// The configuration of an image does not say what a container needs.
    #[error("image configuration: expected {expected}")]
    Configuration {
        /// What it has to say.
        expected: &'static str,
    },
    /// No process to unpack in, or one that nobody can say is gone.
    #[error("{action} the process that unpacks: {source}")]
    Unpacker {
        /// What was to be done with it.
        action: &'static str,
        /// Why it could not.
        source: Cause,
    },
    /// No memory for it: what images that are in use have cannot be taken from them.
    #[error(
        "expected room for at least {needs} bytes of an unpacked image, found {has} that no image in use has"
    )]
    Room {
        /// Bytes that it has at least.
        needs: u64,
        /// Bytes that there are.
        has: u64,
    },
    /// The time is over.
    #[error(
        "{image}: expected all of it before the deadline, found {done} of {total} bytes of layers here, {received} of them received at {rate} bytes/s"
    )]
    Deadline {
        /// What was pulled.
        image: String,
        /// Bytes of layers that are here.
        done: u64,
        /// Bytes of all layers; 0 before that is known.
        total: u64,
        /// Bytes that came over the network.
        received: u64,
        /// In each second.
        rate: u64,
    },
    /// The pull was given up, or its worker was lost.
    #[error("the pull was interrupted")]
    Interrupted,
    /// The image could not be measured, so nobody may use it.
    #[error("{image}: expected its event in the runtime log, found a failure: {source}")]
    Measure {
        /// Which image.
        image: String,
        /// Why.
        source: Cause,
    },
    /// What was unsealed is not what the core, bound configuration or the policy of the key says that it is.
    #[error("{image}: unsealed: expected {expected}, found {found}")]
    Unsealed {
        /// Which image.
        image: String,
        /// What it has to be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// Not the name of an image, by the rules of policies.
    #[error("{name:?}: expected the name of an image by the rules of image policies")]
    Name {
        /// The name as a registry understands it.
        name: String,
    },
}

impl PullError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Bundle { .. } => "PULL_BUNDLE",
            Self::Configuration { .. } => "PULL_CONFIGURATION",
            Self::Deadline { .. } => "PULL_DEADLINE",
            Self::Interrupted => "PULL_INTERRUPTED",
            Self::Measure { .. } => "PULL_MEASURE",
            Self::Name { .. } => "PULL_NAME",
            Self::Room { .. } => "PULL_ROOM",
            Self::Unpacker { .. } => "PULL_UNPACKER",
            Self::Unsealed { .. } => "PULL_UNSEALED",
        }
    }

    /// Whose fault.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Bundle { .. } | Self::Room { .. } | Self::Unpacker { .. } => Class::Io,
            Self::Configuration { .. } | Self::Unsealed { .. } => Class::Artifact,
            Self::Deadline { .. } | Self::Interrupted => Class::Transient,
            Self::Measure { .. } => Class::Device,
            Self::Name { .. } => Class::Usage,
        }
    }

    pub(super) fn bundle<E: Into<io::Error>>(
        purpose: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Bundle { purpose, path, source: source.into() }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a figure for people; the conversion saturates"
    )]
    pub(super) fn deadline(image: &str, state: Option<Transferred>) -> Self {
        let state = state.unwrap_or(Transferred { done: 0, total: 0, received: 0, bytes_per_second: 0.0 });
        let Transferred { done, total, received, bytes_per_second } = state;
        Self::Deadline { image: image.to_owned(), done, total, received, rate: bytes_per_second as u64 }
    }
}
