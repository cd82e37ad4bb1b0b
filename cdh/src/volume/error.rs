//! Why there is no volume.

use std::io;
use std::path::Path;

use crate::Class;
use crate::dm::DmError;

/// An error of volumes. Nothing secret is in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// Another device than was asked for, or none.
    #[error("volume: device: expected {expected}")]
    Device {
        /// Its form.
        expected: &'static str,
    },
    /// A device that somebody else has.
    #[error("volume: device {device} is in use by {user}")]
    DeviceTaken {
        /// The device.
        device: String,
        /// Who has it.
        user: String,
    },
    /// Device-mapper.
    #[error("volume: device-mapper")]
    Dm(#[from] DmError),
    /// There is a volume already where a new one was to be made.
    #[error("volume: expected a device without a volume of this key, found one")]
    Exists,
    /// A header that nobody with the key has written in this form.
    #[error(
        "volume: the header on the device is not one that a holder of the key wrote, or was changed since"
    )]
    HeaderAuthentication,
    /// A header of a holder of the key, and not one that is opened here.
    #[error("volume: header: {field}: expected {expected}")]
    HeaderProfile {
        /// Which field.
        field: &'static str,
        /// Its value.
        expected: &'static str,
    },
    /// The program that makes file systems.
    #[error("volume: {program}: {reason}")]
    Helper {
        /// The program.
        program: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A volume that somebody opened to write, and did not close.
    #[error(
        "volume: expected one that was closed, found one that another guest writes, or wrote when it ended; \
         bound cdh.toml may list its key as innerkeep.volumes.unclean"
    )]
    InUse,
    /// A system call.
    #[error("volume: {action} {place}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        place: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A key that does not protect.
    #[error("volume: key: expected {expected}")]
    Key {
        /// Its form.
        expected: &'static str,
    },
    /// A kind of volume, of source or of encryption that is not served.
    #[error("volume: {what} is not served: expected {expected}")]
    NotServed {
        /// What was asked for.
        what: &'static str,
        /// What there is.
        expected: &'static str,
    },
    /// An option without the form of one.
    #[error("volume: option {option}: expected {expected}")]
    Option {
        /// Its name, shortened and escaped.
        option: String,
        /// Its form.
        expected: &'static str,
    },
    /// A place where nothing may be mounted.
    #[error("volume: mount point: expected {expected}")]
    Place {
        /// Its form.
        expected: &'static str,
    },
    /// What was done could not be undone.
    #[error("volume: {cause}, and could not be undone")]
    Rollback {
        /// What began it.
        cause: Box<VolumeError>,
        /// What stands in the way.
        #[source]
        source: Box<VolumeError>,
    },
    /// A device without room.
    #[error("volume: expected a device of at least {least} bytes, found {found}")]
    Size {
        /// The least.
        least: u64,
        /// What was found.
        found: u64,
    },
    /// The time is over.
    #[error("volume: the time of the request was over before it was mounted")]
    Timeout,
    /// A key from outside is for reading, unless its operator said more.
    #[error(
        "volume: a key that others may have opens read-only: expected it in innerkeep.volumes.writable of bound cdh.toml, found it not \
         listed; two guests that write one volume destroy it"
    )]
    WriteNotBound,
}

impl VolumeError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Device { .. } => "VOLUME_DEVICE",
            Self::DeviceTaken { .. } => "VOLUME_DEVICE_TAKEN",
            Self::Dm(error) => error.code(),
            Self::Exists => "VOLUME_EXISTS",
            Self::HeaderAuthentication => "VOLUME_HEADER_AUTHENTICATION",
            Self::HeaderProfile { .. } => "VOLUME_HEADER_PROFILE",
            Self::Helper { .. } => "VOLUME_HELPER",
            Self::InUse => "VOLUME_IN_USE",
            Self::Io { .. } => "VOLUME_IO",
            Self::Key { .. } => "VOLUME_KEY",
            Self::NotServed { .. } => "VOLUME_NOT_SERVED",
            Self::Option { .. } => "VOLUME_OPTION",
            Self::Place { .. } => "VOLUME_PLACE",
            Self::Rollback { .. } => "VOLUME_ROLLBACK",
            Self::Size { .. } => "VOLUME_SIZE",
            Self::Timeout => "VOLUME_TIMEOUT",
            Self::WriteNotBound => "VOLUME_WRITE_NOT_BOUND",
        }
    }

    /// Whose fault.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::HeaderAuthentication | Self::HeaderProfile { .. } | Self::Size { .. } => Class::Artifact,
            Self::InUse | Self::WriteNotBound | Self::Exists => Class::Refused,
            Self::Dm(_) | Self::Helper { .. } | Self::Key { .. } | Self::NotServed { .. } => Class::Config,
            Self::DeviceTaken { .. } | Self::Timeout => Class::Transient,
            Self::Io { .. } | Self::Rollback { .. } => Class::Io,
            Self::Device { .. } | Self::Option { .. } | Self::Place { .. } => Class::Usage,
        }
    }

    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        place: &Path,
    ) -> impl FnOnce(E) -> Self + use<E> {
        let place = place.display().to_string();
        move |source| Self::Io { action, place, source: source.into() }
    }
}
