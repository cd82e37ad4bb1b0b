//! Where a process stops before its program, until the agent has looked at it.
//!
//! ```text
//!  process ─ "R" ─▶ agent: who is this (the kernel says), is it what was ordered? ─ "E"… "G" ─▶ process: execve ─▶ end of file
//!          ─ "B", "P" and the system's answer ─▶ it could not get there, or could not execute
//! ```

use std::io::IoSlice;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_passcred;
use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::EngineError;
use super::order::SecretVariable;
use crate::sys::readiness::watch as register;
use crate::zygote::{Frame, FrameError, pair, receive};

/// The process is ready.
pub(super) const READY: &[u8] = b"R";
/// The process may go on.
pub(super) const GO: &[u8] = b"G";
/// Before that: an entry of its environment, which follows.
pub(super) const ENTRY: u8 = b'E';
/// A step before the program failed, the program failed. The system's answer follows, four bytes.
pub(super) const FAILED: [u8; 2] = *b"BP";
const MAXIMUM_MESSAGE_BYTES: usize = 5;

/// The agent's end.
#[derive(Debug)]
pub(super) struct Latch {
    socket: AsyncFd<OwnedFd>,
    other_end: u64,
}

impl Latch {
    /// Both ends: the other one is for the process, and for nobody else.
    pub(super) fn pair() -> Result<(Self, OwnedFd), EngineError> {
        let (ours, theirs) = pair().map_err(EngineError::system("make a latch"))?;
        // From the first message on the kernel says who sent it.
        set_socket_passcred(&ours, true).map_err(EngineError::system("make a latch"))?;
        let other_end = rustix::fs::fstat(&theirs).map_err(EngineError::system("make a latch"))?.st_ino;
        let socket = register(ours).map_err(EngineError::system("make a latch"))?;
        Ok((Self { socket, other_end }, theirs))
    }

    /// The number by which the other end is found among the descriptors of a process.
    pub(super) const fn other_end(&self) -> u64 {
        self.other_end
    }

    /// Waits until a process is ready, and returns which one.
    pub(super) async fn ready(&self) -> Result<Pid, EngineError> {
        let Some(frame) = self.next().await? else { return Err(EngineError::Ended) };
        if frame.bytes == READY {
            return frame.sender.ok_or(BROKEN);
        }
        Err(failure(&frame.bytes))
    }

    /// Brings it a variable that nobody else sees: after it was looked at, before it goes on.
    pub(super) async fn bring(&self, variable: &SecretVariable) -> Result<(), EngineError> {
        const WHAT: &str = "bring a process its environment";
        let message = [IoSlice::new(&[ENTRY]), IoSlice::new(variable.entry())];
        let write = |socket: &OwnedFd| rustix::io::writev(socket, &message).map_err(std::io::Error::from);
        match self.socket.async_io(Interest::WRITABLE, write).await {
            Ok(length) if length == variable.entry().len() + 1 => Ok(()),
            Ok(_) => Err(BROKEN),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(EngineError::Ended),
            Err(error) => Err(EngineError::system(WHAT)(error)),
        }
    }

    /// Lets it go on.
    pub(super) fn go(&self) -> Result<(), EngineError> {
        match rustix::io::write(self.socket.get_ref(), GO) {
            Ok(_) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(EngineError::Ended),
            Err(other) => Err(EngineError::system("let a process go on")(other)),
        }
    }

    /// Waits until the program runs, or does not.
    pub(super) async fn executed(&self) -> Result<(), EngineError> {
        match self.next().await? {
            // The program does not get this descriptor: it is closed as it begins.
            None => Ok(()),
            Some(frame) => Err(failure(&frame.bytes)),
        }
    }

    async fn next(&self) -> Result<Option<Frame>, EngineError> {
        let receive = |socket: &OwnedFd| match receive(socket.as_fd(), MAXIMUM_MESSAGE_BYTES, 0) {
            Ok(frame) => Ok(Some(frame)),
            Err(FrameError::Ended | FrameError::System(Errno::CONNRESET)) => Ok(None),
            Err(other) => Err(other.into()),
        };
        self.socket
            .async_io(Interest::READABLE, receive)
            .await
            .map_err(EngineError::system("wait for a process"))
    }
}

const BROKEN: EngineError = EngineError::Helper { action: "wait for a process", what: "said something else" };

fn failure(message: &[u8]) -> EngineError {
    let Some((mark, number)) = message.split_first() else { return BROKEN };
    let Ok(number) = <[u8; 4]>::try_from(number) else { return BROKEN };
    let source = std::io::Error::from_raw_os_error(i32::from_le_bytes(number));
    match FAILED.iter().position(|known| known == mark) {
        Some(0) => EngineError::System { what: "prepare the process", source },
        Some(_) => EngineError::Program { source },
        None => BROKEN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_known_and_goes_on() {
        let (latch, theirs) = Latch::pair().unwrap();
        rustix::io::write(&theirs, READY).unwrap();
        assert_eq!(latch.ready().await.unwrap(), rustix::process::getpid());
        latch.go().unwrap();
        let mut answer = [0; 2];
        assert_eq!(rustix::io::read(&theirs, &mut answer).unwrap(), 1);
        assert_eq!(answer[..1], *GO);
        drop(theirs);
        latch.executed().await.unwrap();
        assert_eq!(latch.go().unwrap_err().code(), "ENGINE_ENDED");
        assert_eq!(latch.ready().await.unwrap_err().code(), "ENGINE_ENDED");
    }

    #[tokio::test]
    async fn failures_are_told_apart() {
        for (message, code) in [
            (&b"P\x02\0\0\0"[..], "ENGINE_PROGRAM"),
            (b"B\x0d\0\0\0", "ENGINE_SYSTEM"),
            (b"B\x0d\0\0", "ENGINE_HELPER"),
            (b"X\x0d\0\0\0", "ENGINE_HELPER"),
            (b"G", "ENGINE_HELPER"),
        ] {
            let (latch, theirs) = Latch::pair().unwrap();
            rustix::io::write(&theirs, message).unwrap();
            rustix::io::write(&theirs, message).unwrap();
            assert_eq!(latch.ready().await.unwrap_err().code(), code, "{message:?}");
            assert_eq!(latch.executed().await.unwrap_err().code(), code, "{message:?}");
        }
    }

    #[tokio::test]
    async fn evil_helper_floods_the_latch() {
        let (latch, theirs) = Latch::pair().unwrap();
        rustix::io::write(&theirs, &[b'R'; 64]).unwrap();
        assert_eq!(latch.ready().await.unwrap_err().code(), "ENGINE_SYSTEM");
    }
}
