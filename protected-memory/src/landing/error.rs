//! What can go wrong with a landing.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::InsecureChoice;
use crate::Class;

/// An error of a landing. Whatever had landed is wiped by the time a caller sees it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LandingError {
    /// After the attach, the mount table does not show the mount that was made.
    #[error("attached mount at {} is not ours: expected {expected}, found {found}", path.display())]
    AttachNotOurs {
        /// The mount point.
        path: PathBuf,
        /// What had to be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A device changed the size of a file that it was to fill.
    #[error(
        "device changed the size of {name:?}: expected {expected} bytes, found {found}; wiped and refused"
    )]
    DeviceChangedSize {
        /// The file.
        name: String,
        /// Planned size in bytes.
        expected: u64,
        /// Size found in bytes.
        found: u64,
    },
    /// A device, or any other process, still holds a writable descriptor or mapping.
    #[error(
        "a device or process still has a writable handle on the landing: expected none; wiped and refused"
    )]
    DeviceKeepsMemory,
    /// The file was given to a device; two writers are not allowed.
    #[error("file {name:?} was given to a device: expected only one kind of writer")]
    FileGivenToDevice {
        /// The file.
        name: String,
    },
    /// A file name that could leave its directory, or that no file system takes.
    #[error("file name refused: {reason}; expected one path component of at most 255 bytes")]
    InvalidName {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The list of files makes no sense.
    #[error("landing plan refused: {reason}")]
    InvalidPlan {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The private tmpfs could not be made or changed.
    #[error("private tmpfs: {step} failed")]
    Mount {
        /// The step that failed.
        step: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// No trusted execution environment is active, or only an emulated one.
    #[error("{needed}: expected an active one, or {}", needed.flag())]
    NoActiveTee {
        /// The choice that was not made.
        needed: InsecureChoice,
    },
    /// The artifact does not fit.
    #[error("not enough memory: needs {}, has {}", Size(*needed), Size(*available))]
    NotEnoughMemory {
        /// Bytes that the landing takes.
        needed: u64,
        /// Bytes that this process may still use.
        available: u64,
    },
    /// The remount reported success, yet a file could be opened for writing.
    #[error("superblock is writable after it was remounted read-only: expected a refusal; wiped and refused")]
    SuperblockWritable,
    /// Pages could be written to swap.
    #[error(
        "swap is on ({areas} areas) and the kernel refused noswap: expected no swap, or the explicit insecure choice"
    )]
    SwapOn {
        /// Number of active swap areas.
        areas: usize,
    },
    /// A file operation failed.
    #[error("{purpose} failed")]
    System {
        /// What was being done.
        purpose: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The attach target does not exist, is no directory, or has a symbolic link in its path.
    #[error("attach target {} refused: expected an existing directory without symbolic links", path.display())]
    TargetRefused {
        /// The target.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The landing has no file with this index.
    #[error("no file {index} in this landing: expected less than {count}")]
    UnknownFile {
        /// The index asked for.
        index: usize,
        /// The number of files.
        count: usize,
    },
    /// The contents could not be overwritten before the memory was released.
    #[error("landing could not be wiped before its release: {step} failed")]
    WipeFailed {
        /// The step that failed.
        step: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl LandingError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidName { .. } => "MEM-001",
            Self::InvalidPlan { .. } => "MEM-002",
            Self::NoActiveTee { .. } => "MEM-003",
            Self::NotEnoughMemory { .. } => "MEM-004",
            Self::SwapOn { .. } => "MEM-005",
            Self::Mount { .. } => "MEM-006",
            Self::System { .. } => "MEM-007",
            Self::UnknownFile { .. } => "MEM-008",
            Self::FileGivenToDevice { .. } => "MEM-009",
            Self::DeviceKeepsMemory => "MEM-010",
            Self::DeviceChangedSize { .. } => "MEM-011",
            Self::SuperblockWritable => "MEM-012",
            Self::TargetRefused { .. } => "MEM-013",
            Self::AttachNotOurs { .. } => "MEM-014",
            Self::WipeFailed { .. } => "MEM-015",
        }
    }

    /// Who misbehaved.
    pub fn class(&self) -> Class {
        match self {
            Self::DeviceChangedSize { .. } | Self::DeviceKeepsMemory => Class::DeviceFault,
            Self::FileGivenToDevice { .. } | Self::UnknownFile { .. } => Class::Bug,
            Self::InvalidName { .. }
            | Self::InvalidPlan { .. }
            | Self::NoActiveTee { .. }
            | Self::SwapOn { .. }
            | Self::TargetRefused { .. } => Class::Config,
            Self::NotEnoughMemory { .. } => Class::Transient,
            Self::AttachNotOurs { .. }
            | Self::Mount { .. }
            | Self::SuperblockWritable
            | Self::System { .. }
            | Self::WipeFailed { .. } => Class::HostFault,
        }
    }

    pub(crate) fn system<E: Into<io::Error>>(purpose: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { purpose, source: source.into() }
    }

    pub(crate) fn mount<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Mount { step, source: source.into() }
    }

    pub(crate) fn wipe<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::WipeFailed { step, source: source.into() }
    }
}

/// A size in the largest binary unit that leaves something before the point.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = match self.0 {
            0x4000_0000.. => ("GiB", 30),
            0x10_0000.. => ("MiB", 20),
            0x400.. => ("KiB", 10),
            bytes => return write!(f, "{bytes} bytes"),
        };
        let whole = self.0 >> shift;
        let tenth = ((self.0 & ((1 << shift) - 1)) * 10) >> shift;
        write!(f, "{whole}.{tenth} {unit}")
    }
}
