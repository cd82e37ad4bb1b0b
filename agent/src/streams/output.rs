//! Standard output and error.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::{Mutex, watch};

use crate::streams::port::{Port, Slot};
use crate::streams::{LAST_DATA, Life, StreamError};

/// Requests read it.
const SERVED: u8 = 0;
/// A socket has it.
const COPIED: u8 = 1;
/// It is thrown away.
const DISCARDED: u8 = 2;

/// The reading end. Readers take turns in the order in which they came.
#[derive(Debug)]
pub(super) struct Output {
    slot: Slot,
    turn: Mutex<()>,
    purpose: AtomicU8,
}

impl Output {
    pub(super) fn new(slot: Slot) -> Self {
        Self { slot, turn: Mutex::default(), purpose: AtomicU8::new(SERVED) }
    }

    pub(super) fn take_from_requests(&self) {
        self.purpose.store(COPIED, Ordering::Relaxed);
    }

    /// Whether that is new.
    pub(super) fn throw_away(&self) -> bool {
        self.purpose.swap(DISCARDED, Ordering::Relaxed) != DISCARDED
    }

    /// For a request.
    pub(super) async fn serve(
        &self,
        length: usize,
        life: watch::Receiver<Life>,
    ) -> Result<Vec<u8>, StreamError> {
        match self.purpose.load(Ordering::Relaxed) {
            COPIED => Err(StreamError::NoReader),
            DISCARDED => Ok(Vec::new()),
            _ => self.read(length, life).await,
        }
    }

    /// The next bytes; none at the end. Dropped, it has taken nothing.
    pub(super) async fn read(
        &self,
        length: usize,
        mut life: watch::Receiver<Life>,
    ) -> Result<Vec<u8>, StreamError> {
        let Some(port) = self.slot.port() else { return Ok(Vec::new()) };
        if length == 0 {
            return Ok(Vec::new());
        }
        let read = async {
            let _turn = self.turn.lock().await;
            port.read(length).await
        };
        let data = tokio::select! {
            biased;
            data = read => data,
            () = over(&mut life) => self.last(&port, length, *life.borrow()),
        };
        data.map_err(StreamError::system("read a stream"))
    }

    /// What is there although nobody waits for it any longer.
    fn last(&self, port: &Port, length: usize, life: Life) -> io::Result<Vec<u8>> {
        // Whoever has the turn now takes it, and comes before this one.
        match self.turn.try_lock() {
            Ok(_turn) if !life.closed => Ok(port.read_now(length)?.unwrap_or_default()),
            _ => Ok(Vec::new()),
        }
    }
}

/// The terminal is closed, or the process ended and had its time.
async fn over(life: &mut watch::Receiver<Life>) {
    // The sender lives as long as the streams: without it everything is over.
    if life.wait_for(|life| life.ended || life.closed).await.is_ok_and(|life| !life.closed) {
        let _ = tokio::time::timeout(LAST_DATA, life.wait_for(|life| life.closed)).await;
    }
}
