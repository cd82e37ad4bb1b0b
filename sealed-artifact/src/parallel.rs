//! Sealing and opening whole payloads with several threads and bounded memory: at most one segment buffer a thread, none for mapped memory.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use zeroize::Zeroizing;

use crate::error::{ArtifactError, length};
use crate::layout::{Layout, Span};
use crate::names::SegmentIndex;
use crate::open::{PayloadOpener, Progress, VerifiedSegment};
use crate::seal::{PayloadSealer, require_whole};

#[cfg(test)]
mod tests;

/// Watches the work, and may stop it.
pub trait Observer: Sync {
    /// Called after each segment with the number of its bytes, by whichever thread did it.
    fn advanced(&self, _bytes: u64) {}

    /// Asked before each segment; `true` ends the work with `CANCELLED`.
    fn is_cancelled(&self) -> bool {
        false
    }
}

impl Observer for () {}

/// Opens a payload from mapped ciphertext into mapped memory: one pass, no copy, no allocation per segment.
///
/// `ciphertext` must be memory that nobody else can change meanwhile. After a failure `plaintext` holds verified
/// segments of an incomplete payload; whoever owns the memory wipes it.
///
/// # Errors
/// `LENGTH_MISMATCH`, `SEGMENT_AUTH_FAILED`, `PAYLOAD_DIGEST_MISMATCH`, `CANCELLED`.
pub fn open_slices(
    opener: &PayloadOpener,
    threads: NonZeroUsize,
    ciphertext: &[u8],
    plaintext: &mut [u8],
    observer: &impl Observer,
) -> Result<(), ArtifactError> {
    opener.require_blob_length(length(ciphertext))?;
    require_whole(opener.layout(), "destination", length(plaintext))?;
    let progress = Mutex::new(opener.progress());
    let windows = Windows::new(opener.layout(), plaintext);
    drive(
        threads,
        observer,
        |taken| windows.next(taken),
        |_, (span, window)| {
            let source = part(ciphertext, &span);
            let verified = opener.open_into(span.segment, source, window)?;
            record(opener, &progress, verified, window)?;
            Ok(span.length)
        },
        Taken::default,
    )?;
    finish(progress)
}

/// Opens a payload that `read` fetches straight into mapped memory, where each segment is opened in place.
///
/// `read` fills the buffer with the ciphertext at the span's offset, once. After a failure as [`open_slices`].
///
/// # Errors
/// What `read` returns, and as [`open_slices`].
pub fn open_reading<E: From<ArtifactError> + Send>(
    opener: &PayloadOpener,
    threads: NonZeroUsize,
    read: impl Fn(&Span, &mut [u8]) -> Result<(), E> + Sync,
    plaintext: &mut [u8],
    observer: &impl Observer,
) -> Result<(), E> {
    require_whole(opener.layout(), "destination", length(plaintext))?;
    let progress = Mutex::new(opener.progress());
    let windows = Windows::new(opener.layout(), plaintext);
    drive(
        threads,
        observer,
        |taken| windows.next(taken),
        |_, (span, window)| -> Result<usize, E> {
            read(&span, window)?;
            let verified = opener.open_in_place(span.segment, window)?;
            record(opener, &progress, verified, window)?;
            Ok(span.length)
        },
        Taken::default,
    )?;
    Ok(finish(progress)?)
}

/// Opens a payload through one buffer a thread: `read` fetches ciphertext, `write` gets plaintext whose tag verified.
///
/// # Errors
/// What `read` and `write` return, and as [`open_slices`].
pub fn open_streaming<E: From<ArtifactError> + Send>(
    opener: &PayloadOpener,
    threads: NonZeroUsize,
    read: impl Fn(&Span, &mut [u8]) -> Result<(), E> + Sync,
    write: impl Fn(&Span, &[u8]) -> Result<(), E> + Sync,
    observer: &impl Observer,
) -> Result<(), E> {
    let progress = Mutex::new(opener.progress());
    let spans = Spans::new(opener.layout());
    drive(
        threads,
        observer,
        |_| spans.next(),
        |buffer: &mut Buffer, span| -> Result<usize, E> {
            let buffer = buffer.window(&span);
            read(&span, buffer)?;
            let verified = opener.open_in_place(span.segment, buffer)?;
            record(opener, &progress, verified, buffer)?;
            write(&span, buffer)?;
            Ok(span.length)
        },
        || Buffer::new(opener.layout()),
    )?;
    Ok(finish(progress)?)
}

