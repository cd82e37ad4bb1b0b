//! The system's allocator with counters: how often the heap is asked, how much is live, and the most that ever was.

#![expect(unsafe_code, reason = "an allocator is unsafe to implement")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// Install with `#[global_allocator]`.
#[derive(Debug)]
pub(crate) struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

fn grew(size: usize) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    let size = size as u64;
    let live = LIVE.fetch_add(size, Ordering::Relaxed).saturating_add(size);
    PEAK.fetch_max(live, Ordering::Relaxed);
}

fn shrank(size: usize) {
    LIVE.fetch_sub(size as u64, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator with the same arguments; counting touches no memory that it hands out.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promise is passed on.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: as the caller promised to us.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller's promise is passed on.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: as the caller promised to us.
        unsafe { System.alloc_zeroed(layout) }
    }

    // SAFETY: the caller's promise is passed on.
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grew(size);
        shrank(layout.size());
        // SAFETY: as the caller promised to us.
        unsafe { System.realloc(at, layout, size) }
    }

    // SAFETY: the caller's promise is passed on.
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        shrank(layout.size());
        // SAFETY: as the caller promised to us.
        unsafe { System.dealloc(at, layout) }
    }
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    /// Calls that handed out memory since the start.
    pub(crate) calls: u64,
    /// Bytes that are live.
    pub(crate) live: u64,
}

/// Reads the counters and lets the peak start anew from here.
pub(crate) fn begin() -> Snapshot {
    let live = LIVE.load(Ordering::Relaxed);
    PEAK.store(live, Ordering::Relaxed);
    Snapshot { calls: CALLS.load(Ordering::Relaxed), live }
}

/// Calls since `before`, and by how many bytes the heap was at most larger than then.
pub(crate) fn since(before: Snapshot) -> (u64, u64) {
    let calls = CALLS.load(Ordering::Relaxed) - before.calls;
    (calls, PEAK.load(Ordering::Relaxed).saturating_sub(before.live))
}
