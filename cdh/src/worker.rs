//! Processes that read bytes of strangers for a hub, and what starts them.
//!
//! ```text
//!  hub ── socket: job, a directory, a pipe for the answer; then what there is to do ──▶ child, confined by its own code before it reads any of it
//!                                                                   Trade::Unpack ──▶ image::unpacking: a process for each image
//!                                                                   Trade::Fetch  ──▶ registry::fetching: one for each client of registries
//! ```
//!
//! How a child is started is the caller's: the guest agent has its zygote make one; a program that has none executes itself anew
//! ([`Executed`]). How it is confined is not: the child does that itself, and all of it or nothing
//! ([`become_worker`](protected_memory::confine::become_worker)).

pub(crate) mod channel;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use async_trait::async_trait;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::image::{policy::Cause, unpacking};
use crate::registry::fetching;

/// What a child is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trade {
    /// It unpacks one image.
    Unpack,
    /// It speaks to registries for one client of them.
    Fetch,
}

impl Trade {
    const ALL: [Self; 2] = [Self::Unpack, Self::Fetch];

    /// The name by which a program knows that it is a child.
    const fn name(self) -> &'static str {
        match self {
            Self::Unpack => "innerkeep-unpack",
            Self::Fetch => "innerkeep-fetch",
        }
    }

    /// All that a child does with the socket of its parent; it has one thread, and no descriptor but this one and standard streams. Returns the
    /// exit status.
    #[must_use]
    pub fn run(self, socket: OwnedFd) -> i32 {
        match self {
            Self::Unpack => unpacking::run(socket),
            Self::Fetch => fetching::run(socket),
        }
    }
}

/// Who starts children.
#[async_trait]
pub trait Workers: Send + Sync {
    /// Starts one, which gets this socket and no other descriptor, and calls [`Trade::run`] with it.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being started.
    async fn start(&self, trade: Trade, socket: OwnedFd) -> Result<Box<dyn Process>, Cause>;
}

/// A child. Dropped, it is killed, and somebody waits for its end.
#[async_trait]
pub trait Process: Send {
    /// Kills what is left of it, and waits until there is nothing.
    ///
    /// # Errors
    ///
    /// Nobody can say that it is gone.
    async fn end(self: Box<Self>) -> Result<(), Cause>;
}

/// Children that are a program executed anew: this one, for whoever has no zygote.
#[derive(Clone, Debug)]
pub struct Executed {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Executed {
    /// The program of this process. Its `main` has to begin with [`main`].
    #[must_use]
    pub fn this_program() -> Self {
        Self::of("/proc/self/exe".into(), Vec::new())
    }

    /// Another program, whose `main` does.
    #[must_use]
    pub const fn of(program: PathBuf, arguments: Vec<OsString>) -> Self {
        Self { program, arguments }
    }
}

#[async_trait]
impl Workers for Executed {
    async fn start(&self, trade: Trade, socket: OwnedFd) -> Result<Box<dyn Process>, Cause> {
        Ok(Box::new(self.spawn(trade, socket).await?))
    }
}

impl Executed {
    async fn spawn(&self, trade: Trade, socket: OwnedFd) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.arg0(trade.name()).args(&self.arguments).env_clear().current_dir("/");
        command.stdin(socket).stdout(Stdio::null()).stderr(Stdio::null());
        let (tell, started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        // A thread that lives as long as the child: a child dies with the thread that made it.
        std::thread::Builder::new().name(trade.name().to_owned()).spawn(move || {
            let child = command.spawn();
            // It holds the other end of the socket.
            drop(command);
            match child.and_then(|child| Ok((pidfd(&child)?, child))) {
                Ok((pidfd, mut child)) => {
                    if let Err(unheard) = tell.send(Ok(pidfd)) {
                        kill(unheard.as_ref().ok());
                    }
                    let _ = end.send(child.wait());
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        })?;
        let pidfd = started.await.map_err(|_| io::Error::other("its thread was lost"))??;
        Ok(Child { pidfd, ended })
    }
}

/// One that was executed.
#[derive(Debug)]
struct Child {
    pidfd: OwnedFd,
    ended: oneshot::Receiver<io::Result<std::process::ExitStatus>>,
}

#[async_trait]
impl Process for Child {
    async fn end(mut self: Box<Self>) -> Result<(), Cause> {
        kill(Some(&self.pidfd));
        (&mut self.ended).await.map_err(|_| io::Error::other("its thread was lost"))??;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        kill(Some(&self.pidfd));
    }
}

/// One that is gone is no error.
fn kill(pidfd: Option<&OwnedFd>) {
    if let Some(pidfd) = pidfd {
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
    }
}

fn pidfd(child: &std::process::Child) -> io::Result<OwnedFd> {
    let number = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    Ok(pidfd_open(number, PidfdFlags::empty())?)
}

/// What a program whose children [`Executed`] starts does first: if it is a child, all that it has to do. Its exit status then.
#[must_use]
pub fn main() -> Option<i32> {
    let name = std::env::args_os().next()?;
    let trade = Trade::ALL.into_iter().find(|trade| name == trade.name())?;
    Some(executed(|socket| trade.run(socket)))
}

/// What a child does that was executed, from its beginning on. Returns its exit status.
pub fn executed(run: impl FnOnce(OwnedFd) -> i32) -> i32 {
    if protected_memory::confine::close_descriptors().is_err() {
        return 1;
    }
    match io::stdin().as_fd().try_clone_to_owned() {
        Ok(socket) => run(socket),
        Err(_) => 1,
    }
}
