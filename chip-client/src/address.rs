//! Where a chip is, as an operator writes it.

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::backing::DeviceBacking;
use crate::error::ChipError;
use crate::vfio::{PciAddress, VfioDevice, VfioError};
use crate::vfio_user::{VfioUserDevice, VfioUserTimeouts};

const PCI: &str = "pci:";

/// The way to a chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceAddress {
    /// A PCI function of this machine, bound to vfio-pci.
    Pci(PciAddress),
    /// The socket of a vfio-user server.
    Socket(PathBuf),
}

impl DeviceAddress {
    /// `pci:DDDD:BB:DD.F` is a PCI function; everything else is a socket. (`./pci:…` is a socket of that name.)
    ///
    /// # Errors
    ///
    /// [`VfioError::Address`].
    pub fn parse(text: &OsStr) -> Result<Self, VfioError> {
        match text.to_string_lossy().strip_prefix(PCI) {
            Some(address) => address.parse().map(Self::Pci),
            None => Ok(Self::Socket(text.into())),
        }
    }

    /// Opens or connects.
    ///
    /// # Errors
    ///
    /// As [`VfioDevice::open`] and [`VfioUserDevice::connect`].
    pub fn open(&self) -> Result<Arc<dyn DeviceBacking>, ChipError> {
        Ok(match self {
            Self::Pci(address) => Arc::new(VfioDevice::open(*address)?),
            Self::Socket(path) => Arc::new(VfioUserDevice::connect(path, VfioUserTimeouts::default())?),
        })
    }
}

impl fmt::Display for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(address) => write!(f, "{PCI}{address}"),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_is_a_pci_function_or_a_socket() {
        let parse = |text: &str| DeviceAddress::parse(text.as_ref());
        assert_eq!(parse("pci:0000:01:00.0").unwrap().to_string(), "pci:0000:01:00.0");
        assert!(matches!(parse("pci:0000:01:00.0"), Ok(DeviceAddress::Pci(_))));
        assert_eq!(parse("./pci:x").unwrap(), DeviceAddress::Socket("./pci:x".into()));
        assert_eq!(parse("/run/chip.sock").unwrap().to_string(), "/run/chip.sock");
        assert_eq!(parse("pci:01:00.0").unwrap_err().code(), "CHIP_VFIO_ADDRESS");
    }
}
