//! Who starts compartments: a process of one thread and no secret, forked before anything else, that copies itself on request.
//!
//! ```text
//!  agent ── one byte, one socket ──▶ zygote ── clone(CLONE_PARENT) ──▶ helper, a child of the agent's
//!        ◀── number and pidfd ──────
//! ```
//! It is the same program, executed anew: so it shares neither the layout of memory nor anything that was ever in it. What it
//! executes is the program on a read-only mount of its own that is in nobody's tree, and the copies inherit that: no process of
//! a container reaches a writable copy of the program through `/proc/PID/exe`, whoever runs it.
//!
//! It keeps all privileges, because containers are made of its copies, and who has less gives less; all that it reads is one byte and one
//! descriptor, from the agent. A copy gives up what its order does not need as soon as it has read it (`helper::privileges`); filters of system
//! calls it has none, because those would stay with the container. If the zygote dies nothing can be confined any more, and the agent ends.

mod frame;
mod process;

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

pub(crate) use frame::{Frame, FrameError, receive, receive_any, send};
pub(crate) use process::{is_one, run};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, watch};

use crate::error::AgentError;
use crate::sys::mount_attributes;
use crate::sys::readiness::watch as register;

/// The zygote's name, by which a copy of this program knows that it is one.
const NAME: &str = "innerkeep-zygote";
/// Until a copy has to be there.
const ANSWER: Duration = Duration::from_secs(5);
/// Asks for a copy.
const COPY: &[u8] = b"C";

/// A zygote that was started, before there is a runtime.
#[derive(Debug)]
pub struct Zygote {
    control: OwnedFd,
    /// Its other end is held by the zygote alone, for as long as it lives.
    lifeline: OwnedFd,
}

impl Zygote {
    /// Starts it. This process has to have one thread still, so that the zygote is as old as possible; nothing breaks otherwise.
    ///
    /// # Errors
    /// `AGENT_ZYGOTE`. `EPERM` as its cause says that this process may not mount, and could not make containers either.
    pub fn start() -> Result<Self, AgentError> {
        let (control, theirs) = pair().map_err(failed("make the zygote's socket"))?;
        let (lifeline, alive) = pair().map_err(failed("make the zygote's socket"))?;
        let program = program().map_err(failed("mount the program read-only"))?;
        Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .arg0(NAME)
            .env_clear()
            .stdin(theirs)
            .stdout(alive)
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed("execute the zygote"))?;
        Ok(Self { control, lifeline })
    }

    /// Watches over it, inside a runtime.
    ///
    /// # Errors
    /// `AGENT_ZYGOTE`.
    pub fn watch(self) -> Result<Nursery, AgentError> {
        let lifeline = register(self.lifeline).map_err(failed("watch the zygote"))?;
        let (tell, gone) = watch::channel(false);
        tokio::spawn(async move {
            // Nothing is ever sent: it becomes readable by its end.
            drop(lifeline.readable().await);
            tell.send_replace(true);
        });
        let control = register(self.control).map_err(failed("watch the zygote"))?;
        Ok(Nursery { control: Mutex::new(control), gone })
    }
}

/// Where compartments come from.
#[derive(Debug)]
pub struct Nursery {
    control: Mutex<AsyncFd<OwnedFd>>,
    gone: watch::Receiver<bool>,
}

impl Nursery {
    /// Serves for as long as the zygote lives.
    ///
    /// # Errors
    /// `AGENT_ZYGOTE` when it died, those of `serve`.
    pub async fn outlive(
        &self,
        serve: impl Future<Output = Result<(), AgentError>>,
    ) -> Result<(), AgentError> {
        let mut gone = self.gone.clone();
        tokio::select! {
            served = serve => served,
            // The watcher goes only after it has told.
            _ = gone.wait_for(|gone| *gone) => Err(AgentError::ZygoteGone),
        }
    }

    /// Starts a helper, which gets `socket`. It is a child of this process: the caller has said that it expects one.
    ///
    /// # Errors
    /// `AGENT_ZYGOTE`.
    pub(crate) async fn copy(&self, socket: OwnedFd) -> Result<Copied, AgentError> {
        let control = self.control.lock().await;
        let ask = async {
            control
                .async_io(Interest::WRITABLE, |control| Ok(send(control.as_fd(), COPY, &[socket.as_fd()])?))
                .await?;
            control
                .async_io(Interest::READABLE, |control| {
                    receive(control.as_fd(), 4, 1).map_err(io::Error::from)
                })
                .await
        };
        let answer = tokio::time::timeout(ANSWER, ask).await;
        let frame = match answer {
            Ok(Ok(frame)) => frame,
            Ok(Err(source)) => return Err(failed("ask the zygote")(source)),
            Err(_) => return Err(failed("ask the zygote")(io::Error::from(io::ErrorKind::TimedOut))),
        };
        Copied::parse(frame)
            .ok_or_else(|| failed("ask the zygote")(io::Error::from(io::ErrorKind::InvalidData)))
    }
}

/// A helper.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
}

impl Copied {
    fn parse(frame: Frame) -> Option<Self> {
        let number = i32::from_le_bytes(frame.bytes.try_into().ok()?);
        let pid = Pid::from_raw(number).filter(|_| number > 0)?;
        let mut descriptors = frame.descriptors.into_iter();
        let pidfd = descriptors.next()?;
        Some(Self { pid, pidfd })
    }
}

/// This program, on a mount that is read-only and in no tree.
fn program() -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let program = rustix::mount::open_tree(rustix::fs::CWD, "/proc/self/exe", flags)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    mount_attributes::set(program.as_fd(), attributes, false)?;
    Ok(program)
}

/// Two ends of a socket that keeps messages apart. The first one does not block.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

fn failed<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> AgentError {
    move |source| AgentError::Zygote { what, source: source.into() }
}