/// Seals a payload through one buffer a thread: `read` fetches plaintext at the span's offset, `write` gets ciphertext.
///
/// # Errors
/// What `read` and `write` return; `SEGMENT_REUSED`, `CANCELLED`.
pub fn seal_streaming<E: From<ArtifactError> + Send>(
    sealer: &PayloadSealer,
    threads: NonZeroUsize,
    read: impl Fn(&Span, &mut [u8]) -> Result<(), E> + Sync,
    write: impl Fn(&Span, &[u8]) -> Result<(), E> + Sync,
    observer: &impl Observer,
) -> Result<(), E> {
    let spans = Spans::new(sealer.layout());
    drive(
        threads,
        observer,
        |_| spans.next(),
        |buffer: &mut Buffer, span| -> Result<usize, E> {
            let buffer = buffer.window(&span);
            read(&span, buffer)?;
            sealer.seal_in_place(span.segment, buffer)?;
            write(&span, buffer)?;
            Ok(span.length)
        },
        || Buffer::new(sealer.layout()),
    )
}

/// Seals a payload from mapped plaintext into mapped memory, in one pass.
///
/// # Errors
/// `LENGTH_MISMATCH`, `SEGMENT_REUSED`, `CANCELLED`.
pub fn seal_slices(
    sealer: &PayloadSealer,
    threads: NonZeroUsize,
    plaintext: &[u8],
    ciphertext: &mut [u8],
    observer: &impl Observer,
) -> Result<(), ArtifactError> {
    require_whole(sealer.layout(), "plaintext", length(plaintext))?;
    require_whole(sealer.layout(), "destination", length(ciphertext))?;
    let windows = Windows::new(sealer.layout(), ciphertext);
    drive(
        threads,
        observer,
        |taken| windows.next(taken),
        |_, (span, window)| {
            sealer.seal_into(span.segment, part(plaintext, &span), window)?;
            Ok(span.length)
        },
        Taken::default,
    )
}

/// The bytes of `span`; shorter when the slice is, which the opener then refuses.
fn part<'a>(bytes: &'a [u8], span: &Span) -> &'a [u8] {
    let start = usize::try_from(span.offset).unwrap_or(usize::MAX);
    bytes.get(start..).and_then(|rest| rest.get(..span.length)).unwrap_or_default()
}

/// Records a verified segment; it is hashed outside the lock.
fn record(
    opener: &PayloadOpener,
    progress: &Mutex<Progress>,
    verified: VerifiedSegment,
    plaintext: &[u8],
) -> Result<(), ArtifactError> {
    let hash = verified.hash(opener.has_payload_digest(), plaintext)?;
    lock(progress).record_hashed(verified, hash);
    Ok(())
}

fn finish(progress: Mutex<Progress>) -> Result<(), ArtifactError> {
    progress.into_inner().unwrap_or_else(PoisonError::into_inner).finish()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands out spans in order.
struct Spans {
    layout: Layout,
    next: AtomicU32,
}

impl Spans {
    fn new(layout: &Layout) -> Self {
        Self { layout: *layout, next: AtomicU32::new(0) }
    }

    fn next(&self) -> Option<Span> {
        let claimed = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            (next < self.layout.segments()).then(|| next + 1)
        });
        self.layout.span(SegmentIndex::new(claimed.ok()?)).ok()
    }
}

