//! The console: written to directly, or by a thread behind a queue of bounded length.

use std::io::{self, Write as _};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that wait for the console.
const MAXIMUM_WAITING: usize = 1024;

/// Writes a line somewhere.
type Write = Box<dyn FnMut(&[u8]) + Send>;

enum Item {
    Line(String),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

enum State {
    Direct(Write),
    Behind {
        queue: SyncSender<Item>,
        lost: u64,
    },
    /// Between the two.
    Changing,
}

pub(crate) struct Sink {
    state: Mutex<State>,
}

impl Sink {
    pub(crate) fn console() -> Self {
        Self::new(Box::new(|bytes| {
            // Nobody is left to tell if the console does not take it.
            let _ = io::stdout().lock().write_all(bytes);
            let _ = io::stdout().lock().flush();
        }))
    }

    pub(crate) fn new(write: Write) -> Self {
        Self { state: Mutex::new(State::Direct(write)) }
    }

    /// Writes what `line` makes of the number of lines that were lost before it.
    pub(crate) fn put(&self, line: impl FnOnce(u64) -> String) {
        match &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Direct(write) => write(line(0).as_bytes()),
            State::Behind { queue, lost } => {
                match queue.try_send(Item::Line(line(*lost))) {
                    Ok(()) => *lost = 0,
                    Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => *lost += 1,
                };
            }
            State::Changing => {}
        }
    }

    pub(crate) fn write_behind(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let write = match std::mem::replace(&mut *state, State::Changing) {
            State::Direct(write) => write,
            other => {
                *state = other;
                return Ok(());
            }
        };
        let (queue, items) = mpsc::sync_channel(MAXIMUM_WAITING);
        thread::Builder::new().name("log".to_owned()).spawn(move || write_all(write, &items))?;
        *state = State::Behind { queue, lost: 0 };
        Ok(())
    }

    /// Waits until what was put before is written, but no longer than this.
    pub(crate) fn flush(&self, limit: Duration) {
        let begun = Instant::now();
        let (done, wait) = mpsc::sync_channel(1);
        let queue = match self.state_within(limit).as_deref() {
            Some(State::Behind { queue, .. }) => queue.clone(),
            Some(State::Direct(_) | State::Changing) | None => return,
        };
        // A full queue is one that the console does not take: then there is nothing to wait for.
        if queue.try_send(Item::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(limit.saturating_sub(begun.elapsed()));
        }
    }

    /// Whoever holds the state may be the one that panicked, or be stuck on the console.
    fn state_within(&self, limit: Duration) -> Option<MutexGuard<'_, State>> {
        let begun = Instant::now();
        loop {
            match self.state.try_lock() {
                Ok(state) => return Some(state),
                Err(TryLockError::Poisoned(state)) => return Some(state.into_inner()),
                Err(TryLockError::WouldBlock) if begun.elapsed() < limit => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => return None,
            }
        }
    }
}

/// Writes a line past the queue, and waits for it no longer than this.
pub(crate) fn last_words(line: String, limit: Duration) {
    let (done, wait) = mpsc::sync_channel(1);
    let write = move || {
        let _ = rustix::io::write(rustix::stdio::stdout(), line.as_bytes());
        let _ = done.send(());
    };
    if thread::Builder::new().spawn(write).is_ok() {
        let _ = wait.recv_timeout(limit);
    }
}

fn write_all(mut write: Write, items: &Receiver<Item>) {
    for item in items {
        match item {
            Item::Line(line) => write(line.as_bytes()),
            Item::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}
