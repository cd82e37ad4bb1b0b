//! Standard input: what is written comes whole and in the order in which it was asked for.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Mutex, watch};

use crate::streams::port::{Port, Slot};
use crate::streams::{Life, StreamError};

/// The writing end.
#[derive(Debug)]
pub(super) struct Input {
    slot: Slot,
    turn: Mutex<()>,
    /// A socket feeds it: requests do not.
    is_taken: AtomicBool,
}

impl Input {
    pub(super) fn new(slot: Slot) -> Self {
        Self { slot, turn: Mutex::default(), is_taken: AtomicBool::new(false) }
    }

    pub(super) fn take_from_requests(&self) {
        self.is_taken.store(true, Ordering::Relaxed);
    }

    /// For a request.
    pub(super) async fn serve(&self, data: &[u8], life: watch::Receiver<Life>) -> Result<(), StreamError> {
        if self.is_taken.load(Ordering::Relaxed) {
            return Err(StreamError::NoWriter);
        }
        self.write(data, life).await
    }

    /// Writes all of it. What was asked for before [`Self::close`] is written before the close has its effect.
    pub(super) async fn write(
        &self,
        data: &[u8],
        mut life: watch::Receiver<Life>,
    ) -> Result<(), StreamError> {
        let port = self.slot.port().ok_or(StreamError::NoWriter)?;
        let mut rest = data;
        let written = {
            let whole = async {
                let _turn = self.turn.lock().await;
                while !rest.is_empty() {
                    let count = port.write(rest).await?;
                    rest = rest.get(count..).unwrap_or_default();
                }
                io::Result::Ok(())
            };
            tokio::select! {
                biased;
                outcome = whole => Some(outcome),
                // Nobody may be there who makes room.
                _ = life.wait_for(|life| life.ended || life.closed) => None,
            }
        };
        let outcome = match written {
            Some(outcome) => outcome,
            None => finish(&port, rest),
        };
        outcome.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::WouldBlock => StreamError::NoWriter,
            _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => StreamError::NoWriter,
            _ => StreamError::system("write a stream")(error),
        })
    }

    pub(super) fn close(&self) {
        self.slot.close();
    }
}

/// The rest, if there is room for it.
fn finish(port: &Port, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        let count = port.write_now(rest)?.ok_or(io::ErrorKind::WouldBlock)?;
        rest = rest.get(count..).unwrap_or_default();
    }
    Ok(())
}
