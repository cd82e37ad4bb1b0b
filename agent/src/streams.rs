//! Standard streams of a container's process: pipes or a terminal, read and written by requests or by sockets of the host.
//!
//! ```text
//!  process ◀─stdin── pipe ◀── write_stdin ◀── WriteStdin        served: one request, one part of the stream
//!          ──stdout─▶ pipe ──▶ read_stdout ──▶ ReadStdout
//!          ──stderr─▶ pipe ──▶ read_stderr ──▶ ReadStderr        a terminal: all three are its master
//!
//!  … or, once [`Streams::attach`]ed: copied from and to sockets that the host opened before (`passfd`)
//!  … or, once [`Streams::drain`]ed: read and thrown away, because policy lets nobody read; the process never waits for a reader
//! ```
//!
//! A stream is a file that never blocks and a task's place in the reactor: no thread. Nothing of a stream is in a log, in an
//! error, or in `Debug`. A read that is dropped has taken nothing; a write that is dropped may have written a part.

mod copy;
mod error;
mod input;
mod output;
pub mod passfd;
mod pipes;
mod port;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use error::StreamError;
pub use passfd::{HostSockets, Passfd, Permits, Ports};
pub use pipes::{ChildEnds, PipeSize};
use protocol::ids::TerminalSize;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::streams::input::Input;
use crate::streams::output::Output;
use crate::streams::port::Slot;

/// How long a read waits for more after its process ended: somebody whom the process left behind may still write.
pub const LAST_DATA: Duration = Duration::from_millis(500);

/// How far a process and its terminal are.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    /// The process ended.
    ended: bool,
    /// The terminal was closed by the host.
    closed: bool,
}

/// The streams of one process. Dropped, they are closed, and what copies them ends.
pub struct Streams {
    terminal: Option<Slot>,
    input: Arc<Input>,
    stdout: Arc<Output>,
    stderr: Arc<Output>,
    life: watch::Sender<Life>,
    /// Outputs that are still to be copied to the host.
    unfinished: watch::Sender<usize>,
    tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_terminal() { "terminal" } else { "pipes" };
        f.debug_struct("Streams").field("kind", &kind).finish_non_exhaustive()
    }
}

impl Streams {
    /// Three pipes, and the ends that are for the process. To be called inside a runtime.
    ///
    /// # Errors
    /// `STREAM_SYSTEM`.
    pub fn pipes(size: PipeSize) -> Result<(ChildEnds, Self), StreamError> {
        let (child, ours) = pipes::open(size)?;
        let input = Input::new(Slot::of(ours.stdin)?);
        let stdout = Output::new(Slot::of(ours.stdout)?);
        let stderr = Output::new(Slot::of(ours.stderr)?);
        Ok((child, Self::new(None, input, Arc::new(stdout), Arc::new(stderr))))
    }

    /// A terminal, by its master. To be called inside a runtime.
    ///
    /// # Errors
    /// `STREAM_SYSTEM`.
    pub fn terminal(master: OwnedFd) -> Result<Self, StreamError> {
        let slot = Slot::of(master)?;
        let output = Arc::new(Output::new(slot.clone()));
        Ok(Self::new(Some(slot.clone()), Input::new(slot), Arc::clone(&output), output))
    }

    fn new(terminal: Option<Slot>, input: Input, stdout: Arc<Output>, stderr: Arc<Output>) -> Self {
        Self {
            terminal,
            input: Arc::new(input),
            stdout,
            stderr,
            life: watch::Sender::default(),
            unfinished: watch::Sender::default(),
            tasks: Mutex::default(),
        }
    }

    /// Whether this is a terminal.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Up to `length` bytes of standard output ([`protocol::ids::read_length`]); waits for the first of them. Empty at the end of
    /// the stream: everybody who could write has closed it, or the process ended and nothing came for [`LAST_DATA`].
    ///
    /// # Errors
    /// `STREAM_NO_READER`: the stream goes to a socket. `STREAM_SYSTEM`.
    pub async fn read_stdout(&self, length: usize) -> Result<Vec<u8>, StreamError> {
        self.stdout.serve(length, self.life.subscribe()).await
    }

