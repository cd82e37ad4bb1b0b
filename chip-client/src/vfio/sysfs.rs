//! What the kernel's tree says about a device, before anything of it is opened.
//!
//! Parameters and bindings can come from a kernel command line that the host wrote, so what would weaken the IOMMU is
//! looked for and refused.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::{PciAddress, VfioError};
use crate::abi::{DEVICE_ID, VENDOR_ID};
use crate::error::{ChipError, DeviceError};

const VFIO_PCI: &str = "vfio-pci";
/// Drivers of bridges do no DMA of their own.
const HARMLESS: [&str; 2] = [VFIO_PCI, "pcieport"];
/// Most devices of a group that are looked at.
const GROUP_MAX: usize = 256;
/// Most chips of a machine.
const CHIPS_MAX: usize = 16;
/// Longest file of sysfs that is read.
const TEXT_MAX: u64 = 256;

/// The tree of a machine: `/`, or a directory that stands for it in a test.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree<'a> {
    root: &'a Path,
}

/// An IOMMU group in which a device may be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group(pub(super) u32);

impl<'a> Tree<'a> {
    pub(super) fn new(root: &'a Path) -> Self {
        Self { root }
    }

    /// A path below the root.
    pub(super) fn path(self, below: impl AsRef<Path>) -> PathBuf {
        self.root.join(below)
    }

    /// The group of a device, if the device is bound to vfio-pci, behind an IOMMU that isolates it, with nobody else's
    /// device in its group.
    pub(super) fn group_of(self, address: PciAddress) -> Result<Group, VfioError> {
        let device = self.path(format!("sys/bus/pci/devices/{address}"));
        if !exists(&device)? {
            return Err(VfioError::NoDevice { address });
        }
        let number = link_name(&device.join("iommu_group"))?.and_then(|name| name.parse().ok());
        let group = Group(number.ok_or(VfioError::NoIommu { address })?);
        self.refuse_no_iommu_mode(address, group)?;
        // GUARD: vfio-unsafe-interrupts -> evil_host_allows_unsafe_interrupts
        self.refuse_unsafe_interrupts(false)?;
        let found = link_name(&device.join("driver"))?.unwrap_or_else(|| "none".to_owned());
        // GUARD: vfio-bound -> a_device_of_another_driver_is_refused
        if found != VFIO_PCI {
            return Err(VfioError::NotBound { address, found });
        }
        self.refuse_company(address, group)?;
        Ok(group)
    }

    /// Has vfio-pci take a chip that no driver has. What says that it is one is not authenticated: it keeps operators from mistakes.
    pub(super) fn bind(self, address: PciAddress) -> Result<(), ChipError> {
        let device = self.path(format!("sys/bus/pci/devices/{address}"));
        if !exists(&device)? {
            return Err(VfioError::NoDevice { address }.into());
        }
        for (what, expected) in [("vendor", VENDOR_ID), ("device", DEVICE_ID)] {
            let found = read(&device.join(what))?.unwrap_or_default();
            let found = found.strip_prefix("0x").and_then(|id| u16::from_str_radix(id, 16).ok());
            let (expected, found) = (expected.into(), found.map_or(u64::MAX, u64::from));
            // GUARD: vfio-bind-chips-only -> nothing_but_a_chip_is_bound
            if found != expected {
                return Err(DeviceError::NotAChip { what, expected, found }.into());
            }
        }
        if link_name(&device.join("driver"))?.is_none() {
            write(&device.join("driver_override"), VFIO_PCI)?;
            write(&self.path("sys/bus/pci/drivers_probe"), &address.to_string())?;
        }
        match link_name(&device.join("driver"))? {
            Some(driver) if driver == VFIO_PCI => Ok(()),
            found => {
                let found = found.unwrap_or_else(|| "none".to_owned());
                Err(VfioError::NotBound { address, found }.into())
            }
        }
    }

