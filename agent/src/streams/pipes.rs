//! Three pipes: our ends and the process's.

use std::os::fd::OwnedFd;

use rustix::fs::{Uid, fchown};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::streams::StreamError;

/// How much a pipe holds; by default what the kernel gives (64 KiB).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipeSize(usize);

impl PipeSize {
    /// The largest: what the kernel gives to everybody, and what one container's streams may cost three times.
    pub const MAXIMUM: usize = 1 << 20;

    /// In bytes; 0 leaves the kernel's.
    ///
    /// # Errors
    /// `STREAM_PIPE_SIZE`.
    pub fn bytes(bytes: usize) -> Result<Self, StreamError> {
        if bytes > Self::MAXIMUM {
            return Err(StreamError::PipeSize { maximum: Self::MAXIMUM, found: bytes });
        }
        Ok(Self(bytes))
    }
}

/// The ends for the process: blocking, closed when another program is executed unless they become its streams. To be dropped as
/// soon as the process has them, or its output never ends.
#[derive(Debug)]
pub struct ChildEnds {
    /// For reading.
    pub stdin: OwnedFd,
    /// For writing.
    pub stdout: OwnedFd,
    /// For writing.
    pub stderr: OwnedFd,
}

impl ChildEnds {
    /// Makes them this user's, so that a process of another user than root can open `/dev/stdout`.
    ///
    /// # Errors
    /// `STREAM_SYSTEM`.
    pub fn give_to(&self, user: u32) -> Result<(), StreamError> {
        for end in [&self.stdin, &self.stdout, &self.stderr] {
            fchown(end, Some(Uid::from_raw(user)), None)
                .map_err(StreamError::system("change the owner of a stream"))?;
        }
        Ok(())
    }
}

/// Our ends.
pub(super) struct OwnEnds {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

pub(super) fn open(size: PipeSize) -> Result<(ChildEnds, OwnEnds), StreamError> {
    let ((stdin, own_stdin), (own_stdout, stdout), (own_stderr, stderr)) =
        (pipe(size)?, pipe(size)?, pipe(size)?);
    let own = OwnEnds { stdin: own_stdin, stdout: own_stdout, stderr: own_stderr };
    Ok((ChildEnds { stdin, stdout, stderr }, own))
}

/// Reading end and writing end.
fn pipe(size: PipeSize) -> Result<(OwnedFd, OwnedFd), StreamError> {
    let ends = pipe_with(PipeFlags::CLOEXEC).map_err(StreamError::system("make a pipe"))?;
    if size.0 > 0 {
        fcntl_setpipe_size(&ends.0, size.0).map_err(StreamError::system("set the size of a pipe"))?;
    }
    Ok(ends)
}
