//! Swap on disks of the host: only behind a cipher whose key nobody keeps, in every guest.
//!
//! What a host has written on the disk before is of no use then: the header is made here.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use protocol::status::RpcError;
use tokio::task::spawn_blocking;

use crate::dm::{DmError, Mapped, Mapper};
use crate::hotplug::{BlockDevice, BlockName, Hotplug, HotplugError, PciPath, sysfs};
use crate::storage::{Claim, StorageError, Storages};
use crate::sys;

/// Of the kernel, on every machine that this runs on.
const PAGE_BYTES: usize = 4096;
/// Bytes of a sector in `/sys`.
const SECTOR_BYTES: u64 = 512;
/// The header, one page of data, and what the kernel asks for at least.
const SMALLEST_BYTES: u64 = 10 * PAGE_BYTES as u64;
const SIGNATURE: &[u8; 10] = b"SWAPSPACE2";
/// `version` and `last_page` of the header (include/linux/swap.h).
const VERSION_AT: usize = 1024;
const LAST_PAGE_AT: usize = 1028;

/// Why there is no swap.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwapError {
    /// The device did not come.
    #[error(transparent)]
    Hotplug(#[from] HotplugError),
    /// Device-mapper.
    #[error("encrypted swap")]
    Dm(#[from] DmError),
    /// Somebody else's.
    #[error(transparent)]
    Taken(#[from] StorageError),
    /// Too small.
    #[error("swap on {device}: expected at least {SMALLEST_BYTES} bytes, found {found}")]
    Size {
        /// The device.
        device: String,
        /// Its size.
        found: u64,
    },
    /// The system refused.
    #[error("{action} {device}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which device.
        device: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A task that ended before its end.
    #[error("adding swap panicked")]
    Panicked,
}

impl SwapError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Dm(error) => error.code(),
            Self::Hotplug(error) => error.code(),
            Self::Io { .. } => "SWAP_IO",
            Self::Panicked => "SWAP_PANICKED",
            Self::Size { .. } => "SWAP_SIZE",
            Self::Taken(error) => error.code(),
        }
    }

    fn io(action: &'static str, device: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let device = device.display().to_string();
        move |source| Self::Io { action, device, source }
    }
}

impl From<SwapError> for RpcError {
    fn from(error: SwapError) -> Self {
        match error {
            SwapError::Hotplug(error) => error.into(),
            other => Self::Failed(other.code(), crate::error::chain(&other)),
        }
    }
}

/// The areas of swap: they stay until the machine ends.
#[derive(Debug, Default)]
pub struct Swap {
    areas: std::sync::Mutex<Vec<Area>>,
}

#[derive(Debug)]
struct Area {
    _mapped: Mapped,
    _claim: Claim,
}

impl Swap {
    /// Adds the disk at a PCI path.
    ///
    /// # Errors
    /// `SWAP_…`, `HOTPLUG_…`, `DM_…`, `STORAGE_DEVICE_TAKEN`; nothing is swapped to it then.
    pub async fn add_pci(
        &self,
        slots: &[u32],
        hotplug: &Hotplug,
        storages: &Storages,
        dev: &Path,
    ) -> Result<(), SwapError> {
        let device = hotplug.block_by_pci(&PciPath::of_slots(slots)?).await?;
        self.add(device, hotplug, storages, dev).await
    }

    /// Adds a disk by its path, `/dev/NAME`. A file of the guest's is not taken: what is below it is not known.
    ///
    /// # Errors
    /// As [`Swap::add_pci`].
    pub async fn add_path(
        &self,
        path: &str,
        hotplug: &Hotplug,
        storages: &Storages,
        dev: &Path,
    ) -> Result<(), SwapError> {
        let device = hotplug.block_by_name(&BlockName::of_node(path)?).await?;
        self.add(device, hotplug, storages, dev).await
    }

    async fn add(
        &self,
        device: BlockDevice,
        hotplug: &Hotplug,
        storages: &Storages,
        dev: &Path,
    ) -> Result<(), SwapError> {
        let claim = storages.claims().take(&device, "swap")?;
        let (sys, dev) = (hotplug.sys().to_owned(), dev.to_owned());
        let mapped =
            spawn_blocking(move || swap_on(&sys, &dev, &device)).await.map_err(|_| SwapError::Panicked)??;
        let mut areas = self.areas.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        areas.push(Area { _mapped: mapped, _claim: claim });
        Ok(())
    }
}

