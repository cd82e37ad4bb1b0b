//! `vfio-pci-gk`: devices that the guest's kernel drives. The container gets what their drivers make of them by other ways; it is told
//! where they are in this guest.

use std::collections::BTreeMap;

use protocol::agent::Device;

use super::{DeviceError, refuse_chip};
use crate::hotplug::{Hotplug, PciPath};

const MAXIMUM_DEVICES: usize = 64;

/// Addresses on the host and in the guest, as `DOMAIN:BUS:DEVICE.FUNCTION`.
pub(super) type Addresses = BTreeMap<String, String>;

/// Waits for each device of the options, `HOST=PCI path`; an empty path is skipped.
pub(super) async fn addresses(device: &Device, hotplug: &Hotplug) -> Result<Addresses, DeviceError> {
    let form = DeviceError::Form { expected: "options DDDD:BB:DD.F=PCI path, at most 64" };
    if device.options.len() > MAXIMUM_DEVICES {
        return Err(form);
    }
    let mut addresses = Addresses::new();
    for option in &device.options {
        let Some((host, path)) = option.split_once('=').filter(|(host, _)| is_address(host)) else {
            return Err(DeviceError::Form { expected: "options DDDD:BB:DD.F=PCI path, at most 64" });
        };
        if path.is_empty() {
            continue;
        }
        let found = hotplug.pci(&PciPath::parse(path)?).await?;
        refuse_chip(&found)?;
        addresses.insert(host.to_owned(), found.address);
    }
    Ok(addresses)
}

fn is_address(text: &str) -> bool {
    let form = b"hhhh:hh:hh.h";
    let is_at =
        |(form, byte): (&u8, u8)| if *form == b'h' { byte.is_ascii_hexdigit() } else { *form == byte };
    text.len() == form.len() && form.iter().zip(text.bytes()).all(is_at)
}
