//! DMA buffers: memory that a device sees, and perhaps the host too.
//!
//! Who can see a buffer is its type: [`DmaBuffer<Shared>`] is visible to device *and host*, [`DmaBuffer<Private>`]
//! only to a device that this guest accepted. Neither is ever given out as a slice, because the other side can rewrite
//! it between two looks: bytes are copied into private memory, each fetched once.

mod error;
mod region;

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create};

pub use error::DmaError;
pub use region::DmaRegion;

use crate::sys::device_memory::DeviceMemory;
use crate::sys::mapping::Mapping;
use crate::{HUGE_PAGE_BYTES, PageClass};

/// The largest DMA buffer: 1 GiB.
pub const DMA_BUFFER_MAX_BYTES: usize = 1 << 30;

/// Where memory that the host sees comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SharedMemoryProvider {
    /// A window in a BAR of the chip.
    ChipBarWindow,
    /// The kernel's heap of memory that is shared with the host.
    DmaHeap,
    /// Ordinary memory of this machine, for an emulated device. Shares nothing with a host.
    Emulated,
}

impl SharedMemoryProvider {
    fn name(self) -> &'static str {
        match self {
            Self::ChipBarWindow => "chip BAR window",
            Self::DmaHeap => "shared dma-heap",
            Self::Emulated => "emulated",
        }
    }
}

/// Who sees a buffer. Implemented by [`Shared`] and [`Private`] only.
pub trait Visibility: sealed::Sealed + fmt::Debug {
    /// The name, for messages.
    const NAME: &'static str;
}

/// Visible to the device and to the host: nothing secret goes in, nothing that comes out is believed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Shared {}

/// Visible to an accepted device only; locked in memory and wiped when dropped.
#[derive(Debug)]
#[non_exhaustive]
pub enum Private {}

impl Visibility for Shared {
    const NAME: &'static str = "shared";
}

impl Visibility for Private {
    const NAME: &'static str = "private";
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Private {}
    impl Sealed for super::Shared {}
}

/// Memory for a device, of fixed size: a file whose seals keep the other side from shortening it under our mapping.
pub struct DmaBuffer<V: Visibility> {
    memory: DeviceMemory,
    mapping: Mapping,
    file: OwnedFd,
    page_class: PageClass,
    wipe: bool,
    visibility: PhantomData<fn() -> V>,
}

impl DmaBuffer<Shared> {
    /// Takes memory from a provider.
    ///
    /// # Errors
    ///
    /// [`DmaError::NoProvider`] for every provider that this build does not have: never a silent substitute.
    pub fn allocate(provider: SharedMemoryProvider, len: usize) -> Result<Self, DmaError> {
        // GUARD: shared-provider -> missing_provider_is_an_error
        if provider != SharedMemoryProvider::Emulated {
            return Err(DmaError::NoProvider { provider: provider.name() });
        }
        Self::new(len)
    }
}

impl DmaBuffer<Private> {
    /// Takes locked private memory.
    ///
    /// # Errors
    ///
    /// The length is zero or above the cap, or the limit on locked memory is too low.
    pub fn allocate(len: usize) -> Result<Self, DmaError> {
        let mut buffer = Self::new(len)?;
        buffer.mapping.lock().map_err(DmaError::system("locking of the private pages"))?;
        buffer.wipe = true;
        Ok(buffer)
    }
}

impl<V: Visibility> DmaBuffer<V> {
    fn new(len: usize) -> Result<Self, DmaError> {
        // GUARD: dma-length -> evil_buffer_length_is_refused
        if len == 0 || len > DMA_BUFFER_MAX_BYTES {
            return Err(DmaError::Length { len, max: DMA_BUFFER_MAX_BYTES });
        }
        if len >= HUGE_PAGE_BYTES
            && len.is_multiple_of(HUGE_PAGE_BYTES)
            && let Ok(buffer) =
                Self::from_memfd(len, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, PageClass::Huge2M)
        {
            return Ok(buffer);
        }
        Self::from_memfd(len, MemfdFlags::empty(), PageClass::Base4K)
    }

