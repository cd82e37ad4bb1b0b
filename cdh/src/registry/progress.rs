//! How far a transfer is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Told about a transfer as it goes. Called often, from the transfer itself: it should return at once.
pub trait Progress: Send + Sync {
    /// Bytes came.
    fn advanced(&self, state: &Transferred);
}

/// Nobody looks.
impl Progress for () {
    fn advanced(&self, _: &Transferred) {}
}

impl<F: Fn(&Transferred) + Send + Sync> Progress for F {
    fn advanced(&self, state: &Transferred) {
        self(state);
    }
}

/// State of a transfer of several blobs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transferred {
    /// Bytes that are here and in the right place, also those that were here before. It falls when bytes turn out to be wrong.
    pub done: u64,
    /// Bytes of all blobs.
    pub total: u64,
    /// Bytes that came over the network.
    pub received: u64,
    /// Bytes that came over the network, in each second so far.
    pub bytes_per_second: f64,
}

pub(super) struct Meter<'a> {
    progress: &'a dyn Progress,
    total: u64,
    done: AtomicU64,
    received: AtomicU64,
    start: Instant,
}

impl<'a> Meter<'a> {
    pub(super) fn new(progress: &'a dyn Progress, total: u64) -> Self {
        let (done, received) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { progress, total, done, received, start: Instant::now() }
    }

    /// Bytes came over the network.
    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
        self.found(bytes);
    }

    /// Bytes were here already.
    pub(super) fn found(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    /// Bytes that count no more.
    pub(super) fn lost(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
        self.tell();
    }

    pub(super) fn network_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    fn tell(&self) {
        let received = self.network_bytes();
        let bytes_per_second = received as f64 / self.start.elapsed().as_secs_f64().max(1e-9);
        let done = self.done.load(Ordering::Relaxed);
        self.progress.advanced(&Transferred { done, total: self.total, received, bytes_per_second });
    }
}
