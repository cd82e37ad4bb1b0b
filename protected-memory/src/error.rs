//! The crate error, the classes of fault, and the table of stable codes.

use crate::confine::ConfineError;
use crate::dma::DmaError;
use crate::harden::HardenError;
use crate::landing::LandingError;
use crate::secret::SecretError;

/// Who misbehaved. The class alone decides whether a caller retries and how loud it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// A fault of the calling code, never caused by the values of untrusted data.
    Bug,
    /// What the caller or its configuration asked for is not allowed or not possible.
    Config,
    /// The device or its emulator broke the contract.
    DeviceFault,
    /// The operating system or the host withholds what is needed.
    HostFault,
    /// The same call may succeed later.
    Transient,
}

/// Any error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// Setting up or running a confined consumer failed.
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// A DMA buffer could not be made or was used out of its bounds.
    #[error(transparent)]
    Dma(#[from] DmaError),
    /// Hardening the process failed.
    #[error(transparent)]
    Harden(#[from] HardenError),
    /// A landing file failed.
    #[error(transparent)]
    Landing(#[from] LandingError),
    /// Secret pages could not be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl MemoryError {
    /// The stable code, for example `MEM-004`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Confine(error) => error.code(),
            Self::Dma(error) => error.code(),
            Self::Harden(error) => error.code(),
            Self::Landing(error) => error.code(),
            Self::Secret(error) => error.code(),
        }
    }

    /// Who misbehaved.
    pub fn class(&self) -> Class {
        match self {
            Self::Confine(error) => error.class(),
            Self::Dma(error) => error.class(),
            Self::Harden(error) => error.class(),
            Self::Landing(error) => error.class(),
            Self::Secret(error) => error.class(),
        }
    }
}

/// Every code of this crate with its meaning, in order.
pub const CODES: &[(&str, &str)] = &[
    ("MEM-001", "file name is not one safe path component"),
    ("MEM-002", "landing plan is empty, too long, or overflows"),
    ("MEM-003", "no trusted execution environment is active and the insecure choice was not made"),
    ("MEM-004", "not enough memory: needed and available are stated"),
    ("MEM-005", "swap is on, the kernel refused noswap, and the insecure choice was not made"),
    ("MEM-006", "the private tmpfs could not be made or changed"),
    ("MEM-007", "a file or mapping of the landing could not be made or read"),
    ("MEM-008", "no such file in this landing"),
    ("MEM-009", "the file was given to a device, the CPU may not fill it any more"),
    ("MEM-010", "a device or process keeps a writable handle: wiped and refused"),
    ("MEM-011", "a device changed the size of its file: wiped and refused"),
    ("MEM-012", "the superblock is still writable after it was remounted read-only: wiped and refused"),
    ("MEM-013", "the attach target is refused: it does not exist or has a symbolic link in its path"),
    ("MEM-014", "the attached mount is not the one that was made"),
    ("MEM-015", "the memory could not be wiped before its release"),
    ("MEM-020", "secret is empty or longer than the cap"),
    ("MEM-021", "neither memfd_secret nor locked pages could be had"),
    ("MEM-022", "no random bytes from the kernel"),
    ("MEM-040", "no provider of shared memory on this machine"),
    ("MEM-041", "buffer length is zero or above the cap"),
    ("MEM-042", "the DMA memory could not be made"),
    ("MEM-043", "offset and length leave the DMA buffer"),
    ("MEM-044", "offset of a device word is not aligned"),
    ("MEM-060", "threads exist: namespaces are entered by a single-threaded process only"),
    ("MEM-061", "the kernel refuses a user or mount namespace"),
    ("MEM-062", "user and group ids could not be mapped into the namespace"),
    ("MEM-063", "no empty directory to attach at"),
    ("MEM-064", "the attach point could not be made"),
    ("MEM-065", "the consumer command could not be started in its confinement"),
    ("MEM-066", "waiting for the consumer failed"),
    ("MEM-067", "a process could not be confined as a worker"),
    ("MEM-080", "the process could not be hardened"),
    ("MEM-081", "the state of the kernel could not be read"),
];

#[cfg(test)]
mod tests;
