//! The target `integrity`: a tag of so many bytes beside each block, with a journal that keeps both together. What is in the tags is the
//! cipher's above it.

use std::io;

use zeroize::Zeroizing;

use super::{BlockDevice, DmError, SECTOR_BYTES, Target};

const KIND: &str = "integrity";
/// Of HMAC-SHA-256.
pub(super) const TAG_BYTES: u16 = 32;
/// Bytes of a block: of the cipher's and of the tags' alike.
pub const INTEGRITY_BLOCK_BYTES: u64 = 4096;
/// What is read of a superblock.
pub const SUPERBLOCK_BYTES: usize = 512;
const MAGIC: &[u8; 8] = b"integrt\0";
/// Sectors of a block, as a power of two.
const LOG2_SECTORS_PER_BLOCK: u8 = 3;

/// How a device is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntegrityMode {
    /// The kernel writes a superblock where it finds zeroes.
    Create,
    /// Read and written, by way of the journal.
    Journal,
    /// Read only, nothing is written, not even the journal.
    ReadOnly,
}

/// Where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntegrityParameters {
    /// Sectors of the device before its superblock.
    pub start_sector: u64,
    /// Sectors that it provides.
    pub sectors: u64,
    /// How.
    pub mode: IntegrityMode,
}

impl IntegrityParameters {
    pub(super) fn target(&self, device: &BlockDevice) -> Result<Target, DmError> {
        let per_block = INTEGRITY_BLOCK_BYTES / SECTOR_BYTES;
        if self.sectors == 0 || !self.sectors.is_multiple_of(per_block) {
            return Err(DmError::Parameter {
                target: KIND,
                parameter: "size",
                expected: "one block of 4096 bytes at least, and whole ones",
            });
        }
        let BlockDevice { major, minor, .. } = device;
        let (start, read_only) = (self.start_sector, self.mode == IntegrityMode::ReadOnly);
        let mode = if read_only { 'R' } else { 'J' };
        let mut parameters = Zeroizing::new(format!(
            "{major}:{minor} {start} {TAG_BYTES} {mode} 1 block_size:{INTEGRITY_BLOCK_BYTES}"
        ));
        if self.mode == IntegrityMode::Create {
            *parameters = parameters.replace(" 1 block_size", " 2 fix_padding block_size");
        }
        Ok(Target { kind: KIND, sectors: self.sectors, read_only, parameters })
    }
}

/// How many sectors a superblock says that there are. It is the disk's word: the kernel holds it against the size of the disk, and nobody
/// believes what lies there before its tag was verified.
///
/// # Errors
/// `InvalidData` where there is none of this kind.
pub fn provided_sectors(superblock: &[u8; SUPERBLOCK_BYTES]) -> io::Result<u64> {
    let field = |at: usize, length: usize| superblock.get(at..at + length).unwrap_or_default();
    let tag = field(10, 2).try_into().map_or(0, u16::from_le_bytes);
    if field(0, 8) != MAGIC || tag != TAG_BYTES || field(28, 1) != [LOG2_SECTORS_PER_BLOCK] {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let sectors = field(16, 8).try_into().map_or(0, u64::from_le_bytes);
    let per_block = INTEGRITY_BLOCK_BYTES / SECTOR_BYTES;
    Ok(sectors - sectors % per_block)
}