    /// As [`Self::read_stdout`]; on a terminal it reads the same.
    ///
    /// # Errors
    /// As [`Self::read_stdout`].
    pub async fn read_stderr(&self, length: usize) -> Result<Vec<u8>, StreamError> {
        self.stderr.serve(length, self.life.subscribe()).await
    }

    /// Writes all of `data`, behind what others are still writing, and waits until the process has made room for it.
    ///
    /// # Errors
    /// `STREAM_NO_WRITER`: it is closed, nobody reads it any more, or a socket feeds it. `STREAM_SYSTEM`.
    pub async fn write_stdin(&self, data: &[u8]) -> Result<(), StreamError> {
        self.input.serve(data, self.life.subscribe()).await
    }

    /// Closes standard input, behind what is being written. A terminal is closed as a whole, as upstream's is: its output ends,
    /// and its session is hung up.
    ///
    /// Closing what is closed changes nothing.
    pub fn close_stdin(&self) {
        self.input.close();
        if self.is_terminal() {
            self.life.send_modify(|life| life.closed = true);
        }
    }

    /// Sets the size of the terminal; the kernel tells the processes.
    ///
    /// # Errors
    /// `STREAM_NO_TERMINAL`, `STREAM_SYSTEM`.
    pub fn resize(&self, size: TerminalSize) -> Result<(), StreamError> {
        let port = self.terminal.as_ref().and_then(Slot::port).ok_or(StreamError::NoTerminal)?;
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(port.fd(), size).map_err(StreamError::system("set the size of a terminal"))
    }

    /// From now on output is read and thrown away. Reads give the end of the stream; what they gave before is theirs.
    pub fn drain(&self) {
        for output in self.outputs() {
            self.spawn_drain(output);
        }
    }

    /// From now on the streams are copied from and to the host's sockets, and not served to requests. What has no socket, or
    /// is not permitted: input is closed, output thrown away.
    pub fn attach(&self, sockets: HostSockets, permits: Permits) {
        let sockets = sockets.permitted(permits);
        self.input.take_from_requests();
        match sockets.stdin {
            Some(socket) => {
                let keep_open = self.is_terminal();
                let copy =
                    copy::into_process(socket, Arc::clone(&self.input), self.life.subscribe(), keep_open);
                self.spawn(copy);
            }
            // Closing a terminal would end its output.
            None if self.is_terminal() => {}
            None => self.input.close(),
        }
        let outputs = self.outputs();
        for (output, socket) in outputs.into_iter().zip([sockets.stdout, sockets.stderr]) {
            let Some(socket) = socket else {
                self.spawn_drain(output);
                continue;
            };
            output.take_from_requests();
            self.unfinished.send_modify(|count| *count += 1);
            let copy = copy::out_of_process(output, socket, self.life.subscribe(), self.unfinished.clone());
            self.spawn(copy);
        }
    }

    /// To be told when the process ended: reads come to their end, and writes stop waiting.
    pub fn process_ended(&self) {
        self.life.send_modify(|life| life.ended = true);
    }

    /// Waits until sockets have all output that the process left: at once where there are no sockets. Only after
    /// [`Self::process_ended`] does it have an end.
    pub async fn output_copied(&self) {
        // The sender is ours: it is there as long as this is.
        let _ = self.unfinished.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Standard output, and standard error where that is another file.
    fn outputs(&self) -> Vec<Arc<Output>> {
        if self.is_terminal() {
            return vec![Arc::clone(&self.stdout)];
        }
        vec![Arc::clone(&self.stdout), Arc::clone(&self.stderr)]
    }

    fn spawn_drain(&self, output: Arc<Output>) {
        if output.throw_away() {
            let life = self.life.subscribe();
            self.spawn(async move { copy::to_nowhere(&output, life).await });
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
    }
}

#[cfg(test)]
mod tests;
