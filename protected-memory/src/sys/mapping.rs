//! A shared, writable mapping of a file that this process owns, aligned and excluded from core dumps and forks.

#![expect(unsafe_code, reason = "memory maps are pointers")]

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{Ordering, compiler_fence};

use super::device_memory::DeviceMemory;
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Address space that is ours, with a file mapped at an aligned address inside it.
///
/// What surrounds the file is inaccessible, so that running over either end is a fault.
pub(crate) struct Mapping {
    reserved: NonNull<u8>,
    reserved_len: usize,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain memory owned by this value; no thread has any special relation to it.
unsafe impl Send for Mapping {}
// SAFETY: through `&Mapping` only reads of a read-only mapping, the address and the length are given out.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of the file for reading and writing. `len` must not be zero.
    pub(crate) fn writable(file: BorrowedFd<'_>, len: usize, align: usize) -> io::Result<Self> {
        Self::new(file, len, align, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Maps `len` bytes of the file for reading. `len` must not be zero.
    pub(crate) fn readable(file: BorrowedFd<'_>, len: usize, align: usize) -> io::Result<Self> {
        Self::new(file, len, align, ProtFlags::READ)
    }

    fn new(file: BorrowedFd<'_>, len: usize, align: usize, protection: ProtFlags) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let too_long = || io::Error::from(io::ErrorKind::FileTooLarge);
        let align = align.max(page);
        let reserved_len = len
            .checked_next_multiple_of(page)
            .and_then(|pages| pages.checked_add(align))
            .and_then(|pages| pages.checked_add(page))
            .ok_or_else(too_long)?;
        // SAFETY: a fresh anonymous reservation at an address that the kernel chooses touches no existing memory.
        let reserved = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                reserved_len,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let Some(reserved) = NonNull::new(reserved.cast::<u8>()) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        // At least one inaccessible page stays before the file.
        let start_address = (reserved.addr().get() + page).next_multiple_of(align);
        let start = reserved.map_addr(|address| address.saturating_add(start_address - address.get()));
        let mut mapping = Self { reserved, reserved_len, start, len };
        // SAFETY: [start, start + len) lies inside the reservation above, which nothing else uses yet.
        unsafe {
            rustix::mm::mmap(
                start.as_ptr().cast(),
                len,
                protection,
                MapFlags::SHARED | MapFlags::FIXED,
                file,
                0,
            )?;
        }
        mapping.advise(Advice::LinuxDontDump)?;
        mapping.advise(Advice::LinuxDontFork)?;
        Ok(mapping)
    }

    fn advise(&mut self, advice: Advice) -> io::Result<()> {
        // SAFETY: the range is our own mapping; the two advices that are used do not change its contents.
        unsafe { rustix::mm::madvise(self.start.as_ptr().cast(), self.len, advice)? };
        Ok(())
    }

    /// Locks the pages in memory.
    pub(crate) fn lock(&mut self) -> io::Result<()> {
        // SAFETY: the range is our own mapping; locking does not change its contents.
        unsafe { rustix::mm::mlock(self.start.as_ptr().cast(), self.len)? };
        Ok(())
    }

    /// The first byte, for mapping at an IOMMU.
    pub(crate) fn address(&self) -> NonNull<u8> {
        self.start
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes, for writing. Only for files that no other process and no device was given.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the range is mapped readable and writable for the life of `self` and `&mut self` makes the slice
        // unique in this process. Callers use it only for files whose descriptor never left the process, and the file
        // keeps its size, so nobody else changes or truncates the memory.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The bytes, for reading. Only for files that nobody can write any more.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the range is mapped readable for the life of `self`. Callers use it only for files on a superblock
        // that is read-only, so that the memory does not change while the slice lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes as memory that others may change. Only for mappings of which no slice is ever made.
    pub(crate) fn device_memory(&self) -> DeviceMemory {
        // SAFETY: the range is mapped readable and writable for the life of `self`; the only caller keeps the value
        // beside `self`, in a type that makes no slice of the mapping and wipes it only when it is dropped.
        unsafe { DeviceMemory::new(self.start, self.len) }
    }

    /// Overwrites all bytes with zero in a way that the compiler keeps.
    ///
    /// One pass of the C library's `explicit_bzero`, at memory speed. Only for writable mappings of files that nobody
    /// else can shorten.
    pub(crate) fn wipe(&mut self) {
        // SAFETY: the range is mapped writable for the life of `self`, and `&mut self` proves that no slice of it lives.
        unsafe { libc::explicit_bzero(self.start.as_ptr().cast(), self.len) };
        compiler_fence(Ordering::SeqCst);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the reservation was made by `new`, is released once, and no slice outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.reserved.as_ptr().cast(), self.reserved_len) };
    }
}
