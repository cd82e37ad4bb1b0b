//! Copies out of and into memory that a device or the host can change at any moment.
//!
//! Every byte is read or written exactly once, by relaxed atomic words: the compiler neither repeats nor invents an
//! access, and no reference to the memory exists that it could reason about.

#![expect(unsafe_code, reason = "raw access to memory that others change")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// A run of bytes that others may change.
#[derive(Clone, Copy)]
pub(crate) struct DeviceMemory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: every access is a relaxed or stronger atomic access, from whatever thread.
unsafe impl Send for DeviceMemory {}
// SAFETY: as for `Send`.
unsafe impl Sync for DeviceMemory {}

const WORD: usize = size_of::<u64>();

impl DeviceMemory {
    /// # Safety
    ///
    /// `len` bytes at `start` must be mapped readable and writable, and stay so, for as long as any copy of the value
    /// is used; and this process must access them through values of this type only.
    pub(crate) unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len }
    }

    /// The address of `len` bytes at `offset`, if they lie inside.
    fn at(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        // GUARD: dma-bounds -> evil_offset_outside_buffer_is_refused
        if end > self.len {
            return None;
        }
        // SAFETY: offset <= len of the memory, which is one mapping.
        Some(unsafe { self.start.add(offset) })
    }

    /// Copies out, fetching each byte once. `None` if the range leaves the memory.
    pub(crate) fn copy_out(&self, offset: usize, to: &mut [u8]) -> Option<()> {
        let start = self.at(offset, to.len())?;
        let head_len = start.align_offset(WORD).min(to.len());
        let (head, rest) = to.split_at_mut(head_len);
        let mut at = start;
        for byte in head {
            // SAFETY: `at` runs over the range that `at()` accepted, one byte per element of `to`.
            unsafe {
                *byte = AtomicU8::from_ptr(at.as_ptr()).load(Ordering::Relaxed);
                at = at.add(1);
            }
        }
        let (words, tail) = rest.as_chunks_mut::<WORD>();
        for word in words {
            // SAFETY: as above; `at` is aligned to a word after the head and advances by whole words.
            unsafe {
                *word = AtomicU64::from_ptr(at.as_ptr().cast()).load(Ordering::Relaxed).to_ne_bytes();
                at = at.add(WORD);
            }
        }
        for byte in tail {
            // SAFETY: as above.
            unsafe {
                *byte = AtomicU8::from_ptr(at.as_ptr()).load(Ordering::Relaxed);
                at = at.add(1);
            }
        }
        Some(())
    }

    /// Copies in, storing each byte once. `None` if the range leaves the memory.
    pub(crate) fn copy_in(&self, offset: usize, from: &[u8]) -> Option<()> {
        let start = self.at(offset, from.len())?;
        let head_len = start.align_offset(WORD).min(from.len());
        let (head, rest) = from.split_at(head_len);
        let mut at = start;
        for byte in head {
            // SAFETY: `at` runs over the range that `at()` accepted, one byte per element of `from`.
            unsafe {
                AtomicU8::from_ptr(at.as_ptr()).store(*byte, Ordering::Relaxed);
                at = at.add(1);
            }
        }
        let (words, tail) = rest.as_chunks::<WORD>();
        for word in words {
            // SAFETY: as above; `at` is aligned to a word after the head and advances by whole words.
            unsafe {
                AtomicU64::from_ptr(at.as_ptr().cast()).store(u64::from_ne_bytes(*word), Ordering::Relaxed);
                at = at.add(WORD);
            }
        }
        for byte in tail {
            // SAFETY: as above.
            unsafe {
                AtomicU8::from_ptr(at.as_ptr()).store(*byte, Ordering::Relaxed);
                at = at.add(1);
            }
        }
        Some(())
    }

    /// Whether a word of `size` bytes at `offset` is aligned.
    pub(crate) fn is_aligned(&self, offset: usize, size: usize) -> bool {
        self.start.addr().get().wrapping_add(offset).is_multiple_of(size)
    }

    /// Reads an aligned word, with acquire ordering. `None` if it is not aligned or leaves the memory.
    pub(crate) fn load_u32(&self, offset: usize) -> Option<u32> {
        let at = self.word(offset, size_of::<u32>())?;
        // SAFETY: `word` checked range and alignment.
        Some(unsafe { AtomicU32::from_ptr(at.as_ptr().cast()) }.load(Ordering::Acquire))
    }

    /// Writes an aligned word, with release ordering. `None` if it is not aligned or leaves the memory.
    pub(crate) fn store_u32(&self, offset: usize, value: u32) -> Option<()> {
        let at = self.word(offset, size_of::<u32>())?;
        // SAFETY: `word` checked range and alignment.
        unsafe { AtomicU32::from_ptr(at.as_ptr().cast()) }.store(value, Ordering::Release);
        Some(())
    }

    /// As [`Self::load_u32`].
    pub(crate) fn load_u64(&self, offset: usize) -> Option<u64> {
        let at = self.word(offset, size_of::<u64>())?;
        // SAFETY: `word` checked range and alignment.
        Some(unsafe { AtomicU64::from_ptr(at.as_ptr().cast()) }.load(Ordering::Acquire))
    }

    /// As [`Self::store_u32`].
    pub(crate) fn store_u64(&self, offset: usize, value: u64) -> Option<()> {
        let at = self.word(offset, size_of::<u64>())?;
        // SAFETY: `word` checked range and alignment.
        unsafe { AtomicU64::from_ptr(at.as_ptr().cast()) }.store(value, Ordering::Release);
        Some(())
    }

    fn word(&self, offset: usize, size: usize) -> Option<NonNull<u8>> {
        self.is_aligned(offset, size).then_some(())?;
        self.at(offset, size)
    }
}
