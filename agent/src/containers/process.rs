//! A process of a container: its number, its end, and who asked for it.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::ids::ExecId;
use rustix::process::Pid;
use tokio::sync::watch;

use crate::reaper::Ended;

/// Processes of one container that are known at one time, ended ones included.
pub(crate) const MAXIMUM_PROCESSES: usize = 1024;
/// Ended processes of one container whose status somebody took and that stay to be asked again.
pub(crate) const MAXIMUM_REMEMBERED: usize = 64;

/// A process that was started for the runtime. Its status is kept until the container is removed, or until more than
/// [`MAXIMUM_REMEMBERED`] later ones ended and were waited for.
#[derive(Debug)]
pub(crate) struct Process {
    exec: Option<ExecId>,
    pid: Pid,
    handle: Option<OwnedFd>,
    terminal: bool,
    ended: watch::Receiver<Option<Ended>>,
    taken: AtomicBool,
}

impl Process {
    /// A process. `handle` is its pidfd, `None` if it had ended before one could be had; `ended` says how it ended.
    pub(crate) fn new(
        exec: Option<ExecId>,
        pid: Pid,
        handle: Option<OwnedFd>,
        terminal: bool,
        ended: watch::Receiver<Option<Ended>>,
    ) -> Self {
        Self { exec, pid, handle, terminal, ended, taken: AtomicBool::new(false) }
    }

    /// Its id; the first process of a container may have none.
    pub(crate) fn exec(&self) -> Option<&ExecId> {
        self.exec.as_ref()
    }

    /// Its number in the guest. Only while it runs it is this process's: for signals there is [`handle`](Self::handle).
    pub(crate) const fn pid(&self) -> Pid {
        self.pid
    }

    /// Its pidfd: what is sent there reaches this process or nobody.
    pub(crate) const fn handle(&self) -> Option<&OwnedFd> {
        self.handle.as_ref()
    }

    /// Whether its streams are one terminal.
    pub(crate) const fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&self) -> Option<Ended> {
        *self.ended.borrow()
    }

    /// Waits for its end, and remembers that somebody was told. Any number may wait, at any time; one that is dropped
    /// takes nothing away.
    ///
    /// `None` if the agent stopped waiting for children.
    pub(crate) async fn wait(&self) -> Option<Ended> {
        let mut ended = self.ended.clone();
        let found = ended.wait_for(Option::is_some).await.ok().and_then(|ended| *ended)?;
        self.taken.store(true, Ordering::Release);
        Some(found)
    }

    /// Whether it ended and somebody was told how: its id may be used again.
    pub(crate) fn is_settled(&self) -> bool {
        self.taken.load(Ordering::Acquire) && self.ended().is_some()
    }
}
