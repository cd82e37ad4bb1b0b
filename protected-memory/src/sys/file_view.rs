//! A read-only view of part of a file in the page cache.

#![expect(unsafe_code, reason = "memory maps are pointers")]

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// A mapping of a whole number of pages of a file, read-only.
pub(crate) struct FileView {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the view is plain memory owned by this value; no thread has any special relation to it.
unsafe impl Send for FileView {}
// SAFETY: the memory is only read.
unsafe impl Sync for FileView {}

impl FileView {
    /// Maps `len` bytes from `offset`, a multiple of the page size. `len` must not be zero.
    pub(crate) fn new(file: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        // SAFETY: a fresh shared read-only mapping at an address that the kernel chooses touches no existing memory.
        let start = unsafe {
            rustix::mm::mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, offset)?
        };
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let view = Self { start, len };
        for advice in [Advice::Sequential, Advice::LinuxHugepage, Advice::LinuxDontFork] {
            // SAFETY: the range is our own mapping; the advices do not change its contents. They are only advice: refusal is no error.
            let _ = unsafe { rustix::mm::madvise(view.start.as_ptr().cast(), view.len, advice) };
        }
        Ok(view)
    }

    /// The bytes, as they are in the page cache.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the range is mapped readable for the life of `self`. The file is ciphertext on a local file system of this machine
        // (see `source`); a writer of the same machine could change it while the slice lives, which authentication then detects: no
        // decision is taken on these bytes but by the AEAD that consumes them. A truncation is a bus error that ends the process.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for FileView {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, is released once, and no slice outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
