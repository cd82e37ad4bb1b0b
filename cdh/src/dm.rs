//! Device-mapper, by its own interface: devices that verify what is read, and devices that encrypt what is written.
//!
//! ```text
//!  create (a name of ours) ─▶ load (one target) ─▶ resume ─▶ /dev/dm-N, used by nobody else ─▶ remove
//! ```
//! A device that was not handed on is removed again.

mod crypt;
mod integrity;
mod table;
mod verity;

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::io::Errno;

pub use crypt::AUTHENTICATED_KEY_BYTES;
pub use integrity::{
    INTEGRITY_BLOCK_BYTES, IntegrityMode, IntegrityParameters, SUPERBLOCK_BYTES, provided_sectors,
};
use table::{Command, Flags, Message};
pub use verity::{BLOCK_BYTES, VerityParameters};

/// Bytes of a sector, in which device-mapper counts.
pub const SECTOR_BYTES: u64 = 512;
/// Of a name: enough that no two devices share one.
const RANDOM_BYTES: usize = 12;
/// A device that was just in use is tried again before the kernel is told to remove it when it can.
const ATTEMPTS: usize = 10;
const PAUSE: Duration = Duration::from_millis(5);

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DmError {
    /// The kernel has no device-mapper.
    #[error("{path}: the kernel has no device-mapper")]
    Absent {
        /// Where it would be.
        path: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A command.
    #[error("{action} a device of type {target}")]
    Command {
        /// What was tried.
        action: &'static str,
        /// The type.
        target: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A parameter that the target does not have.
    #[error("{target}: {parameter}: expected {expected}")]
    Parameter {
        /// The type.
        target: &'static str,
        /// Which one.
        parameter: &'static str,
        /// Its form.
        expected: &'static str,
    },
}

impl DmError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Absent { .. } => "DM_ABSENT",
            Self::Command { .. } => "DM_COMMAND",
            Self::Parameter { .. } => "DM_PARAMETER",
        }
    }
}

/// Device-mapper of this kernel.
#[derive(Debug)]
pub struct Mapper {
    control: File,
    dev: PathBuf,
}

/// A device. Dropped, it is removed.
#[derive(Debug)]
pub struct Mapped {
    control: Option<File>,
    name: String,
    target: &'static str,
    /// The device file.
    node: PathBuf,
    major: u32,
    minor: u32,
}

/// A disk: its numbers are those of `/sys` and of the node below `/dev` alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    /// The kernel's name.
    pub name: String,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
    /// The device file.
    pub node: PathBuf,
}

/// One target over the whole length of a device.
struct Target {
    kind: &'static str,
    sectors: u64,
    read_only: bool,
    parameters: zeroize::Zeroizing<String>,
}

impl Mapper {
    /// Opens it; `dev` is where `/dev` is.
    ///
    /// # Errors
    /// `DM_ABSENT`.
    pub fn open(dev: &Path) -> Result<Self, DmError> {
        let path = dev.join("mapper/control");
        let control = OpenOptions::new().read(true).write(true).open(&path);
        let control =
            control.map_err(|source| DmError::Absent { path: path.display().to_string(), source })?;
        Ok(Self { control, dev: dev.to_owned() })
    }

    /// A read-only device that gives out a block only if its hash leads to the root hash.
    ///
    /// # Errors
    /// `DM_…`.
    pub fn verity(&self, device: &BlockDevice, parameters: &VerityParameters) -> Result<Mapped, DmError> {
        self.map(&parameters.target(device)?)
    }

    /// A device of so many bytes that is encrypted with a key which exists nowhere else, and ends with the device.
    ///
    /// # Errors
    /// `DM_…`.
    pub fn crypt(&self, device: &BlockDevice, size_bytes: u64) -> Result<Mapped, DmError> {
        self.map(&crypt::target(device, size_bytes)?)
    }

    /// A device with a tag to each block.
    ///
    /// # Errors
    /// `DM_…`.
    pub fn integrity(
        &self,
        device: &BlockDevice,
        parameters: &IntegrityParameters,
    ) -> Result<Mapped, DmError> {
        self.map(&parameters.target(device)?)
    }

    /// A device over one with tags, encrypted and authenticated with a key of 96 bytes; `name` is its name, where the caller chose one.
    ///
    /// # Errors
    /// `DM_…`.
    pub fn authenticated(
        &self,
        device: &BlockDevice,
        sectors: u64,
        key: &[u8],
        read_only: bool,
        chosen: Option<&str>,
    ) -> Result<Mapped, DmError> {
        self.map_named(&crypt::authenticated(device, sectors, key, read_only)?, chosen)
    }