/// Bytes of memory that one thread takes at a time: a huge page, or one segment if that is larger.
///
/// Two threads that touch the same huge page for the first time wait for each other while the kernel clears it.
const TAKE_BYTES: u64 = 2 << 20;

/// Hands out disjoint windows of one slice with their spans.
struct Windows<'a> {
    layout: Layout,
    left: Mutex<Taken<'a>>,
}

/// Segments `next` to `end` with their memory: what is left for all, or what one thread took.
#[derive(Default)]
struct Taken<'a> {
    next: u32,
    end: u32,
    bytes: &'a mut [u8],
}

impl<'a> Windows<'a> {
    fn new(layout: &Layout, bytes: &'a mut [u8]) -> Self {
        Self { layout: *layout, left: Mutex::new(Taken { next: 0, end: layout.segments(), bytes }) }
    }

    /// The next window of what a thread took, which takes more when that is used up.
    fn next(&self, taken: &mut Taken<'a>) -> Option<(Span, &'a mut [u8])> {
        if taken.next == taken.end {
            let count = u32::try_from(TAKE_BYTES / self.layout.segment_size().bytes()).unwrap_or(u32::MAX);
            *taken = lock(&self.left).split_front(&self.layout, count.max(1))?;
        }
        let one = taken.split_front(&self.layout, 1)?;
        Some((self.layout.span(SegmentIndex::new(one.next)).ok()?, one.bytes))
    }
}

impl Taken<'_> {
    /// Splits off the first `count` segments, or as many as there are; `None` when there are none.
    fn split_front(&mut self, layout: &Layout, count: u32) -> Option<Self> {
        let (next, end) = (self.next, self.next.saturating_add(count).min(self.end));
        let first = layout.span(SegmentIndex::new(next)).ok()?;
        let last = layout.span(SegmentIndex::new(end.checked_sub(1).filter(|last| *last >= next)?)).ok()?;
        let length = usize::try_from(last.offset - first.offset).ok()?.checked_add(last.length)?;
        let (bytes, rest) = std::mem::take(&mut self.bytes).split_at_mut_checked(length)?;
        (self.next, self.bytes) = (end, rest);
        Some(Self { next, end, bytes })
    }
}

/// One segment buffer, wiped when dropped.
struct Buffer(Zeroizing<Vec<u8>>);

impl Buffer {
    fn new(layout: &Layout) -> Self {
        let size = layout.size().min(layout.segment_size().bytes());
        Self(Zeroizing::new(vec![0; usize::try_from(size).unwrap_or_default()]))
    }

    fn window(&mut self, span: &Span) -> &mut [u8] {
        self.0.get_mut(..span.length).unwrap_or_default()
    }
}

/// Runs `job` for everything that `next` hands out, on up to `threads` threads; the first error stops all.
fn drive<J, S, E: From<ArtifactError> + Send>(
    threads: NonZeroUsize,
    observer: &impl Observer,
    next: impl Fn(&mut S) -> Option<J> + Sync,
    job: impl Fn(&mut S, J) -> Result<usize, E> + Sync,
    scratch: impl Fn() -> S + Sync,
) -> Result<(), E> {
    let stopped = AtomicBool::new(false);
    let failure = Mutex::new(None);
    let worker = || {
        let mut scratch = scratch();
        while !stopped.load(Ordering::Relaxed) {
            let outcome = if observer.is_cancelled() {
                Err(ArtifactError::Cancelled.into())
            } else {
                let Some(item) = next(&mut scratch) else { return };
                job(&mut scratch, item)
            };
            match outcome {
                Ok(bytes) => observer.advanced(u64::try_from(bytes).unwrap_or_default()),
                Err(error) => {
                    stopped.store(true, Ordering::Relaxed);
                    lock(&failure).get_or_insert(error);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.get() {
            // Fewer threads than asked for are enough: the caller's own works too.
            if thread::Builder::new().spawn_scoped(scope, worker).is_err() {
                break;
            }
        }
        worker();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
