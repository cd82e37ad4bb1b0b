//! What can go wrong with a secret.

use std::io;

use crate::Class;

/// An error of secret pages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// A length that is zero or above the cap.
    #[error("secret of {len} bytes refused: expected 1 to {max}")]
    Length {
        /// The length asked for, in bytes.
        len: usize,
        /// The cap in bytes.
        max: usize,
    },
    /// Neither secret memory nor locked pages.
    #[error(
        "no pages for a secret: the kernel has no memfd_secret and refuses to lock memory; expected a higher limit"
    )]
    NoPages {
        /// The error of the operating system.
        source: io::Error,
    },
    /// The kernel gave no random bytes.
    #[error("no random bytes from the kernel")]
    NoRandom {
        /// The error of the operating system.
        source: io::Error,
    },
}

impl SecretError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Length { .. } => "MEM-020",
            Self::NoPages { .. } => "MEM-021",
            Self::NoRandom { .. } => "MEM-022",
        }
    }

    /// Who misbehaved.
    pub fn class(&self) -> Class {
        match self {
            Self::Length { .. } => Class::Bug,
            Self::NoPages { .. } | Self::NoRandom { .. } => Class::HostFault,
        }
    }
}
