//! What can go wrong with a DMA buffer.

use std::io;

use crate::Class;

/// An error of a DMA buffer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DmaError {
    /// A length that is zero or above the cap.
    #[error("DMA buffer of {len} bytes refused: expected 1 to {max}")]
    Length {
        /// The length asked for, in bytes.
        len: usize,
        /// The cap in bytes.
        max: usize,
    },
    /// The machine has no such memory.
    #[error("no provider of shared memory: {provider} is not available on this machine")]
    NoProvider {
        /// The provider asked for.
        provider: &'static str,
    },
    /// A range that leaves the buffer.
    #[error("range of {len} bytes at offset {offset} leaves the DMA buffer of {size} bytes")]
    OutOfBounds {
        /// Offset in bytes.
        offset: usize,
        /// Length of the range in bytes.
        len: usize,
        /// Size of the buffer in bytes.
        size: usize,
    },
    /// The memory could not be made.
    #[error("DMA buffer: {purpose} failed")]
    System {
        /// What was being done.
        purpose: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A word at an offset that is not a multiple of its size.
    #[error("device word at offset {offset} is not aligned: expected a multiple of {expected}")]
    Unaligned {
        /// Offset in bytes.
        offset: usize,
        /// The size of the word in bytes.
        expected: usize,
    },
}

impl DmaError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoProvider { .. } => "MEM-040",
            Self::Length { .. } => "MEM-041",
            Self::System { .. } => "MEM-042",
            Self::OutOfBounds { .. } => "MEM-043",
            Self::Unaligned { .. } => "MEM-044",
        }
    }

    /// Who misbehaved.
    pub fn class(&self) -> Class {
        match self {
            Self::NoProvider { .. } => Class::Config,
            Self::Length { .. } | Self::OutOfBounds { .. } | Self::Unaligned { .. } => Class::Bug,
            Self::System { .. } => Class::HostFault,
        }
    }

    pub(crate) fn system<E: Into<io::Error>>(purpose: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { purpose, source: source.into() }
    }
}