    fn from_memfd(len: usize, flags: MemfdFlags, page_class: PageClass) -> Result<Self, DmaError> {
        let flags = flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file =
            memfd_create("innerkeep-dma", flags).map_err(DmaError::system("creation of the memory file"))?;
        ftruncate(&file, len as u64).map_err(DmaError::system("sizing of the memory file"))?;
        fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len as u64)
            .map_err(DmaError::system("allocation of the memory file"))?;
        // GUARD: dma-size-seal -> evil_device_cannot_shorten_a_buffer
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(DmaError::system("sealing of the memory file"))?;
        let align = if len >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { 1 };
        let mapping = Mapping::writable(file.as_fd(), len, align)
            .map_err(DmaError::system("mapping of the memory file"))?;
        let memory = mapping.device_memory();
        Ok(Self { memory, mapping, file, page_class, wipe: false, visibility: PhantomData })
    }

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a buffer is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// The pages behind the buffer.
    pub fn page_class(&self) -> PageClass {
        self.page_class
    }

    /// What a device needs to map the buffer.
    pub fn region(&self) -> DmaRegion<'_> {
        let len = self.mapping.len() as u64;
        DmaRegion::new(self.file.as_fd(), 0, len, Some(self.mapping.address()), self.page_class)
    }

    /// Copies bytes out into private memory, fetching each once.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`].
    pub fn copy_out(&self, offset: usize, to: &mut [u8]) -> Result<(), DmaError> {
        let len = to.len();
        self.memory.copy_out(offset, to).ok_or_else(|| self.out_of_bounds(offset, len))
    }

    /// Copies bytes in, storing each once.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`].
    pub fn copy_in(&self, offset: usize, from: &[u8]) -> Result<(), DmaError> {
        self.memory.copy_in(offset, from).ok_or_else(|| self.out_of_bounds(offset, from.len()))
    }

    /// Reads an aligned word in the machine's byte order; what the device wrote before it is then visible.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`] or [`DmaError::Unaligned`].
    pub fn load_u32(&self, offset: usize) -> Result<u32, DmaError> {
        self.memory.load_u32(offset).ok_or_else(|| self.bad_word(offset, size_of::<u32>()))
    }

    /// Writes an aligned word in the machine's byte order; what was written before it is visible to the device first.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`] or [`DmaError::Unaligned`].
    pub fn store_u32(&self, offset: usize, value: u32) -> Result<(), DmaError> {
        self.memory.store_u32(offset, value).ok_or_else(|| self.bad_word(offset, size_of::<u32>()))
    }

    /// As [`Self::load_u32`].
    ///
    /// # Errors
    ///
    /// As [`Self::load_u32`].
    pub fn load_u64(&self, offset: usize) -> Result<u64, DmaError> {
        self.memory.load_u64(offset).ok_or_else(|| self.bad_word(offset, size_of::<u64>()))
    }

    /// As [`Self::store_u32`].
    ///
    /// # Errors
    ///
    /// As [`Self::store_u32`].
    pub fn store_u64(&self, offset: usize, value: u64) -> Result<(), DmaError> {
        self.memory.store_u64(offset, value).ok_or_else(|| self.bad_word(offset, size_of::<u64>()))
    }

    fn out_of_bounds(&self, offset: usize, len: usize) -> DmaError {
        DmaError::OutOfBounds { offset, len, size: self.mapping.len() }
    }

    fn bad_word(&self, offset: usize, size: usize) -> DmaError {
        if self.memory.is_aligned(offset, size) {
            self.out_of_bounds(offset, size)
        } else {
            DmaError::Unaligned { offset, expected: size }
        }
    }
}

impl<V: Visibility> Drop for DmaBuffer<V> {
    fn drop(&mut self) {
        if self.wipe {
            // GUARD: wipe-private-dma -> dropped_private_buffer_is_wiped
            self.mapping.wipe();
        }
    }
}

impl<V: Visibility> fmt::Debug for DmaBuffer<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaBuffer")
            .field("visibility", &V::NAME)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
