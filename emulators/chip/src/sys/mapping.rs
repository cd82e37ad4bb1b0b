//! A whole file of the client, mapped once.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// A shared mapping of a file from offset 0. The client changes these bytes at any time, so nothing ever borrows them: they
/// are copied out once or written once.
///
/// A client that truncates a file while it is mapped kills this process with SIGBUS: it loses its own device.
pub(crate) struct FileMapping {
    base: NonNull<u8>,
    length: usize,
    writable: bool,
}

// SAFETY: the mapping is plain memory that is valid from any thread until drop; all accesses are copies through raw pointers
// and no reference to the mapped bytes is ever made, so sharing the struct shares no Rust object.
unsafe impl Send for FileMapping {}
// SAFETY: as above; concurrent copies are races on bytes of another process only, which are treated as untrusted.
unsafe impl Sync for FileMapping {}

impl FileMapping {
    /// Maps the first `length` bytes, which the caller took from the file's size.
    pub(crate) fn new(file: BorrowedFd<'_>, length: usize, writable: bool) -> io::Result<Self> {
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a fresh mapping at an address that the kernel chooses aliases nothing.
        let base = unsafe { mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, file, 0) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, length, writable })
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    fn at(&self, offset: usize, length: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(length)?;
        if end > self.length {
            return None;
        }
        // SAFETY: offset ≤ end ≤ length of the mapping, so the result is inside it or one past its end.
        Some(unsafe { self.base.add(offset) })
    }

    /// Copies out. `None`: outside the file.
    pub(crate) fn read(&self, offset: usize, out: &mut [u8]) -> Option<()> {
        let from = self.at(offset, out.len())?;
        // SAFETY: `from` is valid for out.len() bytes by `at`; `out` is private memory and cannot overlap a mapping.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), out.as_mut_ptr(), out.len()) };
        Some(())
    }

    /// Copies in. `None`: outside the file, or mapped for reading.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) -> Option<()> {
        if !self.writable {
            return None;
        }
        let to = self.at(offset, bytes.len())?;
        // SAFETY: `to` is valid for bytes.len() bytes by `at` and the mapping is writable; `bytes` is private memory.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
        Some(())
    }

    /// Overwrites with zeros.
    pub(crate) fn zero(&self, offset: usize, length: usize) -> Option<()> {
        if !self.writable {
            return None;
        }
        let to = self.at(offset, length)?;
        // SAFETY: `to` is valid for `length` bytes by `at` and the mapping is writable.
        unsafe { std::ptr::write_bytes(to.as_ptr(), 0, length) };
        Some(())
    }

    /// Sets up the pages of a range for writing, if the kernel can.
    pub(crate) fn populate(&self, offset: usize, length: usize) {
        const PAGE: usize = 4_096;
        let start = offset & !(PAGE - 1);
        let Some(end) = offset.checked_add(length).and_then(|end| end.checked_next_multiple_of(PAGE)) else {
            return;
        };
        let end = end.min(self.length.next_multiple_of(PAGE));
        if !self.writable || start >= end || self.at(start, 0).is_none() {
            return;
        }
        // SAFETY: start ≤ length by `at`, and the mapping reaches to the end of its last page. Populating reads and writes nothing.
        let _ =
            unsafe { madvise(self.base.as_ptr().add(start).cast(), end - start, Advice::LinuxPopulateWrite) };
    }

    /// Stores two bytes at an even offset so that a reader who sees them sees everything that was written before.
    pub(crate) fn publish(&self, offset: usize, value: [u8; 2]) -> Option<()> {
        if !self.writable || !offset.is_multiple_of(2) {
            return None;
        }
        let to = self.at(offset, 2)?;
        fence(Ordering::SeqCst);
        // SAFETY: `to` is valid for two bytes by `at`, aligned because mappings are page-aligned and the offset is even, and the
        // mapping is writable.
        unsafe { to.cast::<u16>().as_ptr().write_volatile(u16::from_ne_bytes(value)) };
        Some(())
    }
}

impl Drop for FileMapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and nothing borrows it.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
    }
}

impl std::fmt::Debug for FileMapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileMapping").field("length", &self.length).field("writable", &self.writable).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn accesses_outside_the_file_or_against_its_direction_are_refused() {
        let file = rustix::fs::memfd_create("mapping", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 4096).unwrap();
        let writable = FileMapping::new(file.as_fd(), 4096, true).unwrap();
        let readable = FileMapping::new(file.as_fd(), 4096, false).unwrap();
        assert_eq!(writable.write(4094, b"ab"), Some(()));
        assert_eq!(writable.write(4095, b"ab"), None);
        assert_eq!(readable.write(0, b"a"), None);
        assert_eq!(readable.zero(0, 1), None);
        assert_eq!(readable.publish(0, [1, 2]), None);
        assert_eq!(writable.publish(1, [1, 2]), None);
        let mut out = [0; 2];
        assert_eq!(readable.read(4094, &mut out), Some(()));
        assert_eq!(&out, b"ab");
        assert_eq!(readable.read(usize::MAX, &mut out), None);
    }
}
