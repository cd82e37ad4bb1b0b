//! Devices that the host plugs in for a container: they get the numbers that they have in this guest.
//!
//! ```text
//!  Device of the wire ─▶ handler by type ─▶ waited for ─▶ is it one that no container gets?
//!    ─▶ the device of the same path in the specification ─▶ major and minor of the guest, and a rule of the device group, `rwm`
//! ```

mod pci;
mod spec;

use std::collections::BTreeSet;

use chip_client::abi::{DEVICE_ID, VENDOR_ID};
use protocol::agent::Device;
use protocol::oci::Spec;
use protocol::status::RpcError;

use crate::hotplug::{BlockDevice, BlockName, Hotplug, HotplugError, PciDevice, PciPath, ScsiAddress, sysfs};
use crate::storage::Storages;

/// The device that stands for the store of images: a disk that the agent encrypts, and that no container gets.
pub(crate) const TRUSTED_STORE: &str = "/dev/trusted_store";

/// Why a container does not get a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Two devices for one path.
    #[error("device {path}: named twice")]
    Twice {
        /// The path in the container.
        path: String,
    },
    /// A device that no container gets.
    #[error("device {what}: {reason}")]
    Floor {
        /// Which one.
        what: String,
        /// Why not.
        reason: &'static str,
    },
    /// A device without its members.
    #[error("device: expected {expected}")]
    Form {
        /// What has to be there.
        expected: &'static str,
    },
    /// It did not come.
    #[error(transparent)]
    Hotplug(#[from] HotplugError),
    /// A kind that is not handled.
    #[error("device type {kind}: nobody handles it")]
    Kind {
        /// The type.
        kind: String,
    },
    /// The specification has no device of this path. The text has what upstream's has.
    #[error("Missing devices in OCI spec: {path}")]
    Missing {
        /// The path in the container.
        path: String,
    },
    /// Something else uses it.
    #[error("device {what}: in use by {user}")]
    Taken {
        /// Which one.
        what: String,
        /// Who has it.
        user: String,
    },
}

impl DeviceError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Twice { .. } => "DEVICE_TWICE",
            Self::Floor { .. } => "DEVICE_FLOOR",
            Self::Form { .. } => "DEVICE_FORM",
            Self::Hotplug(error) => error.code(),
            Self::Kind { .. } => "DEVICE_KIND",
            Self::Missing { .. } => "DEVICE_MISSING",
            Self::Taken { .. } => "DEVICE_TAKEN",
        }
    }
}

impl From<DeviceError> for RpcError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Hotplug(error) => error.into(),
            DeviceError::Kind { kind } => Self::NoDeviceDriver(kind),
            other => Self::Failed(other.code(), crate::error::chain(&other)),
        }
    }
}

/// Waits for the devices and writes their numbers into the specification: all of them, or none.
///
/// # Errors
/// `DEVICE_…`, `HOTPLUG_…`; the specification is as before then.
pub async fn apply(
    devices: &[Device],
    specification: &mut Spec,
    hotplug: &Hotplug,
    storages: &Storages,
) -> Result<(), DeviceError> {
    let mut found = spec::Updates::default();
    let mut paths = BTreeSet::new();
    for device in devices {
        check(device)?;
        let path = device.container_path.as_str();
        if !paths.insert(path) {
            return Err(DeviceError::Twice { path: path.to_owned() });
        }
        match device.type_.as_str() {
            "blk" => found.block(path, block_by_pci(device, hotplug).await?),
            "mmioblk" => found.block(path, named(device, "vd", "/dev/vd and letters", hotplug).await?),
            "nvdimm" => found.block(path, named(device, "pmem", "/dev/pmem and a number", hotplug).await?),
            "scsi" => {
                found.block(path, hotplug.block_by_scsi(&ScsiAddress::parse(&device.id)?).await?);
            }
            "vfio-pci-gk" => found.addresses(pci::addresses(device, hotplug).await?),
            // A group of VFIO is a device of the floor: whoever has it reaches all memory that the device reaches.
            "vfio-pci" | "vfio" => {
                return Err(DeviceError::Floor {
                    what: path.to_owned(),
                    reason: "no container is given a group of VFIO",
                });
            }
            other => return Err(DeviceError::Kind { kind: other.to_owned() }),
        }
    }
    for (path, disk) in found.disks() {
        // Who asks for the store that is there joins it, and gets no disk.
        if path == TRUSTED_STORE && storages.is_store(disk) {
            continue;
        }
        refuse_in_use(disk, hotplug, storages)?;
    }
    found.write(specification)
}

fn check(device: &Device) -> Result<(), DeviceError> {
    let has_place = !device.id.is_empty() || !device.vm_path.is_empty();
    if has_place && !device.type_.is_empty() && !device.container_path.is_empty() {
        return Ok(());
    }
    Err(DeviceError::Form { expected: "a type, a path in the container, and an id or a path in the guest" })
}

async fn block_by_pci(device: &Device, hotplug: &Hotplug) -> Result<BlockDevice, DeviceError> {
    Ok(hotplug.block_by_pci(&PciPath::parse(&device.id)?).await?)
}

async fn named(
    device: &Device,
    prefix: &str,
    expected: &'static str,
    hotplug: &Hotplug,
) -> Result<BlockDevice, DeviceError> {
    let name = BlockName::of_node_with(&device.vm_path, prefix, expected)?;
    Ok(hotplug.block_by_name(&name).await?)
}

/// A disk that is mounted, swapped to, or below a device of device-mapper is not a container's to write.
fn refuse_in_use(disk: &BlockDevice, hotplug: &Hotplug, storages: &Storages) -> Result<(), DeviceError> {
    let holders = sysfs::names(&hotplug.sys().join("class/block").join(&disk.name).join("holders"))?;
    let user = storages.claims().user(disk).or_else(|| holders.into_iter().next());
    // GUARD: device-not-in-use -> evil_host_gives_a_container_the_disk_of_a_storage
    if let Some(user) = user {
        return Err(DeviceError::Taken { what: disk.name.clone(), user });
    }
    Ok(())
}

/// A chip answers whoever holds it: it is the guest's own, whenever it came.
fn refuse_chip(device: &PciDevice) -> Result<(), DeviceError> {
    let numbers = (device.number("vendor")?, device.number("device")?);
    // GUARD: chip-is-the-guests -> evil_host_hot_adds_a_chip
    if numbers == (u32::from(VENDOR_ID), u32::from(DEVICE_ID)) {
        return Err(DeviceError::Floor {
            what: device.address.clone(),
            reason: "no container is given a sealing chip",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
