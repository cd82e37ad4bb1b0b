//! Counts the heap, so that a parser that allocates by a length it was told is caught without waiting for it to run out.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What any parser may use beside a multiple of its input: tables of libraries, error texts.
const BASE_BYTES: usize = 1 << 20;
/// A JSON value of a few bytes becomes a tree node of up to two hundred.
const PER_INPUT_BYTE: usize = 256;

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn grew(size: usize) {
    let _ = LIVE.try_with(|live| {
        live.set(live.get().saturating_add(size));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

fn shrank(size: usize) {
    let _ = LIVE.try_with(|live| live.set(live.get().saturating_sub(size)));
}

// SAFETY: every call goes to the system's allocator with the same arguments; counting touches no memory that it hands out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: as the caller promised to us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: as the caller promised to us.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grew(size);
        shrank(layout.size());
        // SAFETY: as the caller promised to us.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        shrank(layout.size());
        // SAFETY: as the caller promised to us.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Runs a parser over `input_len` bytes and refuses that its thread's heap grows beyond a multiple of them.
pub fn bounded<T>(input_len: usize, work: impl FnOnce() -> T) -> T {
    bounded_beside(0, input_len, work)
}

/// As [`bounded`], for a parser that may use so many bytes more whatever its input is.
pub fn bounded_beside<T>(more: usize, input_len: usize, work: impl FnOnce() -> T) -> T {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    let grown = PEAK.get().saturating_sub(before);
    let cap = BASE_BYTES + more + PER_INPUT_BYTE * input_len;
    assert!(grown <= cap, "{grown} bytes of heap for {input_len} bytes of input, the cap is {cap}");
    result
}
