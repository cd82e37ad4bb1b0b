//! Which device holds initdata, and whether there has to be one.
//!
//! | register | device | outcome |
//! |---|---|---|
//! | not zero | one, within [`DEVICE_DEADLINE`] | read once, bound, parsed |
//! | not zero | none in time | `INITDATA_WITHHELD` |
//! | zero | none at one look | no initdata |
//! | zero | one | `INITDATA_UNBOUND` |
//! | no register | none at one look | no initdata |
//! | no register | one | `INITDATA_NO_REGISTER`; outside a TEE taken, when that was asked for by name |
//! | any | two | `INITDATA_AMBIGUOUS` |

use std::fmt;
use std::io;
use std::time::Duration;

use crate::container::{Device, Header};
use crate::error::InitdataError;
use crate::register::Register;
use crate::unverified::{Initdata, Unverified};

/// How long a guest that was launched with initdata waits for the device.
pub const DEVICE_DEADLINE: Duration = Duration::from_secs(10);
/// Devices are looked at again at least this often, whatever is announced.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Most devices that are looked at.
const MAXIMUM_DEVICES: usize = 1024;
/// Longest name of a device, in bytes.
const MAXIMUM_NAME_BYTES: usize = 16;

/// The name of a whole virtio or SCSI disk: `vd` or `sd` and lower-case letters. Partitions have digits and are none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName(String);

impl DeviceName {
    /// The name, `None` for a file that cannot be such a disk.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let letters = name.strip_prefix("vd").or_else(|| name.strip_prefix("sd"))?;
        let whole = !letters.is_empty() && letters.bytes().all(|byte| byte.is_ascii_lowercase());
        (whole && name.len() <= MAXIMUM_NAME_BYTES).then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The devices of a machine.
pub trait Devices {
    /// An open device.
    type Device: Device;

    /// The disks that are there now.
    ///
    /// # Errors
    /// Those of the directory of devices.
    fn list(&mut self) -> io::Result<Vec<DeviceName>>;

    /// Opens one for reading.
    ///
    /// # Errors
    /// Those of the device.
    fn open(&mut self, name: &DeviceName) -> io::Result<Self::Device>;
}

/// Time, and news about devices. Has to listen for news before it is handed over, so that none is missed.
pub trait Waiter {
    /// Time since the search began.
    fn elapsed(&self) -> Duration;

    /// Waits until the devices may have changed, at most so long.
    ///
    /// # Errors
    /// Those of waiting.
    fn wait(&mut self, at_most: Duration) -> io::Result<()>;
}

/// What vouches for initdata on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platform {
    /// A TEE with a register for it.
    Register(Register),
    /// A TEE without one.
    WithoutRegister {
        /// Its name.
        name: String,
    },
    /// No TEE.
    NoTee {
        /// Initdata is taken although nothing vouches for it: an insecure mode, asked for by name.
        insecure_unbound: bool,
    },
}

/// A device that offers initdata, and its header as it was read the one time.
struct Found<D> {
    name: DeviceName,
    device: D,
    header: Header,
}

/// One look at all devices.
struct Look<D> {
    found: Option<Found<D>>,
    /// Devices that could not be read, for the error.
    unreadable: String,
}

/// Finds initdata, reads it once, and takes it if the platform vouches for it; `None` where the guest was launched without
/// and none is offered.
///
/// # Errors
/// See the table of this module, [`Unverified::bind`] and [`Header::read_text`].
pub fn obtain<D: Devices>(
    devices: &mut D,
    waiter: &mut impl Waiter,
    platform: &Platform,
) -> Result<Option<Initdata>, InitdataError> {
    match platform {
        Platform::Register(register) if !register.is_zero() => {
            let found = wait_for(devices, waiter, register)?;
            found.read()?.bind(register).map(Some)
        }
        Platform::Register(register) => {
            let found = look(devices)?.found;
            // GUARD: initdata-unbound -> evil_host_adds_initdata
            if let Some(found) = &found {
                return Err(InitdataError::Unbound {
                    register: register.name().to_owned(),
                    device: found.name.to_string(),
                });
            }
            Ok(None)
        }
        Platform::WithoutRegister { name } => without_register(devices, name, false),
        Platform::NoTee { insecure_unbound } => without_register(devices, "no TEE", *insecure_unbound),
    }
}

fn without_register<D: Devices>(
    devices: &mut D,
    platform: &str,
    insecure_unbound: bool,
) -> Result<Option<Initdata>, InitdataError> {
    let Some(found) = look(devices)?.found else { return Ok(None) };
    // GUARD: initdata-no-register -> evil_host_initdata_that_nothing_vouches_for
    if !insecure_unbound {
        return Err(InitdataError::NoRegister { platform: platform.to_owned() });
    }
    found.read()?.insecure_unbound().map(Some)
}

/// Looks until there is a device or the time is over. A host that announces changes without end cannot prolong it.
fn wait_for<D: Devices>(
    devices: &mut D,
    waiter: &mut impl Waiter,
    register: &Register,
) -> Result<Found<D::Device>, InitdataError> {
    loop {
        let Look { found, unreadable } = look(devices)?;
        if let Some(found) = found {
            return Ok(found);
        }
        let left = DEVICE_DEADLINE.saturating_sub(waiter.elapsed());
        // GUARD: initdata-withheld-device -> evil_host_withholds_the_device
        if left.is_zero() {
            return Err(InitdataError::Withheld {
                register: register.name().to_owned(),
                found: hex::encode(register.value()),
                unreadable,
            });
        }
        waiter
            .wait(left.min(LOOK_AGAIN))
            .map_err(|source| InitdataError::Io { purpose: "wait for devices".to_owned(), source })?;
    }
}

/// Reads the header of every disk, each once. A disk that cannot be read is as one that is not there: the host could also
/// have left it out.
fn look<D: Devices>(devices: &mut D) -> Result<Look<D::Device>, InitdataError> {
    let names = devices
        .list()
        .map_err(|source| InitdataError::Io { purpose: "list the devices".to_owned(), source })?;
    // GUARD: initdata-device-count -> evil_host_many_devices
    if names.len() > MAXIMUM_DEVICES {
        return Err(InitdataError::too_large("devices", MAXIMUM_DEVICES, names.len()));
    }
    let mut look = Look { found: None, unreadable: String::new() };
    for name in names {
        let read = devices.open(&name).and_then(|device| Ok((Header::read(&device)?, device)));
        match read {
            Ok((Some(header), device)) => {
                // GUARD: initdata-one-device -> evil_host_two_devices
                if let Some(first) = &look.found {
                    return Err(InitdataError::Ambiguous {
                        first: first.name.to_string(),
                        second: name.to_string(),
                    });
                }
                look.found = Some(Found { name, device, header });
            }
            Ok((None, _)) => {}
            Err(error) => look.unreadable = format!("; {name} could not be read: {error}"),
        }
    }
    Ok(look)
}

impl<D: Device> Found<D> {
    fn read(&self) -> Result<Unverified, InitdataError> {
        self.header.read_text(&self.device)
    }
}

#[cfg(test)]
mod tests;
