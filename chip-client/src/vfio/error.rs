//! What can go wrong between this program and the kernel's VFIO.

use std::io;
use std::path::PathBuf;

use super::PciAddress;
use crate::error::Class;

/// A device cannot be driven through the kernel's VFIO, or a call to it failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VfioError {
    /// Not the address of a PCI function.
    #[error("expected a PCI address like 0000:01:00.0, found {found:?}")]
    Address {
        /// What was given.
        found: String,
    },
    /// Other devices can reach what the chip can reach.
    #[error("IOMMU group {group} of {address}: expected no other device outside vfio-pci, found {others}")]
    GroupShared {
        /// The chip.
        address: PciAddress,
        /// Its group.
        group: u32,
        /// The other devices, each with its driver.
        others: String,
    },
    /// The kernel offers another interface than this program speaks.
    #[error("kernel VFIO: {what}: expected {expected:#x}, found {found:#x}")]
    Interface {
        /// What was asked.
        what: &'static str,
        /// What is needed.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// A call failed.
    #[error("kernel VFIO: {what} failed{}", hint(what, source))]
    Kernel {
        /// What was asked.
        what: &'static str,
        /// The error of the kernel.
        source: io::Error,
    },
    /// Memory could not be mapped for the device.
    #[error("kernel VFIO: mapping of {len} bytes for the device failed{}", map_hint(source))]
    Map {
        /// Length in bytes.
        len: u64,
        /// The error of the kernel.
        source: io::Error,
    },
    /// No such device.
    #[error("expected a PCI device at {address}, found none")]
    NoDevice {
        /// Where it was looked for.
        address: PciAddress,
    },
    /// No IOMMU stands before the device.
    #[error("{address}: expected an IOMMU group, found none: this guest needs an IOMMU")]
    NoIommu {
        /// The device.
        address: PciAddress,
    },
    /// VFIO would let the device reach all memory.
    #[error(
        "expected an IOMMU before {address}, found no-IOMMU mode ({sign}): the device could reach all memory"
    )]
    NoIommuMode {
        /// The device.
        address: PciAddress,
        /// What gave it away.
        sign: &'static str,
    },
    /// Another driver has the device, or none.
    #[error(
        "{address}: expected driver vfio-pci, found {found}: load the module vfio-pci, write vfio-pci to \
         /sys/bus/pci/devices/{address}/driver_override and {address} to /sys/bus/pci/drivers_probe, \
         or run `innerkeep chip bind`"
    )]
    NotBound {
        /// The device.
        address: PciAddress,
        /// The driver that has it.
        found: String,
    },
    /// A device file or a file of sysfs could not be opened, read or written.
    #[error("kernel VFIO: {} cannot be opened, read or written", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// Memory that no IOMMU can map.
    #[error("memory for the device: expected whole pages at an address, found {found}")]
    Region {
        /// What it was.
        found: &'static str,
    },
    /// The kernel unmapped less than it was asked to.
    #[error("unmapping for the device: expected {expected} bytes unmapped, found {found}")]
    Unmap {
        /// Bytes that were mapped.
        expected: u64,
        /// Bytes that the kernel unmapped.
        found: u64,
    },
    /// The device could forge interrupts of others.
    #[error(
        "expected vfio_iommu_type1.allow_unsafe_interrupts = N, found {found}: without interrupt remapping a device can \
         forge any interrupt"
    )]
    UnsafeInterrupts {
        /// What the parameter says.
        found: String,
    },
}

impl VfioError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Address { .. } => "CHIP_VFIO_ADDRESS",
            Self::GroupShared { .. } => "CHIP_VFIO_GROUP_SHARED",
            Self::Interface { .. } => "CHIP_VFIO_INTERFACE",
            Self::Kernel { .. } => "CHIP_VFIO_KERNEL",
            Self::Map { .. } => "CHIP_VFIO_MAP",
            Self::NoDevice { .. } => "CHIP_VFIO_NO_DEVICE",
            Self::NoIommu { .. } => "CHIP_VFIO_NO_IOMMU",
            Self::NoIommuMode { .. } => "CHIP_VFIO_NO_IOMMU_MODE",
            Self::NotBound { .. } => "CHIP_VFIO_NOT_BOUND",
            Self::Open { .. } => "CHIP_VFIO_OPEN",
            Self::Region { .. } => "CHIP_VFIO_REGION",
            Self::Unmap { .. } => "CHIP_VFIO_UNMAP",
            Self::UnsafeInterrupts { .. } => "CHIP_VFIO_UNSAFE_INTERRUPTS",
        }
    }

    /// Who misbehaved.
    pub const fn class(&self) -> Class {
        match self {
            Self::Region { .. } => Class::Bug,
            Self::Kernel { .. } | Self::Map { .. } | Self::Unmap { .. } => Class::HostFault,
            _ => Class::Config,
        }
    }

    /// A call that failed.
    pub(super) fn kernel(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Kernel { what, source }
    }
}

/// What most often is behind an error number.
fn hint(what: &str, source: &io::Error) -> &'static str {
    match (what, source.raw_os_error()) {
        ("VFIO_SET_IOMMU", Some(libc::EPERM)) => ": the IOMMU does not remap interrupts",
        ("VFIO_GROUP_SET_CONTAINER" | "VFIO_GROUP_GET_DEVICE_FD", Some(libc::EBUSY)) => ": it is in use",
        _ => "",
    }
}

fn map_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EFAULT) => ": this memory cannot be given to a device",
        Some(libc::ENOMEM) => ": the limit on locked memory (RLIMIT_MEMLOCK) may be too low",
        _ => "",
    }
}