fn swap_on(sys: &Path, dev: &Path, device: &BlockDevice) -> Result<Mapped, SwapError> {
    let path = sys.join("class/block").join(&device.name).join("size");
    let text = sysfs::attribute_text(&path).map_err(SwapError::io("read the size of", &device.node))?;
    let sectors = text
        .parse::<u64>()
        .map_err(|_| SwapError::io("read the size of", &device.node)(io::ErrorKind::InvalidData.into()))?;
    let size = sectors.saturating_mul(SECTOR_BYTES);
    if size < SMALLEST_BYTES {
        return Err(SwapError::Size { device: device.name.clone(), found: size });
    }
    // The disk itself is not given to swapon(2): only what encrypts it.
    let mapped = Mapper::open(dev)?.crypt(device, size)?;
    let header = header(size);
    let node: PathBuf = mapped.node().to_owned();
    let written = OpenOptions::new().write(true).open(&node).and_then(|file: File| {
        file.write_all_at(&header, 0)?;
        file.sync_all()
    });
    written.map_err(SwapError::io("write the header of", &node))?;
    sys::swap::on(&node).map_err(SwapError::io("swap to", &node))?;
    Ok(mapped)
}

/// The first page of an area of this size.
fn header(size_bytes: u64) -> Vec<u8> {
    let last = (size_bytes / PAGE_BYTES as u64).saturating_sub(1);
    let last = u32::try_from(last).unwrap_or(u32::MAX);
    let mut page = vec![0; PAGE_BYTES];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = page.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(VERSION_AT, &1_u32.to_ne_bytes());
    put(LAST_PAGE_AT, &last.to_ne_bytes());
    put(PAGE_BYTES - SIGNATURE.len(), SIGNATURE);
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Level, Log};
    use crate::reaper::Reaper;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn headers_are_those_of_the_kernel() {
        let page = header(1 << 20);
        assert_eq!(page.len(), 4096);
        assert_eq!(&page[4086..], b"SWAPSPACE2");
        assert_eq!(page[1024..1032], [1_u32.to_ne_bytes(), 255_u32.to_ne_bytes()].concat());
        assert!(page[..1024].iter().all(|byte| *byte == 0));
    }

    // COMPAT: AddSwap, AddSwapPath stricter: only disks, and only behind a cipher whose key nobody keeps
    /// Without a cipher there is no swap, whatever the host has written on the disk.
    #[tokio::test]
    async fn evil_host_swap_as_exfiltration() {
        let room = tempfile::tempdir().unwrap();
        let at = |name: &str| room.path().join(name);
        std::fs::create_dir_all(at("sys/class/block/vdb")).unwrap();
        std::fs::create_dir_all(at("dev")).unwrap();
        std::fs::write(at("sys/class/block/vdb/dev"), "254:16\n").unwrap();
        std::fs::write(at("sys/class/block/vdb/size"), "2048\n").unwrap();
        use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
        mknodat(CWD, at("dev/vdb"), FileType::BlockDevice, Mode::RUSR, makedev(254, 16)).unwrap();
        let log = Log::console();
        log.set_level(Level::Critical);
        let reaper = Arc::new(Reaper::start(&log).unwrap());
        let hotplug = Hotplug::looking(&at("sys"), &at("dev"), Duration::ZERO);
        let storages = Storages::new(&at("run"), &at("sys"), &at("dev"), reaper, &log);
        let swap = Swap::default();
        let before = std::fs::read_to_string("/proc/swaps").unwrap();
        let error = swap.add_path("/dev/vdb", &hotplug, &storages, &at("dev")).await.unwrap_err();
        assert_eq!(error.code(), "DM_ABSENT");
        assert_eq!(std::fs::read_to_string("/proc/swaps").unwrap(), before);
        assert!(swap.areas.lock().unwrap().is_empty());
        for path in ["/run/kata-containers/shared/containers/file", "/etc/passwd", "/dev/../etc/passwd"] {
            let error = swap.add_path(path, &hotplug, &storages, &at("dev")).await.unwrap_err();
            assert_eq!(error.code(), "HOTPLUG_ADDRESS", "{path}");
        }
        // What was tried in vain is nobody's.
        std::fs::write(at("sys/class/block/vdb/size"), "8\n").unwrap();
        let error = swap.add_path("/dev/vdb", &hotplug, &storages, &at("dev")).await.unwrap_err();
        assert_eq!(error.code(), "SWAP_SIZE");
    }
}
