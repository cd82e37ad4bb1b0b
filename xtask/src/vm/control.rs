//! Commands inside the guest, several at once, over the witness's port.

use super::wire::{self, Exec, Frame, Ready};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::fmt;
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a command said.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Exit status; 128 + signal where a signal ended it.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A command did not end in time.
#[derive(Debug)]
pub struct Expired {
    command: String,
    seconds: u64,
}

impl fmt::Display for Expired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` did not end within {} s", self.command, self.seconds)
    }
}

impl std::error::Error for Expired {}

type Waiting = Arc<Mutex<BTreeMap<u32, Sender<Frame>>>>;

/// The host's end of the port.
#[derive(Debug)]
pub(super) struct Control {
    stream: Arc<Mutex<UnixStream>>,
    waiting: Waiting,
    ready: Receiver<Ready>,
    next: AtomicU32,
}

impl Control {
    pub(super) fn new(stream: UnixStream) -> anyhow::Result<Self> {
        let waiting: Waiting = Arc::default();
        let (send, ready) = channel();
        let (from, to) = (stream.try_clone().context("the control port")?, Arc::clone(&waiting));
        std::thread::spawn(move || {
            let mut from = BufReader::with_capacity(64 << 10, from);
            while let Ok(Some(frame)) = wire::read(&mut from) {
                if frame.kind == wire::READY {
                    if let Ok(text) = serde_json::from_slice(&frame.payload) {
                        let _ = send.send(text);
                    }
                    continue;
                }
                let last = frame.kind == wire::EXIT || frame.kind == wire::FAILED;
                let mut waiting = to.lock().unwrap_or_else(PoisonError::into_inner);
                let id = frame.id;
                if let Some(sender) = waiting.get(&id) {
                    let _ = sender.send(frame);
                }
                if last {
                    waiting.remove(&id);
                }
            }
            // The machine is gone: nobody waits any longer.
            to.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        Ok(Self { stream: Arc::new(Mutex::new(stream)), waiting, ready, next: AtomicU32::new(1) })
    }

    /// What the witness says first; `None` until it did.
    pub(super) fn ready(&self, timeout: Duration) -> Option<Ready> {
        self.ready.recv_timeout(timeout).ok()
    }

    pub(super) fn start(&self, exec: &Exec) -> anyhow::Result<Running> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (send, frames) = channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, send);
        let running = Running { id, frames, stream: Arc::clone(&self.stream), name: exec.argv.join(" ") };
        running.send(wire::EXEC, &serde_json::to_vec(exec)?)?;
        Ok(running)
    }

    pub(super) fn power_off(&self) -> anyhow::Result<()> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        wire::write(&mut *stream, wire::POWER_OFF, 0, &[]).context("switch the guest off")
    }
}

/// A command that runs in the guest.
#[derive(Debug)]
pub struct Running {
    id: u32,
    frames: Receiver<Frame>,
    stream: Arc<Mutex<UnixStream>>,
    name: String,
}

impl Running {
    fn send(&self, kind: u8, payload: &[u8]) -> anyhow::Result<()> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        wire::write(&mut *stream, kind, self.id, payload)
            .with_context(|| format!("speak to the guest about `{}`", self.name))
    }

    /// Its standard input.
    pub fn stdin(&self) -> Stdin {
        Stdin { id: self.id, stream: Arc::clone(&self.stream) }
    }

    /// A signal.
    ///
    /// # Errors
    ///
    /// The machine is gone.
    pub fn signal(&self, number: u8) -> anyhow::Result<()> {
        self.send(wire::SIGNAL, &[number])
    }

    /// Waits for the end and hands every piece of output on as it comes: `true` for standard error.
    ///
    /// # Errors
    ///
    /// The command could not be started, the machine is gone, or the time is over.
    pub fn stream(&self, timeout: Duration, on: &mut dyn FnMut(bool, &[u8])) -> anyhow::Result<i32> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = match self.frames.recv_timeout(left) {
                Ok(frame) => frame,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Expired { command: self.name.clone(), seconds: timeout.as_secs() }.into());
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the guest ended under `{}`", self.name),
            };
            match frame.kind {
                wire::STDOUT => on(false, &frame.payload),
                wire::STDERR => on(true, &frame.payload),
                wire::EXIT => {
                    let status = frame.payload.first_chunk::<4>().context("an exit without a status")?;
                    return Ok(i32::from_le_bytes(*status));
                }
                wire::FAILED => {
                    bail!("`{}` could not be started: {}", self.name, String::from_utf8_lossy(&frame.payload))
                }
                other => bail!("the witness sent a frame of kind {other:#x}"),
            }
        }
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// As [`Running::stream`], with what was said until then.
    pub fn wait(&self, timeout: Duration) -> anyhow::Result<Said> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let outcome = self.stream(timeout, &mut |error, bytes| {
            if error { stderr.extend_from_slice(bytes) } else { stdout.extend_from_slice(bytes) }
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match outcome {
            Ok(status) => Ok(Said { status, stdout: text(&stdout), stderr: text(&stderr) }),
            Err(error) => Err(error.context(format!("said until then: {}{}", text(&stdout), text(&stderr)))),
        }
    }
}

/// The standard input of a command in the guest.
#[derive(Debug)]
pub struct Stdin {
    id: u32,
    stream: Arc<Mutex<UnixStream>>,
}

impl Stdin {
    /// Bytes for it.
    ///
    /// # Errors
    ///
    /// The machine is gone.
    pub fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        if bytes.is_empty() { Ok(()) } else { self.send(bytes) }
    }

    /// Its end.
    ///
    /// # Errors
    ///
    /// The machine is gone.
    pub fn close(&self) -> std::io::Result<()> {
        self.send(&[])
    }

    fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        wire::write(&mut *stream, wire::STDIN, self.id, bytes)
    }
}
