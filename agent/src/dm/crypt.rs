//! The target `crypt` with a key that nobody keeps: what was written is gone with the device, whoever has the disk.

use zeroize::Zeroizing;

use super::verity::hex;
use super::{DmError, SECTOR_BYTES, Target, random_bytes};
use crate::hotplug::BlockDevice;

const KIND: &str = "crypt";
/// Two keys of AES-256 for XTS.
pub(super) const KEY_BYTES: usize = 64;
const CIPHER: &str = "aes-xts-plain64";

/// The target over the whole device. The key is made here, is nowhere but in it, and is wiped with it.
pub(super) fn target(device: &BlockDevice, size_bytes: u64) -> Result<Target, DmError> {
    let sectors = size_bytes / SECTOR_BYTES;
    if sectors == 0 {
        return Err(DmError::Parameter { target: KIND, parameter: "size", expected: "one sector at least" });
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    random_bytes(&mut *key).map_err(|source| DmError::Command {
        action: "make a key for",
        target: KIND,
        source,
    })?;
    let BlockDevice { major, minor, .. } = device;
    // Long enough from the beginning: a string that grows leaves copies.
    let mut parameters = Zeroizing::new(String::with_capacity(CIPHER.len() + 2 * KEY_BYTES + 64));
    parameters.push_str(CIPHER);
    parameters.push(' ');
    hex(&mut parameters, &*key);
    parameters.push_str(&format!(" 0 {major}:{minor} 0"));
    Ok(Target { kind: KIND, sectors, read_only: false, parameters })
}
