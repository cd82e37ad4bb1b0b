//! Why there is no storage.

use std::io;

use protocol::status::RpcError;
use rustix::io::Errno;

use crate::dm::DmError;
use crate::hotplug::HotplugError;

/// An error of storages. Texts name what the host asked for, never what is in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Something that upstream has another process for, which is not there.
    #[error("{what}: nobody serves it in this guest")]
    CdhAbsent {
        /// What the host asked for.
        what: &'static str,
    },
    /// One mount point, and another storage than the one that is there.
    #[error("{place}: expected the {field} of the storage that is mounted there, found another one")]
    Conflict {
        /// The mount point.
        place: String,
        /// What differs.
        field: &'static str,
    },
    /// A device below a mount point that is another's.
    #[error("device {device} is in use by {user}")]
    DeviceTaken {
        /// The device.
        device: String,
        /// Who has it.
        user: String,
    },
    /// Device-mapper.
    #[error("device-mapper")]
    Dm(#[from] DmError),
    /// No such driver.
    #[error("driver {driver}: there is none")]
    Driver {
        /// Its name.
        driver: String,
    },
    /// A file system that this driver does not mount.
    #[error("{driver}: expected one of {expected}, found another type of file system")]
    FileSystem {
        /// The driver.
        driver: &'static str,
        /// The types.
        expected: &'static str,
    },
    /// The device did not come.
    #[error(transparent)]
    Hotplug(#[from] HotplugError),
    /// More huge pages than there are.
    #[error("huge pages: expected {expected}, the kernel gave {found}")]
    HugePages {
        /// Pages that were asked for.
        expected: u64,
        /// Pages that there are.
        found: u64,
    },
    /// A program of the guest that makes file systems.
    #[error("{program}: {reason}")]
    Helper {
        /// The program.
        program: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// An image that this guest does not pull, or not so.
    #[error("image: {text}")]
    Image {
        /// The stable code: of the hub's part that refused, or of the request.
        code: &'static str,
        /// Why.
        text: String,
    },
    /// An overlay of layers.
    #[error("layers")]
    Layered(#[from] cdh::composefs::ComposefsError),
    /// Storages that are no root together.
    #[error("layers: expected {expected}")]
    Layers {
        /// What they have to be.
        expected: &'static str,
    },
    /// A mount, or what goes with it.
    #[error("{action} {place}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        place: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// An option that is none, or not this driver's.
    #[error("option {option}: expected {expected}")]
    Option {
        /// The option's name.
        option: String,
        /// Its form.
        expected: &'static str,
    },
    /// A task that ended before its end.
    #[error("a step of a storage panicked")]
    Panicked,
    /// A place where nothing may be mounted, or nothing be taken from.
    #[error("{place}: {reason}")]
    Place {
        /// The place, as the host named it.
        place: String,
        /// Why not.
        reason: &'static str,
    },
    /// What was done could not be undone.
    #[error("{cause}, and could not be undone")]
    Rollback {
        /// What began it.
        cause: Box<StorageError>,
        /// What stands in the way.
        #[source]
        source: Box<StorageError>,
    },
    /// An encrypted device.
    #[error(transparent)]
    Volume(#[from] cdh::volume::VolumeError),
    /// A verified device with other parameters than dm-verity has here.
    #[error("verity {field}: expected {expected}")]
    Verity {
        /// Which parameter.
        field: &'static str,
        /// Its form.
        expected: &'static str,
    },
    /// UpdateEphemeralMounts takes one driver only.
    #[error("driver {driver}: expected ephemeral")]
    NotEphemeral {
        /// What came.
        driver: String,
    },
}

impl StorageError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::CdhAbsent { .. } => "CDH_ABSENT",
            Self::Conflict { .. } => "STORAGE_CONFLICT",
            Self::DeviceTaken { .. } => "STORAGE_DEVICE_TAKEN",
            Self::Dm(error) => error.code(),
            Self::Driver { .. } => "STORAGE_DRIVER",
            Self::FileSystem { .. } => "STORAGE_FILE_SYSTEM",
            Self::Helper { .. } => "STORAGE_HELPER",
            Self::Hotplug(error) => error.code(),
            Self::HugePages { .. } => "STORAGE_HUGE_PAGES",
            Self::Image { code, .. } => code,
            Self::Layered(error) => error.code(),
            Self::Layers { .. } => "STORAGE_LAYERS",
            Self::Io { .. } => "STORAGE_IO",
            Self::NotEphemeral { .. } => "STORAGE_NOT_EPHEMERAL",
            Self::Option { .. } => "STORAGE_OPTION",
            Self::Panicked => "STORAGE_PANICKED",
            Self::Place { .. } => "STORAGE_PLACE",
            Self::Rollback { .. } => "STORAGE_ROLLBACK",
            Self::Verity { .. } => "STORAGE_VERITY",
            Self::Volume(error) => error.code(),
        }
    }

    /// Whether something is left of what failed: the container's id then stays a tombstone.
    #[must_use]
    pub const fn leaves_traces(&self) -> bool {
        matches!(self, Self::Rollback { .. } | Self::Panicked)
    }

    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        place: &std::path::Path,
    ) -> impl FnOnce(E) -> Self + use<E> {
        let place = place.display().to_string();
        move |source| Self::Io { action, place, source: source.into() }
    }

    pub(crate) fn errno(action: &'static str, place: &std::path::Path) -> impl FnOnce(Errno) -> Self + use<> {
        Self::io(action, place)
    }
}

impl From<StorageError> for RpcError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Hotplug(error) => error.into(),
            StorageError::Driver { driver } => Self::NoStorageDriver(driver),
            StorageError::NotEphemeral { driver } => Self::NotEphemeral(driver),
            absent @ StorageError::CdhAbsent { .. } => Self::Precondition(absent.code(), absent.to_string()),
            other => Self::Failed(other.code(), crate::error::chain(&other)),
        }
    }
}
