//! The zygote's own side.

use std::os::fd::{AsFd as _, OwnedFd};

use protected_memory::harden::harden_process;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::set_name;

use super::frame::{FrameError, receive, send};
use super::{COPY, NAME};
use crate::engine::helper;
use crate::sys::clone::{Cloned, sibling};
use crate::sys::execute::close_all_but_standard_streams;

/// Mode bits that new files of helpers do not have.
const UMASK: Mode = Mode::from_raw_mode(0o022);
/// Exit status of a zygote that cannot go on.
const FAILURE: i32 = 1;

/// Whether this process was started as one. Whoever says so of itself gets what it has: a process that copies itself.
pub(crate) fn is_one() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// Copies this process until the agent is gone. Returns the exit status, of a copy too.
pub(crate) fn run() -> i32 {
    // A panic must not unwind: in a copy, and in what libcontainer makes of it, the frames below are somebody else's.
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    if prepare().is_err() {
        return FAILURE;
    }
    loop {
        match serve() {
            Ok(Served::Copied) => {}
            Ok(Served::Copy(socket)) => return helper::run(socket),
            Err(FrameError::Ended) => return 0,
            Err(_) => return FAILURE,
        }
    }
}

enum Served {
    Copied,
    Copy(OwnedFd),
}

fn prepare() -> Result<(), Errno> {
    close_all_but_standard_streams()?;
    // Neither core dumps nor looks from outside, for it and its copies.
    harden_process().map_err(|_| Errno::PERM)?;
    rustix::process::umask(UMASK);
    rustix::process::chdir("/")?;
    set_name(c"zygote")
}

/// One request.
fn serve() -> Result<Served, FrameError> {
    let control = rustix::stdio::stdin();
    let request = receive(control, COPY.len(), 1)?;
    let socket = request.descriptors.into_iter().next().ok_or(FrameError::Descriptors)?;
    if request.bytes != COPY {
        return Err(FrameError::TooLong);
    }
    match sibling().map_err(FrameError::System)? {
        Cloned::Copy => {
            leave_control().map_err(FrameError::System)?;
            Ok(Served::Copy(socket))
        }
        Cloned::Original(pid, pidfd) => {
            let number = pid.as_raw_nonzero().get().to_le_bytes();
            send(control, &number, &[pidfd.as_fd()]).map_err(FrameError::System)?;
            Ok(Served::Copied)
        }
    }
}

/// A copy holds neither the control socket nor the lifeline.
fn leave_control() -> Result<(), Errno> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // Whoever signals the agent's processes as a group does not mean it.
    rustix::process::setpgid(None, None)?;
    set_name(c"container-helper")
}
