//! One end of a pipe, a terminal's master or a socket, in the reactor of the runtime.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::{Errno, ioctl_fionbio, read, write};
use tokio::io::unix::AsyncFd;

use crate::streams::StreamError;
use crate::sys::readiness;

/// The most that is read at once: what a pipe holds at most unless it was made larger, and as much memory as a read takes.
pub(super) const CHUNK_BYTES: usize = 64 << 10;

/// A file that never blocks.
pub(super) struct Port(AsyncFd<OwnedFd>);

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Port")
    }
}

impl Port {
    pub(super) fn new(fd: OwnedFd) -> Result<Self, StreamError> {
        ioctl_fionbio(&fd, true).map_err(StreamError::system("make a stream one that never blocks"))?;
        readiness::watch(fd).map(Self).map_err(StreamError::system("wait for a stream"))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// What is there, up to `length` bytes; waits for the first. Empty at the end. Dropped, it has read nothing.
    pub(super) async fn read(&self, length: usize) -> io::Result<Vec<u8>> {
        loop {
            let mut ready = self.0.readable().await?;
            // No await between the bytes and whoever asked: they cannot get lost on the way.
            if let Ok(data) = ready.try_io(|fd| read_some(fd.as_fd(), length)) {
                return data;
            }
        }
    }

    /// What is there now; `None` if there is nothing and it is not the end.
    pub(super) fn read_now(&self, length: usize) -> io::Result<Option<Vec<u8>>> {
        unless_blocked(read_some(self.fd(), length))
    }

    /// Writes a part, at least one byte; waits for room.
    pub(super) async fn write(&self, data: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.writable().await?;
            if let Ok(count) = ready.try_io(|fd| write_some(fd.as_fd(), data)) {
                return count;
            }
        }
    }

    /// Writes what there is room for now; `None` if there is none.
    pub(super) fn write_now(&self, data: &[u8]) -> io::Result<Option<usize>> {
        unless_blocked(write_some(self.fd(), data))
    }
}

fn unless_blocked<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_some(fd: BorrowedFd<'_>, length: usize) -> io::Result<Vec<u8>> {
    let mut data = vec![0; length.min(CHUNK_BYTES)];
    loop {
        match read(fd, &mut data) {
            Ok(count) => {
                data.truncate(count);
                return Ok(data);
            }
            Err(Errno::INTR) => {}
            // What a terminal's master says when nobody has the other side any more, a socket when its peer is gone.
            Err(Errno::IO | Errno::CONNRESET) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn write_some(fd: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    loop {
        match write(fd, data) {
            Err(Errno::INTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}

/// A place for a port, until it is closed. Whoever uses the port at that moment finishes with it first.
#[derive(Clone, Debug)]
pub(super) struct Slot(Arc<Mutex<Option<Arc<Port>>>>);

impl Slot {
    pub(super) fn of(fd: OwnedFd) -> Result<Self, StreamError> {
        Ok(Self(Arc::new(Mutex::new(Some(Arc::new(Port::new(fd)?))))))
    }

    pub(super) fn port(&self) -> Option<Arc<Port>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