    /// The functions that say they are chips.
    pub(super) fn chips(self) -> Result<Vec<PciAddress>, VfioError> {
        let bus = self.path("sys/bus/pci/devices");
        let failed = |source| VfioError::Open { path: bus.clone(), source };
        let entries = match std::fs::read_dir(&bus) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed(source)),
        };
        let mut chips = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let is = |what: &str, expected: u16| -> Result<bool, VfioError> {
                let found = read(&entry.path().join(what))?.unwrap_or_default();
                Ok(found.strip_prefix("0x").and_then(|id| u16::from_str_radix(id, 16).ok()) == Some(expected))
            };
            if is("vendor", VENDOR_ID)? && is("device", DEVICE_ID)? {
                chips.push(address);
            }
        }
        chips.sort();
        chips.truncate(CHIPS_MAX);
        Ok(chips)
    }

    /// In no-IOMMU mode the kernel makes a group for a device that no IOMMU stands before.
    fn refuse_no_iommu_mode(self, address: PciAddress, group: Group) -> Result<(), VfioError> {
        let refused = |sign| Err(VfioError::NoIommuMode { address, sign });
        let name = read(&self.path(format!("sys/kernel/iommu_groups/{}/name", group.0)))?;
        // GUARD: vfio-no-iommu-group -> evil_host_offers_no_iommu_mode_by_group
        if name.as_deref() == Some("vfio-noiommu") {
            return refused("the group's name is vfio-noiommu");
        }
        // GUARD: vfio-no-iommu-node -> evil_host_offers_no_iommu_mode_by_device_node
        if exists(&self.path(format!("dev/vfio/noiommu-{}", group.0)))? {
            return refused("the group's device node is /dev/vfio/noiommu-…");
        }
        let unsafe_mode = read(&self.path("sys/module/vfio/parameters/enable_unsafe_noiommu_mode"))?;
        // GUARD: vfio-no-iommu-parameter -> evil_host_offers_no_iommu_mode_by_parameter
        if unsafe_mode.is_some_and(|value| !is_no(&value)) {
            return refused("vfio.enable_unsafe_noiommu_mode is set");
        }
        Ok(())
    }

    /// Without interrupt remapping a write of the device to the interrupt window is any interrupt of any vector. The
    /// parameter lives in a module that may be loaded by opening the container: once it is in use it has to be there.
    pub(super) fn refuse_unsafe_interrupts(self, in_use: bool) -> Result<(), VfioError> {
        let value = read(&self.path("sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"))?;
        let found = match value {
            Some(value) if is_no(&value) => return Ok(()),
            None if !in_use => return Ok(()),
            Some(value) => value,
            None => "no such parameter".to_owned(),
        };
        Err(VfioError::UnsafeInterrupts { found })
    }

    /// Devices of one group can reach each other and share one address space.
    fn refuse_company(self, address: PciAddress, group: Group) -> Result<(), VfioError> {
        let members = self.path(format!("sys/kernel/iommu_groups/{}/devices", group.0));
        let open = |source| VfioError::Open { path: members.clone(), source };
        let mut others = Vec::new();
        let mut seen_self = false;
        for (count, entry) in std::fs::read_dir(&members).map_err(open)?.enumerate() {
            let name = entry.map_err(open)?.file_name();
            if name == address.to_string().as_str() {
                seen_self = true;
                continue;
            }
            if count >= GROUP_MAX {
                others.push("and more".to_owned());
                break;
            }
            let driver = link_name(&members.join(&name).join("driver"))?;
            if driver.as_deref().is_some_and(|driver| !HARMLESS.contains(&driver)) {
                others.push(format!("{} ({})", name.display(), driver.unwrap_or_default()));
            }
        }
        if !seen_self {
            others.push(format!("a group without {address}"));
        }
        others.sort();
        // GUARD: vfio-group-alone -> evil_host_puts_another_device_into_the_group
        if !others.is_empty() {
            return Err(VfioError::GroupShared { address, group: group.0, others: others.join(", ") });
        }
        Ok(())
    }
}

/// Whether a boolean parameter of a module is off.
fn is_no(value: &str) -> bool {
    matches!(value, "N" | "0")
}

fn exists(path: &Path) -> Result<bool, VfioError> {
    path.try_exists().map_err(|source| VfioError::Open { path: path.to_owned(), source })
}

/// Writes an attribute, which must be there.
fn write(path: &Path, text: &str) -> Result<(), VfioError> {
    let open = File::options().write(true).truncate(true).open(path);
    open.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| VfioError::Open { path: path.to_owned(), source })
}

/// The last component of what a link leads to; `None` when there is no link.
fn link_name(path: &Path) -> Result<Option<String>, VfioError> {
    match std::fs::read_link(path) {
        Ok(target) => Ok(target.file_name().map(|name| name.to_string_lossy().into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(VfioError::Open { path: path.to_owned(), source }),
    }
}

/// A small text without its end of line; `None` when there is no such file.
fn read(path: &Path) -> Result<Option<String>, VfioError> {
    let failed = |source| VfioError::Open { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let mut text = String::new();
    file.take(TEXT_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text.trim_end().to_owned()))
}
