//! A UNIX socket whose every operation has a deadline.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, IoSlice};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

use crate::backing::timespec;
use crate::error::{ChipError, DeviceError, TransportError};

#[derive(Debug)]
pub(super) struct Socket {
    stream: UnixStream,
}

impl Socket {
    pub(super) fn connect(path: &Path) -> Result<Self, ChipError> {
        let failed = |source| TransportError::Connect { path: path.display().to_string(), source };
        let stream = UnixStream::connect(path).map_err(failed)?;
        Self::from_stream(stream)
    }

    pub(super) fn from_stream(stream: UnixStream) -> Result<Self, ChipError> {
        stream
            .set_nonblocking(true)
            .map_err(|source| TransportError::Io { what: "setting of the socket to non-blocking", source })?;
        Ok(Self { stream })
    }

    /// Sends all bytes; the descriptor goes with the first of them.
    pub(super) fn send(
        &self,
        bytes: &[u8],
        fd: Option<BorrowedFd<'_>>,
        deadline: Deadline,
    ) -> Result<(), ChipError> {
        let mut rest = bytes;
        let mut fd = fd;
        while !rest.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = fd.map(|fd| [fd]);
            if let Some(fds) = &fds {
                control.push(SendAncillaryMessage::ScmRights(fds));
            }
            match sendmsg(&self.stream, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL) {
                Ok(n) => {
                    rest = rest.get(n..).unwrap_or_default();
                    fd = None;
                }
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, deadline)?,
                Err(Errno::INTR) => {}
                Err(e) => return Err(lost(e, "sending")),
            }
        }
        Ok(())
    }

    /// Fills the buffer. Descriptors that come along are closed by the kernel: none is expected.
    pub(super) fn receive(&self, buffer: &mut [u8], deadline: Deadline) -> Result<(), ChipError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match recv(&self.stream, rest, RecvFlags::empty()) {
                Ok((_, 0)) => return Err(DeviceError::Gone { what: "the socket was closed" }.into()),
                Ok((_, n)) => filled += n,
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, deadline)?,
                Err(Errno::INTR) => {}
                Err(e) => return Err(lost(e, "receiving")),
            }
        }
        Ok(())
    }

    fn wait(&self, events: PollFlags, deadline: Deadline) -> Result<(), ChipError> {
        loop {
            let mut fds = [PollFd::new(&self.stream, events)];
            match poll(&mut fds, Some(&timespec(deadline.left()))) {
                Ok(0) => return Err(deadline.missed()),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(lost(e, "waiting")),
            }
        }
    }
}

/// The moment until which an exchange must be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    at: Instant,
    after: Duration,
    what: &'static str,
}

impl Deadline {
    pub(super) fn after(after: Duration, what: &'static str) -> Self {
        Self { at: Instant::now() + after, after, what }
    }

    fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    fn missed(self) -> ChipError {
        let after_ms = u64::try_from(self.after.as_millis()).unwrap_or(u64::MAX);
        DeviceError::Timeout { what: self.what, after_ms }.into()
    }
}

fn lost(errno: Errno, what: &'static str) -> ChipError {
    match errno {
        Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => {
            DeviceError::Gone { what: "the socket was closed" }.into()
        }
        e => TransportError::Io { what, source: e.into() }.into(),
    }
}
