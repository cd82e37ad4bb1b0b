//! The target `crypt`: with a key that nobody keeps, for what is gone with the device; and with a key of the caller's and a tag to each block.

use zeroize::Zeroizing;

use super::verity::hex;
use super::{BlockDevice, DmError, SECTOR_BYTES, Target, random_bytes};

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

/// Bytes of the key of `authenticated`: two of AES-256 for XTS, one of HMAC-SHA-256.
pub const AUTHENTICATED_KEY_BYTES: usize = 96;
/// As `cryptsetup` gives it to the kernel for `aes-xts-plain64` with `hmac(sha256)`: the number of a block is authenticated with it.
const AUTHENTICATED: &str = "capi:authenc(hmac(sha256),xts(aes))-plain64";

/// The target over a device of the target `integrity`. A block whose tag is not its own is an error of its read.
pub(super) fn authenticated(
    device: &BlockDevice,
    sectors: u64,
    key: &[u8],
    read_only: bool,
) -> Result<Target, DmError> {
    if key.len() != AUTHENTICATED_KEY_BYTES {
        return Err(DmError::Parameter { target: KIND, parameter: "key", expected: "96 bytes" });
    }
    let BlockDevice { major, minor, .. } = device;
    let mut parameters = Zeroizing::new(String::with_capacity(AUTHENTICATED.len() + 2 * key.len() + 128));
    parameters.push_str(AUTHENTICATED);
    parameters.push(' ');
    hex(&mut parameters, key);
    let (tag, block) = (super::integrity::TAG_BYTES, super::INTEGRITY_BLOCK_BYTES);
    parameters.push_str(&format!(" 0 {major}:{minor} 0 2 integrity:{tag}:aead sector_size:{block}"));
    Ok(Target { kind: KIND, sectors, read_only, parameters })
}
