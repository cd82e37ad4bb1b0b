//! Who uses which device: one device is one storage's, one swap area's, or nobody's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::StorageError;
use crate::hotplug::BlockDevice;

/// What the kernel calls devices of device-mapper: those are the guest's own, a verified root or swap, and no disks of the host.
const MAPPED: &str = "dm-";

type Table = Arc<Mutex<BTreeMap<(u32, u32), String>>>;

/// The devices that are in use. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    table: Table,
}

/// A device that is in use until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    table: Table,
    device: (u32, u32),
}

impl Claims {
    /// Takes a device.
    pub(crate) fn take(&self, device: &BlockDevice, user: &str) -> Result<Claim, StorageError> {
        // GUARD: device-of-the-host -> evil_host_names_a_device_of_the_mapper
        if device.name.starts_with(MAPPED) {
            return Err(StorageError::DeviceTaken {
                device: device.name.clone(),
                user: "the guest".to_owned(),
            });
        }
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let number = (device.major, device.minor);
        // GUARD: one-user-of-a-device -> evil_host_gives_one_device_to_two
        if let Some(user) = table.get(&number) {
            return Err(StorageError::DeviceTaken { device: device.name.clone(), user: user.clone() });
        }
        table.insert(number, user.to_owned());
        Ok(Claim { table: Arc::clone(&self.table), device: number })
    }

    /// Who has a device.
    pub(crate) fn user(&self, device: &BlockDevice) -> Option<String> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.get(&(device.major, device.minor)).cloned()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_host_names_a_device_of_the_mapper() {
        let claims = Claims::default();
        let device = BlockDevice { name: "dm-0".to_owned(), major: 253, minor: 0, node: "/dev/dm-0".into() };
        assert_eq!(claims.take(&device, "/one").unwrap_err().code(), "STORAGE_DEVICE_TAKEN");
        assert_eq!(claims.user(&device), None);
    }

    #[test]
    fn evil_host_gives_one_device_to_two() {
        let claims = Claims::default();
        let device = BlockDevice { name: "vda".to_owned(), major: 254, minor: 0, node: "/dev/vda".into() };
        // Another name for the same device.
        let alias = BlockDevice { name: "vdz".to_owned(), ..device.clone() };
        let claim = claims.take(&device, "/one").unwrap();
        assert_eq!(claims.take(&alias, "/two").unwrap_err().code(), "STORAGE_DEVICE_TAKEN");
        assert_eq!(claims.user(&alias).as_deref(), Some("/one"));
        drop(claim);
        assert!(claims.take(&alias, "/two").is_ok());
        assert_eq!(claims.user(&device), None);
    }
}
