//! Two devices of device-mapper, one upon the other: tags with a journal, and the cipher that makes and checks them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::VolumeError;
use super::keyslot::VolumeKey;
use crate::dm::{
    AUTHENTICATED_KEY_BYTES, BlockDevice, INTEGRITY_BLOCK_BYTES, IntegrityMode, IntegrityParameters, Mapped,
    Mapper, SECTOR_BYTES, SUPERBLOCK_BYTES, provided_sectors, random_bytes,
};

/// What the kernel looks at before it makes a superblock, in full.
const SUPERBLOCK_AREA_BYTES: usize = 4096;

/// Both. Dropped, they are removed, the upper one first.
#[derive(Debug)]
pub struct Stack {
    cipher: Option<Mapped>,
    tags: Option<Mapped>,
    sectors: u64,
}

/// A device under a key that nobody keeps: what is on it is lost with it, and nothing that was on it before is believed. Blocks that were never
/// written are errors to read.
///
/// # Errors
/// `DM_…`, `VOLUME_IO`.
pub fn ephemeral(dev: &Path, device: &BlockDevice, name: Option<&str>) -> Result<Stack, VolumeError> {
    let mut key: VolumeKey = Zeroizing::new([0; AUTHENTICATED_KEY_BYTES]);
    random_bytes(&mut *key).map_err(VolumeError::io("make a key for", &device.node))?;
    Stack::create(dev, device, 0, &key, name)
}

impl Stack {
    /// New ones: what lies on the device from there on is no longer of use to anybody.
    pub(super) fn create(
        dev: &Path,
        device: &BlockDevice,
        offset: u64,
        key: &VolumeKey,
        name: Option<&str>,
    ) -> Result<Self, VolumeError> {
        let mapper = Mapper::open(dev)?;
        let node = &device.node;
        let open = || OpenOptions::new().read(true).write(true).open(node);
        let wiped = open().and_then(|file| {
            file.write_all_at(&[0; SUPERBLOCK_AREA_BYTES], offset)?;
            file.sync_all()
        });
        wiped.map_err(VolumeError::io("write", node))?;
        let parameters =
            |sectors, mode| IntegrityParameters { start_sector: offset / SECTOR_BYTES, sectors, mode };
        // The kernel writes its superblock, and says there how many sectors that leaves.
        let smallest = INTEGRITY_BLOCK_BYTES / SECTOR_BYTES;
        mapper.integrity(device, &parameters(smallest, IntegrityMode::Create))?.remove_now()?;
        let mut superblock = [0; SUPERBLOCK_BYTES];
        let read = open().and_then(|file| file.read_exact_at(&mut superblock, offset));
        let sectors = read.and_then(|()| provided_sectors(&superblock));
        let sectors = sectors.map_err(VolumeError::io("read the superblock of", node))?;
        Self::over(&mapper, device, &parameters(sectors, IntegrityMode::Journal), key, name)
    }

    /// Those of a volume that is there.
    pub(super) fn open(
        dev: &Path,
        device: &BlockDevice,
        parameters: &IntegrityParameters,
        key: &VolumeKey,
        name: Option<&str>,
    ) -> Result<Self, VolumeError> {
        // The kernel would make a new one where it finds zeroes.
        let mut superblock = [0; SUPERBLOCK_BYTES];
        let at = parameters.start_sector.saturating_mul(SECTOR_BYTES);
        let read = File::open(&device.node).and_then(|file| file.read_exact_at(&mut superblock, at));
        let sectors = read.and_then(|()| provided_sectors(&superblock));
        let sectors = sectors.map_err(VolumeError::io("read the superblock of", &device.node))?;
        // GUARD: volume-length -> evil_host_shorter_volume
        if sectors < parameters.sectors {
            return Err(VolumeError::Size {
                least: parameters.sectors.saturating_mul(SECTOR_BYTES),
                found: sectors.saturating_mul(SECTOR_BYTES),
            });
        }
        Self::over(&Mapper::open(dev)?, device, parameters, key, name)
    }

    fn over(
        mapper: &Mapper,
        device: &BlockDevice,
        parameters: &IntegrityParameters,
        key: &VolumeKey,
        name: Option<&str>,
    ) -> Result<Self, VolumeError> {
        let tags = mapper.integrity(device, parameters)?;
        let read_only = parameters.mode == IntegrityMode::ReadOnly;
        let below = tags.device();
        // From here on what is below goes with this.
        let mut stack = Self { cipher: None, tags: Some(tags), sectors: parameters.sectors };
        stack.cipher = Some(mapper.authenticated(&below, parameters.sectors, &**key, read_only, name)?);
        Ok(stack)
    }

    /// The device that is used.
    #[must_use]
    pub fn node(&self) -> &Path {
        self.cipher.as_ref().map_or(Path::new(""), Mapped::node)
    }

    /// Its length.
    #[must_use]
    pub const fn sectors(&self) -> u64 {
        self.sectors
    }

    /// The two devices, the lower one first.
    #[must_use]
    pub fn into_devices(mut self) -> Vec<Mapped> {
        [self.tags.take(), self.cipher.take()].into_iter().flatten().collect()
    }

    /// Removes both now; what is in use stays.
    pub(super) fn remove(&mut self) -> Result<(), VolumeError> {
        for device in [&mut self.cipher, &mut self.tags] {
            if let Some(mapped) = device {
                mapped.remove_now()?;
            }
            *device = None;
        }
        Ok(())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // In this order: the lower one is in use as long as the upper one is there.
        drop(self.cipher.take());
        drop(self.tags.take());
    }
}

/// Opens a device that nobody has mounted, mapped, or opened in this way.
pub(super) fn exclusively(device: &BlockDevice, write: bool) -> Result<File, VolumeError> {
    let flags = i32::try_from(rustix::fs::OFlags::EXCL.bits()).unwrap_or_default();
    let opened = OpenOptions::new().read(true).write(write).custom_flags(flags).open(&device.node);
    opened.map_err(|error| match rustix::io::Errno::from_io_error(&error) {
        Some(rustix::io::Errno::BUSY) => VolumeError::DeviceTaken {
            device: device.name.clone(),
            user: "another mount or mapping".to_owned(),
        },
        _ => VolumeError::io("open", &device.node)(error),
    })
}