    fn map(&self, target: &Target) -> Result<Mapped, DmError> {
        self.map_named(target, None)
    }

    fn map_named(&self, target: &Target, chosen: Option<&str>) -> Result<Mapped, DmError> {
        let failed = |action| move |source| DmError::Command { action, target: target.kind, source };
        let control = self.control.try_clone().map_err(failed("create"))?;
        let name = match chosen {
            Some(chosen) => chosen.to_owned(),
            None => name(target.kind).map_err(failed("name"))?,
        };
        let mut flags = Flags::EXACT_NUMBER_IS_NOT_GIVEN;
        if target.read_only {
            flags |= Flags::READ_ONLY;
        }
        let mut message = Message::new(Command::Create, &name, flags);
        self.send(&mut message).map_err(failed("create"))?;
        let (major, minor) = message.device();
        let node = self.dev.join(format!("dm-{minor}"));
        // From here on it is removed when something fails.
        let mapped = Mapped { control: Some(control), name, target: target.kind, node, major, minor };
        let mut message = Message::load(&mapped.name, flags | Flags::SECURE_DATA, target);
        self.send(&mut message).map_err(failed("load"))?;
        // Suspending without the flag of suspension is resuming.
        let mut message = Message::new(Command::Suspend, &mapped.name, flags);
        self.send(&mut message).map_err(failed("start"))?;
        Ok(mapped)
    }

    fn send(&self, message: &mut Message) -> io::Result<()> {
        message.send(&self.control)
    }
}

impl Message {
    fn send(&mut self, control: &File) -> io::Result<()> {
        let command = self.command();
        protected_memory::device_mapper::control(control.as_fd(), command, self.bytes())
    }
}

impl Mapped {
    /// The device file.
    #[must_use]
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// As a disk.
    #[must_use]
    pub fn device(&self) -> BlockDevice {
        let name = format!("dm-{}", self.minor);
        BlockDevice { name, major: self.major, minor: self.minor, node: self.node.clone() }
    }

    /// Removes it; while it is still in use, as soon as it no longer is.
    ///
    /// # Errors
    /// `DM_COMMAND`.
    pub fn remove(mut self) -> Result<(), DmError> {
        self.take_off()
    }

    /// Removes it at once, where [`Mapped::remove`] leaves it to the kernel if somebody still has it open.
    ///
    /// # Errors
    /// `DM_COMMAND`; it stays.
    pub fn remove_now(&mut self) -> Result<(), DmError> {
        let Some(control) = &self.control else { return Ok(()) };
        let mut tries = 0;
        loop {
            match Message::new(Command::Remove, &self.name, Flags::NONE).send(control) {
                Ok(()) => break,
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => break,
                Err(error) if tries < ATTEMPTS && Errno::from_io_error(&error) == Some(Errno::BUSY) => {
                    tries += 1;
                    sleep(PAUSE);
                }
                Err(source) => {
                    return Err(DmError::Command { action: "remove", target: self.target, source });
                }
            }
        }
        self.control = None;
        Ok(())
    }

    fn take_off(&mut self) -> Result<(), DmError> {
        let Some(control) = self.control.take() else { return Ok(()) };
        for attempt in 0..=ATTEMPTS {
            let last = if attempt == ATTEMPTS { Flags::DEFERRED_REMOVE } else { Flags::NONE };
            match Message::new(Command::Remove, &self.name, last).send(&control) {
                Ok(()) => return Ok(()),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::NXIO) => return Ok(()),
                    Some(Errno::BUSY) if attempt < ATTEMPTS => sleep(PAUSE),
                    _ => {
                        return Err(DmError::Command {
                            action: "remove",
                            target: self.target,
                            source: error,
                        });
                    }
                },
            }
        }
        Ok(())
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = self.take_off();
    }
}

/// A name that no other device has.
fn name(kind: &str) -> io::Result<String> {
    let mut random = [0; RANDOM_BYTES];
    random_bytes(&mut random)?;
    let mut name = format!("innerkeep-{kind}-");
    for byte in random {
        // Writing to a string does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    Ok(name)
}

/// From the kernel, all of them.
///
/// # Errors
/// The kernel's.
pub fn random_bytes(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
