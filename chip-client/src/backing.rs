//! The seam between driver and device: registers, DMA, interrupts, reset.
//!
//! One driver runs over the kernel's VFIO, over a vfio-user socket, and over whoever plays a lying device in tests and
//! fuzz targets. Nothing that comes through this seam is believed.

use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use protected_memory::dma::DmaRegion;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::error::{ChipError, DeviceError, TransportError};

/// An address in the device's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Iova(pub u64);

/// What a device may do with a mapped range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaAccess {
    /// Read only.
    Read,
    /// Read and write.
    ReadWrite,
}

/// What the configuration space says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciIdentity {
    /// Vendor id; 0xFFFF when no device answers.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
}

/// How the driver reaches a device.
pub trait DeviceBacking: Send + Sync {
    /// Vendor and device id; all ones when nobody answers.
    ///
    /// # Errors
    ///
    /// The way to the device failed.
    fn presence(&self) -> Result<PciIdentity, ChipError>;

    /// The registers of a BAR.
    ///
    /// # Errors
    ///
    /// No such BAR, or the way to the device failed.
    fn map_bar(&self, bar: u8) -> Result<Box<dyn Registers>, ChipError>;

    /// The device's view of memory.
    fn dma(&self) -> &dyn DmaSpace;

    /// Arms MSI-X vectors 0 … `count`−1.
    ///
    /// # Errors
    ///
    /// The device has fewer, or the way to the device failed.
    fn interrupts(&self, count: u16) -> Result<Vec<Interrupt>, ChipError>;

    /// Function reset. Mappings of memory stay.
    ///
    /// # Errors
    ///
    /// The way to the device failed.
    fn reset(&self) -> Result<(), ChipError>;
}

/// Registers of a BAR. All accesses are 4 bytes wide and aligned.
pub trait Registers: Send + Sync {
    /// Size of the BAR in bytes.
    fn size(&self) -> u64;

    /// Reads a register.
    ///
    /// # Errors
    ///
    /// The way to the device failed.
    fn read32(&self, offset: u32) -> Result<u32, ChipError>;

    /// Writes a register.
    ///
    /// # Errors
    ///
    /// The way to the device failed.
    fn write32(&self, offset: u32, value: u32) -> Result<(), ChipError>;
}

/// The device's view of memory.
pub trait DmaSpace: Send + Sync {
    /// Addresses at which memory can be mapped: all, unless whoever translates them says otherwise.
    fn usable(&self) -> Vec<RangeInclusive<u64>> {
        vec![0..=u64::MAX]
    }

    /// Makes a piece of memory visible at an address.
    ///
    /// # Errors
    ///
    /// The device or its keeper refuses.
    fn map(&self, iova: Iova, region: &DmaRegion<'_>, access: DmaAccess) -> Result<(), ChipError>;

    /// Takes it back. On success the device has confirmed that it lets go of the memory.
    ///
    /// # Errors
    ///
    /// The device did not confirm: the memory must be taken as still visible.
    fn unmap(&self, iova: Iova, len: u64) -> Result<(), ChipError>;
}

/// An interrupt: an eventfd that the device's keeper writes.
#[derive(Debug)]
pub struct Interrupt {
    event: OwnedFd,
}

impl Interrupt {
    /// Makes the eventfd.
    ///
    /// # Errors
    ///
    /// The operating system has none left.
    pub fn new() -> Result<Self, ChipError> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| TransportError::Io { what: "creation of an eventfd", source: e.into() })?;
        Ok(Self { event })
    }

    /// Waits for the next interrupt: `true` when there was one since the last wait, `false` after `timeout`.
    ///
    /// # Errors
    ///
    /// The operating system refuses.
    pub fn wait(&self, timeout: Duration) -> Result<bool, ChipError> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.event, PollFlags::IN)];
            match poll(&mut fds, Some(&timespec(left))) {
                Ok(0) => return Ok(false),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(e) => return Err(DeviceError::Interrupt { source: e.into() }.into()),
            }
        }
        let mut counter = [0; 8];
        match rustix::io::read(&self.event, &mut counter) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(e) => Err(DeviceError::Interrupt { source: e.into() }.into()),
        }
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// A duration for the kernel.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
