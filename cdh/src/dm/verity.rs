//! The target `verity`: version 1, SHA-256, blocks of 4096 bytes, data and hashes on one device.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::{BlockDevice, DmError, SECTOR_BYTES, Target};

/// Bytes of a block, of data and of hashes alike.
pub const BLOCK_BYTES: u64 = 4096;
const KIND: &str = "verity";
/// The kernel's limit.
const MAXIMUM_SALT_BYTES: usize = 256;

/// A tree of hashes. All of it together says what the data are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerityParameters {
    /// SHA-256 over the salt and the topmost block.
    pub root_hash: [u8; 32],
    /// At most 256 bytes.
    pub salt: Vec<u8>,
    /// Blocks of data, from the beginning of the device.
    pub data_blocks: u64,
    /// The block at which the tree begins, behind the data.
    pub hash_start_block: u64,
}

impl VerityParameters {
    pub(super) fn target(&self, device: &BlockDevice) -> Result<Target, DmError> {
        let refuse = |parameter, expected| DmError::Parameter { target: KIND, parameter, expected };
        if self.salt.len() > MAXIMUM_SALT_BYTES {
            return Err(refuse("salt", "at most 256 bytes"));
        }
        if self.data_blocks == 0 || self.hash_start_block < self.data_blocks {
            return Err(refuse("data blocks", "from 1 on, and the tree behind them"));
        }
        let sectors = self.data_blocks.checked_mul(BLOCK_BYTES / SECTOR_BYTES);
        let sectors = sectors.ok_or(refuse("data blocks", "what fits on a device"))?;
        let BlockDevice { major, minor, .. } = device;
        let (blocks, start) = (self.data_blocks, self.hash_start_block);
        // No options: a block that does not verify is an error of its read.
        let mut parameters = Zeroizing::new(format!(
            "1 {major}:{minor} {major}:{minor} {BLOCK_BYTES} {BLOCK_BYTES} {blocks} {start} sha256 "
        ));
        hex(&mut parameters, &self.root_hash);
        parameters.push(' ');
        if self.salt.is_empty() {
            parameters.push('-');
        }
        hex(&mut parameters, &self.salt);
        Ok(Target { kind: KIND, sectors, read_only: true, parameters })
    }
}

pub(super) fn hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
}
