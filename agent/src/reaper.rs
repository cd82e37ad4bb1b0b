//! Who waits for children: one reaper, for all of them.
//!
//! Process 1 inherits whoever lost its parent, and has to take their status, or they stay for ever. Children that the agent
//! itself starts are waited for by the same reaper, which hands their status on; nobody else calls wait(2) in this process. So no
//! status is lost, and none is taken away: a child is *admitted* under the lock that the reaper takes before it looks.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::AgentError;
use crate::log::{Key, Level, Log};

const SUBSYSTEM: &str = "reaper";
/// Ends of children that nobody waits for which are kept while somebody may still say that the child was its own. More means
/// that somebody floods the machine with orphans: the oldest are forgotten, and whoever claims one of those is told so.
const MAXIMUM_UNCLAIMED: usize = 4096;

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
    /// How many expect a child whose number they do not know yet.
    expecting: usize,
    /// What ended meanwhile, oldest first.
    unclaimed: VecDeque<(i32, Ended)>,
}

impl Table {
    fn keep(&mut self, process: i32, ended: Ended) {
        self.orphans += 1;
        if self.expecting == 0 {
            return;
        }
        if self.unclaimed.len() >= MAXIMUM_UNCLAIMED {
            self.unclaimed.pop_front();
        }
        self.unclaimed.push_back((process, ended));
    }

    /// The last end under this number: numbers are used again.
    fn take_unclaimed(&mut self, process: i32) -> Option<Ended> {
        let at = self.unclaimed.iter().rposition(|(number, _)| *number == process)?;
        self.orphans = self.orphans.saturating_sub(1);
        self.unclaimed.remove(at).map(|(_, ended)| ended)
    }
}

/// A number that is not that of a child of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("process {0} is no child of this one")]
pub struct NotAChild(pub i32);

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
        Ok(wait_for(&self.table, &mut table, process))
    }

    /// Says that a child will come whose number is known only later, because another process makes it in this one's name. Until
    /// the answer is dropped, ends of unknown children are kept.
    #[must_use]
    pub fn expect(&self) -> Expectation {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).expecting += 1;
        Expectation { table: Arc::clone(&self.table) }
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

/// Waits for a living child. The table is locked: the child, even if it has ended, has not been waited for.
fn wait_for(shared: &Arc<Mutex<Table>>, table: &mut Table, process: Pid) -> Admitted {
    let (sender, ended) = oneshot::channel();
    table.waiting.insert(process.as_raw_nonzero().get(), sender);
    let descriptor = pidfd_open(process, PidfdFlags::empty()).ok();
    let handle = Handle { process, descriptor: descriptor.map(Arc::new), table: Arc::clone(shared) };
    Admitted { handle, ended }
}

/// Somebody expects a child.
#[derive(Debug)]
pub struct Expectation {
    table: Arc<Mutex<Table>>,
}

impl Expectation {
    /// Waits for the child of this number, even if it has ended since.
    ///
    /// # Errors
    /// It is none, or so many children have ended since that this one is forgotten.
    pub fn claim(&self, process: Pid) -> Result<Admitted, NotAChild> {
        let number = process.as_raw_nonzero().get();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if table.waiting.contains_key(&number) {
            // Somebody else's.
            return Err(NotAChild(number));
        }
        // Alive, or dead and not yet waited for: whatever ended under this number before was another one.
        if waitid(WaitId::Pid(process), look).is_ok() {
            return Ok(wait_for(&self.table, &mut table, process));
        }
        let end = table.take_unclaimed(number).ok_or(NotAChild(number))?;
        let (sender, ended) = oneshot::channel();
        let _ = sender.send(end);
        Ok(Admitted { handle: Handle { process, descriptor: None, table: Arc::clone(&self.table) }, ended })
    }
}

impl Drop for Expectation {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.expecting = table.expecting.saturating_sub(1);
        if table.expecting == 0 {
            table.unclaimed = VecDeque::new();
        }
    }
}

