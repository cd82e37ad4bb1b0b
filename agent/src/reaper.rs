//! Who waits for children: one reaper, for all of them.
//!
//! Process 1 inherits whoever lost its parent, and has to take their status, or they stay for ever. Children that the agent
//! itself starts are waited for by the same reaper, which hands their status on; nobody else calls wait(2) in this process. So no
//! status is lost, and none is taken away: a child is *admitted* under the lock that the reaper takes before it looks.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::AgentError;
use crate::log::{Key, Level, Log};

const SUBSYSTEM: &str = "reaper";

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    /// The number that upstream reports: the status, or 128 and the signal.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(signal) => 128 + signal,
        }
    }

    fn of(status: WaitStatus) -> Option<Self> {
        status.exit_status().map(Self::Exited).or_else(|| status.terminating_signal().map(Self::Killed))
    }
}

/// The children that somebody waits for.
#[derive(Debug, Default)]
struct Table {
    waiting: HashMap<i32, oneshot::Sender<Ended>>,
    orphans: u64,
}

/// The reaper of this process. Dropped, it stops.
#[derive(Debug)]
pub struct Reaper {
    table: Arc<Mutex<Table>>,
    task: JoinHandle<()>,
}

impl Reaper {
    /// Starts it, inside a runtime. From now on orphans below this process come to it, whichever process this is.
    ///
    /// # Errors
    /// `AGENT_SYSTEM`.
    pub fn start(log: &Log) -> Result<Self, AgentError> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(AgentError::system("take over orphans"))?;
        // Before the first look: who ends in between is seen by it, who ends later raises the signal.
        let mut ended =
            signal(SignalKind::child()).map_err(AgentError::system("listen for ends of children"))?;
        let table = Arc::<Mutex<Table>>::default();
        let (own, log) = (Arc::clone(&table), log.clone());
        let task = tokio::spawn(async move {
            loop {
                reap(&own, &log);
                if ended.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(Self { table, task })
    }

    /// Starts a program. Its standard streams are those of the command, which must not be pipes: who reads them has
    /// to open them.
    ///
    /// # Errors
    /// `AGENT_SYSTEM`.
    pub fn spawn(&self, command: &mut Command) -> Result<Admitted, AgentError> {
        self.admit(|| {
            let child = command.spawn().map_err(AgentError::system("start a process"))?;
            i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| {
                AgentError::system("start a process")(std::io::Error::other("a process without a number"))
            })
        })
    }

    /// Admits a child that `start` makes, in whatever way, this process being its parent. The reaper looks at no child while
    /// `start` runs, so that even one that ends at once is waited for.
    ///
    /// # Errors
    /// That of `start`.
    pub fn admit<E>(&self, start: impl FnOnce() -> Result<Pid, E>) -> Result<Admitted, E> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let process = start()?;
        let (sender, ended) = oneshot::channel();
        table.waiting.insert(process.as_raw_nonzero().get(), sender);
        Ok(Admitted { process, ended })
    }

    /// Orphans whose status was taken so far.
    #[must_use]
    pub fn orphans(&self) -> u64 {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).orphans
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A child that somebody waits for: a future of its end.
#[derive(Debug)]
pub struct Admitted {
    process: Pid,
    ended: oneshot::Receiver<Ended>,
}

impl Admitted {
    /// Its number. It is the child's until this future is done.
    #[must_use]
    pub const fn process(&self) -> Pid {
        self.process
    }
}

impl Future for Admitted {
    /// `None` if the reaper stopped first.
    type Output = Option<Ended>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.ended).poll(context).map(Result::ok)
    }
}

/// Takes the status of every child that ended.
fn reap(table: &Mutex<Table>, log: &Log) {
    let mut orphans = 0_u64;
    loop {
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        let (process, status) = match wait(WaitOptions::NOHANG) {
            Ok(Some(found)) => found,
            Err(Errno::INTR) => continue,
            // Nobody else has ended, or there is nobody else.
            Ok(None) | Err(_) => break,
        };
        let Some(ended) = Ended::of(status) else { continue };
        match table.waiting.remove(&process.as_raw_nonzero().get()) {
            // Nobody may be waiting any more.
            Some(sender) => drop(sender.send(ended)),
            None => {
                table.orphans += 1;
                orphans += 1;
            }
        }
    }
    if orphans > 0 {
        log.say(Level::Debug, SUBSYSTEM, "orphans ended", &[(Key::Count, orphans.into())]);
    }
}
