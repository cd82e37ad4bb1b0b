//! One container.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::ids::{ContainerId, ExecId};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};

use crate::cgroup::Cgroup;
use crate::containers::process::{MAXIMUM_PROCESSES, MAXIMUM_REMEMBERED};
use crate::containers::{Bundle, ContainerError, Process, is_exec};
use crate::spec::Prepared;

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Made, its first process held before its program.
    Created,
    /// Its first process runs.
    Running,
    /// Frozen.
    Paused,
    /// Its first process ended.
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

#[derive(Debug, Default)]
struct Inner {
    started: bool,
    paused: bool,
    removed: bool,
    /// In the order in which they were started.
    execs: VecDeque<Arc<Process>>,
}

/// The right to work on a container: while it is held nobody else starts, executes in, pauses, changes or removes it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Work<'container> {
    _held: AsyncMutexGuard<'container, ()>,
}

/// What a container is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Its id.
    pub(crate) id: ContainerId,
    /// The process that is held before its program.
    pub(crate) first: Process,
    /// What the engine runs.
    pub(crate) prepared: Prepared,
    /// The group of its processes.
    pub(crate) cgroup: Cgroup,
    /// Its directory.
    pub(crate) bundle: Arc<Bundle>,
}

/// A container that is there as a whole.
#[derive(Debug)]
pub(crate) struct Container {
    id: ContainerId,
    first: Arc<Process>,
    prepared: Prepared,
    cgroup: Cgroup,
    bundle: Arc<Bundle>,
    work: AsyncMutex<()>,
    inner: Mutex<Inner>,
}

impl Container {
    /// A container that was just made.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { id, first, prepared, cgroup, bundle } = parts;
        Self {
            id,
            first: Arc::new(first),
            prepared,
            cgroup,
            bundle,
            work: AsyncMutex::default(),
            inner: Mutex::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its id.
    pub(crate) const fn id(&self) -> &ContainerId {
        &self.id
    }

    /// What the engine runs: the specification as it is enforced.
    pub(crate) const fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// The group of its processes.
    pub(crate) const fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Its directory, with the root of its files.
    pub(crate) const fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// Waits for the work of others on this container to be done. `None` if it was removed by then.
    pub(crate) async fn work(&self) -> Option<Work<'_>> {
        let held = self.work.lock().await;
        (!self.inner().removed).then_some(Work { _held: held })
    }

    /// Nothing is left of it, but for who still asks.
    pub(crate) fn set_removed(&self) {
        self.inner().removed = true;
    }

    /// Its state. Ended is ended, whatever it was before.
    pub(crate) fn state(&self) -> State {
        let inner = self.inner();
        match (self.first.ended(), inner.paused, inner.started) {
            (Some(_), ..) => State::Stopped,
            (None, true, _) => State::Paused,
            (None, false, true) => State::Running,
            (None, false, false) => State::Created,
        }
    }

    /// Its program was let go.
    pub(crate) fn set_started(&self) {
        self.inner().started = true;
    }

    /// It was frozen, or thawed; what it was before comes back then.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.inner().paused = paused;
    }

    /// Its first process.
    pub(crate) const fn first(&self) -> &Arc<Process> {
        &self.first
    }

    /// The first process for `None` and for its own id, else the one of this id, running or ended.
    pub(crate) fn process(&self, exec: Option<&ExecId>) -> Option<Arc<Process>> {
        let Some(exec) = exec else { return Some(Arc::clone(&self.first)) };
        if is_exec(self.first.exec(), exec) {
            return Some(Arc::clone(&self.first));
        }
        self.inner().execs.iter().find(|process| is_exec(process.exec(), exec)).cloned()
    }

    /// All processes that are known, the first one first.
    #[cfg(test)]
    pub(crate) fn processes(&self) -> Vec<Arc<Process>> {
        let inner = self.inner();
        std::iter::once(&self.first).chain(&inner.execs).cloned().collect()
    }

    /// Refuses what is not done in another state.
    ///
    /// # Errors
    /// `CONTAINER_STATE`.
    pub(crate) fn expect(&self, expected: State, name: &'static str) -> Result<(), ContainerError> {
        let found = self.state();
        if found == expected { Ok(()) } else { Err(ContainerError::State { expected: name, found }) }
    }

    /// Whether a process of this id may be started. The id of one that ended is free as soon as somebody was told of the end.
    ///
    /// # Errors
    /// `CONTAINER_EXEC_ID_TAKEN`, `CONTAINER_TOO_MANY_PROCESSES`.
    pub(crate) fn may_exec(&self, exec: &ExecId) -> Result<(), ContainerError> {
        let known = self.process(Some(exec));
        let is_first = is_exec(self.first.exec(), exec);
        // GUARD: exec-id-collision -> evil_host_exec_id_collision
        if is_first || known.is_some_and(|process| !process.is_settled()) {
            return Err(ContainerError::ExecIdTaken(exec.to_string()));
        }
        // GUARD: processes-maximum -> evil_host_more_processes_than_there_may_be
        if self.inner().execs.iter().filter(|process| !process.is_settled()).count() >= MAXIMUM_PROCESSES {
            return Err(ContainerError::TooManyProcesses);
        }
        Ok(())
    }

    /// A process was started, as [`may_exec`](Self::may_exec) allowed under the same [`Work`].
    pub(crate) fn add(&self, process: Arc<Process>) {
        let mut inner = self.inner();
        let same = |found: &Arc<Process>| {
            found.is_settled() && process.exec().is_some_and(|exec| is_exec(found.exec(), exec))
        };
        inner.execs.retain(|found| !same(found));
        // The oldest of those that nobody has to be told of.
        let settled = inner.execs.iter().filter(|process| process.is_settled()).count();
        let mut excess = settled.saturating_sub(MAXIMUM_REMEMBERED);
        inner.execs.retain(|found| {
            let goes = excess > 0 && found.is_settled();
            excess -= usize::from(goes);
            !goes
        });
        inner.execs.push_back(process);
    }
}
