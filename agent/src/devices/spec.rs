//! What devices change in a specification.

use protocol::oci::{LinuxDeviceCgroup, Spec};

use super::DeviceError;
use super::pci::Addresses;
use crate::hotplug::BlockDevice;

/// How an operator's plugin tells a program which devices are its own.
const VARIABLE: &str = "PCIDEVICE_";

/// All that was found.
#[derive(Debug, Default)]
pub(super) struct Updates {
    blocks: Vec<(String, BlockDevice)>,
    addresses: Addresses,
}

impl Updates {
    pub(super) fn block(&mut self, path: &str, device: BlockDevice) {
        self.blocks.push((path.to_owned(), device));
    }

    pub(super) fn addresses(&mut self, addresses: Addresses) {
        self.addresses.extend(addresses);
    }

    /// Disks, each with its path in the container.
    pub(super) fn disks(&self) -> impl Iterator<Item = (&str, &BlockDevice)> {
        self.blocks.iter().map(|(path, device)| (path.as_str(), device))
    }

    /// Writes everything, after a look whether it can be written.
    pub(super) fn write(self, specification: &mut Spec) -> Result<(), DeviceError> {
        let known = specification.Linux.as_ref().map(|linux| linux.Devices.as_slice()).unwrap_or_default();
        for (path, _) in &self.blocks {
            // GUARD: device-in-the-specification -> a_device_that_the_specification_lacks_is_an_error
            if !known.iter().any(|device| device.Path == *path) {
                return Err(DeviceError::Missing { path: path.clone() });
            }
        }
        let process = specification.Process.as_mut();
        for variable in process.map(|process| process.Env.as_mut_slice()).unwrap_or_default() {
            if variable.starts_with(VARIABLE) {
                *variable = renamed(variable, &self.addresses);
            }
        }
        if self.blocks.is_empty() {
            return Ok(());
        }
        let linux = specification.Linux.mut_or_insert_default();
        let mut moved = Vec::new();
        for (path, device) in &self.blocks {
            for entry in linux.Devices.iter_mut().filter(|entry| entry.Path == *path) {
                let before = (entry.Type.clone(), entry.Major, entry.Minor);
                entry.Type = "b".to_owned();
                entry.Major = device.major.into();
                entry.Minor = device.minor.into();
                moved.push((before, (device.major, device.minor)));
            }
        }
        let resources = linux.Resources.mut_or_insert_default();
        // Rules for the numbers that devices had on the host: those are something else here, or nothing.
        resources.Devices.retain(|rule| {
            let number = (rule.Type.clone(), rule.Major, rule.Minor);
            !rule.Allow || !moved.iter().any(|(before, _)| *before == number)
        });
        for (_, (major, minor)) in moved {
            resources.Devices.push(LinuxDeviceCgroup {
                Allow: true,
                Type: "b".to_owned(),
                Major: major.into(),
                Minor: minor.into(),
                Access: "rwm".to_owned(),
                ..LinuxDeviceCgroup::default()
            });
        }
        Ok(())
    }
}

/// Addresses of the host become those of the guest, each value once.
fn renamed(variable: &str, addresses: &Addresses) -> String {
    let Some((name, value)) = variable.split_once('=') else { return variable.to_owned() };
    let values = value.split(',').map(|value| addresses.get(value).map_or(value, String::as_str));
    format!("{name}={}", values.collect::<Vec<_>>().join(","))
}
