//! Pages for a secret, between pages that nobody may touch.

#![expect(unsafe_code, reason = "memory maps are pointers")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{Ordering, compiler_fence};

use rustix::mm::{Advice, MapFlags, MlockFlags, ProtFlags};

use crate::secret::Backing;

/// A secret's bytes. They end exactly where the inaccessible page behind them begins.
pub(crate) struct SecretPages {
    reserved: NonNull<u8>,
    reserved_len: usize,
    pages: NonNull<u8>,
    pages_len: usize,
    len: usize,
    backing: Backing,
    /// The pages are mapped over the reservation: there is something to wipe.
    mapped: bool,
}

// SAFETY: the pages are plain memory owned by this value.
unsafe impl Send for SecretPages {}
// SAFETY: through `&SecretPages` the bytes are only read.
unsafe impl Sync for SecretPages {}

impl SecretPages {
    /// In `memfd_secret`, if the kernel has it. `len` must not be zero.
    pub(crate) fn secret_memory(len: usize) -> io::Result<Self> {
        // SAFETY: the call takes no pointer; a descriptor that it gives is ours alone.
        let file = unsafe {
            match libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) {
                -1 => return Err(io::Error::last_os_error()),
                fd => OwnedFd::from_raw_fd(i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?),
            }
        };
        Self::in_file(&file, len)
    }

    /// In the pages of an empty file.
    pub(crate) fn in_file(file: &OwnedFd, len: usize) -> io::Result<Self> {
        let mut pages = Self::reserve(len, Backing::SecretMemory)?;
        rustix::fs::ftruncate(file, pages.pages_len as u64)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the range lies inside our own reservation, which nothing uses yet.
        unsafe {
            rustix::mm::mmap(
                pages.pages.as_ptr().cast(),
                pages.pages_len,
                access,
                MapFlags::SHARED | MapFlags::FIXED,
                file,
                0,
            )?;
        }
        pages.mapped = true;
        pages.keep_to_this_process()?;
        Ok(pages)
    }

    /// In anonymous pages that are locked. `len` must not be zero.
    pub(crate) fn locked(len: usize) -> io::Result<Self> {
        let mut pages = Self::reserve(len, Backing::LockedPages)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: the range lies inside our own reservation, which nothing uses yet.
        unsafe {
            rustix::mm::mmap_anonymous(pages.pages.as_ptr().cast(), pages.pages_len, access, flags)?;
            pages.mapped = true;
            rustix::mm::mlock_with(pages.pages.as_ptr().cast(), pages.pages_len, MlockFlags::empty())?;
        }
        pages.keep_to_this_process()?;
        Ok(pages)
    }

    /// Address space with an inaccessible page at each end.
    fn reserve(len: usize, backing: Backing) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let too_long = || io::Error::from(io::ErrorKind::FileTooLarge);
        let pages_len = len.checked_next_multiple_of(page).ok_or_else(too_long)?;
        let reserved_len = pages_len.checked_add(2 * page).ok_or_else(too_long)?;
        // SAFETY: a fresh reservation at an address that the kernel chooses touches no existing memory.
        let reserved = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                reserved_len,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let reserved = NonNull::new(reserved.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the reservation is longer than a page.
        let pages = unsafe { reserved.add(page) };
        Ok(Self { reserved, reserved_len, pages, pages_len, len, backing, mapped: false })
    }

    /// Out of core dumps, out of forked processes.
    fn keep_to_this_process(&mut self) -> io::Result<()> {
        // SAFETY: the range is our own mapping; neither advice changes its contents.
        unsafe {
            // GUARD: secret-not-dumped -> secret_pages_are_not_dumped
            rustix::mm::madvise(self.pages.as_ptr().cast(), self.pages_len, Advice::LinuxDontDump)?;
            // GUARD: secret-not-forked -> forked_child_does_not_have_the_secret
            rustix::mm::madvise(self.pages.as_ptr().cast(), self.pages_len, Advice::LinuxDontFork)?;
        }
        Ok(())
    }

    fn start(&self) -> NonNull<u8> {
        // SAFETY: len <= pages_len, so that the secret lies in the pages and ends where they end.
        unsafe { self.pages.add(self.pages_len - self.len) }
    }

    /// The secret.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the range is mapped readable and writable for the life of `self`.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.len) }
    }

    /// The secret, for writing.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`, and `&mut self` makes the slice unique.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.len) }
    }

    /// What holds the secret.
    pub(crate) fn backing(&self) -> Backing {
        self.backing
    }
}

impl Drop for SecretPages {
    fn drop(&mut self) {
        if self.mapped {
            // GUARD: wipe-secret -> dropped_secret_is_wiped
            wipe(self.bytes_mut());
        }
        // SAFETY: the reservation was made by `reserve`, is released once, and no slice outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.reserved.as_ptr().cast(), self.reserved_len) };
    }
}

/// Overwrites bytes with zero in a way that the compiler keeps.
pub(crate) fn wipe(bytes: &mut [u8]) {
    // SAFETY: the slice is valid for writing for its whole length.
    unsafe { libc::explicit_bzero(bytes.as_mut_ptr().cast(), bytes.len()) };
    compiler_fence(Ordering::SeqCst);
}
