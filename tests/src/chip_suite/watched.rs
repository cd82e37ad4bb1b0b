//! A backing that stands between driver and device, counts interrupts, and changes maps behind the driver's back.

use chip_client::ChipError;
use chip_client::address::DeviceAddress;
use chip_client::backing::{DeviceBacking, DmaAccess, DmaSpace, Interrupt, Iova, PciIdentity, Registers};
use protected_memory::dma::DmaRegion;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Number of a mapping, in the order in which a job on `dma-direct` makes them.
pub const STAGING: usize = 1;
/// As [`STAGING`]: the memory in which plaintext lands.
pub const DESTINATION: usize = 2;

/// What becomes of interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// The driver gets them.
    Delivered,
    /// Nobody gets them.
    Lost,
}

/// A backing that is watched.
pub struct Watched {
    inner: Arc<dyn DeviceBacking>,
    dma: WatchedDma,
    interrupts: Interrupts,
    signals: Arc<[AtomicU64; 2]>,
    over: Arc<AtomicBool>,
}

struct WatchedDma {
    inner: Arc<dyn DeviceBacking>,
    maps: Mutex<Vec<Map>>,
}

#[derive(Clone, Copy, Debug)]
struct Map {
    iova: Iova,
    len: u64,
    revoked: bool,
}

impl Watched {
    /// Opens the device.
    pub fn open(chip: &DeviceAddress, interrupts: Interrupts) -> Arc<Self> {
        let inner = chip.open().unwrap_or_else(|error| panic!("open {chip}: {} {error}", error.code()));
        Arc::new(Self {
            dma: WatchedDma { inner: Arc::clone(&inner), maps: Mutex::default() },
            inner,
            interrupts,
            signals: Arc::default(),
            over: Arc::default(),
        })
    }

    /// How often the device signalled each vector, at least: signals that come together count once.
    pub fn signals(&self) -> [u64; 2] {
        [0, 1].map(|vector| self.signals[vector].load(Ordering::Relaxed))
    }

    /// Takes the memory of a mapping away from the device; the driver does not know.
    pub fn revoke(&self, mapping: usize) {
        let map = self.dma.change(mapping, |map| map.revoked = true);
        self.inner.dma().unmap(map.iova, map.len).expect("the device lets go");
    }

    /// Puts other memory of the same length where a mapping is; the driver does not know.
    pub fn replace(&self, mapping: usize, region: &DmaRegion<'_>) {
        let map = self.dma.change(mapping, |_| ());
        assert_eq!(map.len, region.len());
        self.inner.dma().unmap(map.iova, map.len).expect("the device lets go");
        self.inner.dma().map(map.iova, region, DmaAccess::ReadWrite).expect("the device takes other memory");
    }

    /// Function reset behind the driver's back.
    pub fn reset_behind(&self) {
        self.inner.reset().expect("a function reset");
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl DeviceBacking for Watched {
    fn presence(&self) -> Result<PciIdentity, ChipError> {
        self.inner.presence()
    }

    fn map_bar(&self, bar: u8) -> Result<Box<dyn Registers>, ChipError> {
        self.inner.map_bar(bar)
    }

    fn dma(&self) -> &dyn DmaSpace {
        &self.dma
    }

    fn interrupts(&self, count: u16) -> Result<Vec<Interrupt>, ChipError> {
        let mut outer = Vec::new();
        for (vector, interrupt) in self.inner.interrupts(count)?.into_iter().enumerate() {
            let shown = Interrupt::new()?;
            let bell = shown.as_fd().try_clone_to_owned().expect("a second descriptor");
            self.watch(vector, interrupt, bell);
            outer.push(shown);
        }
        Ok(outer)
    }

    fn reset(&self) -> Result<(), ChipError> {
        self.inner.reset()
    }
}

impl Watched {
    fn watch(&self, vector: usize, interrupt: Interrupt, bell: OwnedFd) {
        let (signals, over) = (Arc::clone(&self.signals), Arc::clone(&self.over));
        let delivered = self.interrupts == Interrupts::Delivered;
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if interrupt.wait(Duration::from_millis(50)).is_ok_and(|signalled| signalled) {
                    signals[vector].fetch_add(1, Ordering::Relaxed);
                    if delivered {
                        let _ = rustix::io::write(&bell, &1u64.to_ne_bytes());
                    }
                }
            }
        });
    }
}

impl WatchedDma {
    fn change(&self, mapping: usize, change: impl FnOnce(&mut Map)) -> Map {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let map = maps.get_mut(mapping).expect("the driver mapped so much");
        change(map);
        *map
    }
}

impl DmaSpace for WatchedDma {
    fn usable(&self) -> Vec<RangeInclusive<u64>> {
        self.inner.dma().usable()
    }

    fn map(&self, iova: Iova, region: &DmaRegion<'_>, access: DmaAccess) -> Result<(), ChipError> {
        self.inner.dma().map(iova, region, access)?;
        let map = Map { iova, len: region.len(), revoked: false };
        self.maps.lock().unwrap_or_else(PoisonError::into_inner).push(map);
        Ok(())
    }

    fn unmap(&self, iova: Iova, len: u64) -> Result<(), ChipError> {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let place = maps.iter().position(|map| map.iova == iova).expect("what is unmapped was mapped");
        if maps.remove(place).revoked { Ok(()) } else { self.inner.dma().unmap(iova, len) }
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("signals", &self.signals()).finish_non_exhaustive()
    }
}