/// A way to signal a child that never meets another process: numbers are used again, this is not.
#[derive(Clone, Debug)]
pub struct Handle {
    process: Pid,
    /// `None` if it had ended already.
    descriptor: Option<Arc<OwnedFd>>,
    table: Arc<Mutex<Table>>,
}

impl Handle {
    /// Its number.
    #[must_use]
    pub const fn process(&self) -> Pid {
        self.process
    }

    /// A pidfd of its own; `None` if it had ended before one could be had.
    #[must_use]
    pub fn pidfd(&self) -> Option<OwnedFd> {
        self.descriptor.as_ref().and_then(|descriptor| descriptor.try_clone().ok())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `ESRCH` if it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), Errno> {
        self.descriptor.as_ref().map_or(Err(Errno::SRCH), |descriptor| pidfd_send_signal(descriptor, signal))
    }

    /// Sends a signal to the process group that the child leads.
    ///
    /// # Errors
    /// `ESRCH` if the child has ended and been waited for.
    pub fn signal_group(&self, signal: Signal) -> Result<(), Errno> {
        // While the table is locked, and the child is in it, its number is its own.
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if !table.waiting.contains_key(&self.process.as_raw_nonzero().get()) {
            return Err(Errno::SRCH);
        }
        kill_process_group(self.process, signal)
    }
}

/// A child that somebody waits for: a future of its end.
#[derive(Debug)]
pub struct Admitted {
    handle: Handle,
    ended: oneshot::Receiver<Ended>,
}

impl Admitted {
    /// A way to signal it, for as long as anybody likes.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Its number. It is the child's until this future is done.
    #[must_use]
    pub const fn process(&self) -> Pid {
        self.handle.process
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
        let (process, status) = match next_end(&table) {
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
                table.keep(process.as_raw_nonzero().get(), ended);
                orphans += 1;
            }
        }
    }
    if orphans > 0 {
        log.say(Level::Debug, SUBSYSTEM, "orphans ended", &[(Key::Count, orphans.into())]);
    }
}

/// The next child that ended, whoever it is.
#[cfg(not(test))]
fn next_end(_: &Table) -> Result<Option<(Pid, WaitStatus)>, Errno> {
    rustix::process::wait(WaitOptions::NOHANG)
}

/// The next one that somebody waits for: unit tests share a process, each has a reaper, and some wait for children of their own.
#[cfg(test)]
fn next_end(table: &Table) -> Result<Option<(Pid, WaitStatus)>, Errno> {
    let ours = table.waiting.keys().filter_map(|number| Pid::from_raw(*number));
    let ended = |process| rustix::process::waitpid(Some(process), WaitOptions::NOHANG).ok().flatten();
    Ok(ours.into_iter().find_map(ended))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_container_floods_the_machine_with_orphans() {
        let mut table = Table { expecting: 1, ..Table::default() };
        for number in 0..3 * i32::try_from(MAXIMUM_UNCLAIMED).unwrap() {
            table.keep(number, Ended::Exited(number));
        }
        assert_eq!(table.unclaimed.len(), MAXIMUM_UNCLAIMED);
        assert_eq!(table.take_unclaimed(0), None);
        let last = 3 * i32::try_from(MAXIMUM_UNCLAIMED).unwrap() - 1;
        assert_eq!(table.take_unclaimed(last), Some(Ended::Exited(last)));
        assert_eq!(table.take_unclaimed(last), None);
    }

    #[test]
    fn of_one_number_the_last_end_counts() {
        let mut table = Table { expecting: 1, ..Table::default() };
        for status in [3, 4, 5] {
            table.keep(77, Ended::Exited(status));
        }
        assert_eq!(table.take_unclaimed(77), Some(Ended::Exited(5)));
        table.expecting = 0;
        table.keep(78, Ended::Exited(1));
        assert_eq!(table.take_unclaimed(78), None, "nobody expects any");
    }
}
