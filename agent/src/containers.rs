//! The containers of the sandbox: who they are, in which state, with which processes.
//!
//! ```text
//!  id ─reserve─▶ Reservation ─commit─▶ Arc<Container> ─remove─▶ nobody
//!                    │ rolled back ─▶ free        └ effects that could not be taken back
//!                    └ lost (a defect, a rollback that failed) ─▶ tombstone, for ever
//! ```
//! The table is held only to look something up. Work on one container is ordered by that container's own lock
//! ([`Container::work`]), which nothing else waits for.

mod bundle;
mod container;
pub(crate) mod create;
mod error;
pub(crate) mod exec;
mod pid_namespace;
mod process;
pub(crate) mod remove;
pub(crate) mod signal;
pub(crate) mod start;
mod steps;
mod streams;
mod unsupported;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::ids::{ContainerId, ExecId, ProcessRef};
use protocol::status::{MissingProcess, RpcError};

pub(crate) use bundle::Bundle;
pub(crate) use container::{Container, Parts, State};
pub(crate) use error::ContainerError;
use pid_namespace::PidNamespace;
pub(crate) use process::Process;
pub(crate) use remove::end_all;

/// Containers and tombstones at one time.
pub(crate) const MAXIMUM_CONTAINERS: usize = 1024;
/// Names that the agent itself uses beside the containers' directories, so that no container has them.
const RESERVED: [&str; 7] = ["shared", "sandbox", "sandbox-ns", "image", "engine", "sealed", "innerkeep"];

/// What is known under an id.
#[derive(Debug)]
enum Entry {
    /// It is being made.
    Reserved,
    /// It is there.
    Present(Arc<Container>),
    /// Something of it may be left, so nobody is made in its place.
    Tombstone,
}

/// All containers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Containers {
    table: Arc<Mutex<HashMap<ContainerId, Entry>>>,
    pids: Arc<PidNamespace>,
}

impl Containers {
    fn table(&self) -> MutexGuard<'_, HashMap<ContainerId, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process ids that containers share.
    fn pids(&self) -> &PidNamespace {
        &self.pids
    }

    /// The container of this id, if it is there as a whole.
    pub(crate) fn get(&self, id: &ContainerId) -> Option<Arc<Container>> {
        match self.table().get(id) {
            Some(Entry::Present(container)) => Some(Arc::clone(container)),
            _ => None,
        }
    }

    /// A process: the first one of its container, or the one of this exec id, running or ended.
    ///
    /// # Errors
    /// What of it is missing.
    pub(crate) fn process(&self, process: &ProcessRef) -> Result<Arc<Process>, MissingProcess> {
        let container = self.get(&process.container).ok_or(MissingProcess::Container)?;
        container.process(process.exec.as_ref()).ok_or(MissingProcess::Exec)
    }

    /// Takes an id, for a container that is about to be made.
    ///
    /// # Errors
    /// `CONTAINER_ID_RESERVED`, `CONTAINER_ID_TAKEN`, `CONTAINER_TOMBSTONE`, `CONTAINER_TOO_MANY`.
    pub(crate) fn reserve(&self, id: &ContainerId) -> Result<Reservation, ContainerError> {
        // GUARD: container-id-reserved -> evil_host_container_with_a_name_of_the_agent
        if RESERVED.contains(&id.as_str()) {
            return Err(ContainerError::IdReserved);
        }
        let mut table = self.table();
        // GUARD: container-id-tombstone -> evil_host_takes_the_id_of_a_tombstone
        if matches!(table.get(id), Some(Entry::Tombstone)) {
            return Err(ContainerError::Tombstone);
        }
        // GUARD: container-id-collision -> evil_host_id_collision_in_the_table
        if table.contains_key(id) {
            return Err(ContainerError::IdTaken);
        }
        // GUARD: containers-maximum -> evil_host_more_containers_than_there_may_be
        if table.len() >= MAXIMUM_CONTAINERS {
            return Err(ContainerError::TooMany);
        }
        table.insert(id.clone(), Entry::Reserved);
        Ok(Reservation { containers: self.clone(), id: id.clone(), open: true })
    }

    /// Forgets a container of which nothing is left. Its id may be used again.
    pub(crate) fn remove(&self, id: &ContainerId) {
        let mut table = self.table();
        if matches!(table.get(id), Some(Entry::Present(_))) {
            table.remove(id);
        }
    }

    /// Nobody may have this id any more: something of its container may be left.
    pub(crate) fn tombstone(&self, id: &ContainerId) {
        self.table().insert(id.clone(), Entry::Tombstone);
    }

    /// All that are there.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        let table = self.table();
        let present = table.values().filter_map(|entry| match entry {
            Entry::Present(container) => Some(Arc::clone(container)),
            Entry::Reserved | Entry::Tombstone => None,
        });
        present.collect()
    }

    /// Whether there is nothing of any container: none made, none being made, no tombstone.
    pub(crate) fn is_empty(&self) -> bool {
        self.table().is_empty()
    }
}

/// An id that is taken by a container that is not there yet. Dropped without a word, it becomes a tombstone: nobody said that
/// nothing is left.
#[derive(Debug)]
pub(crate) struct Reservation {
    containers: Containers,
    id: ContainerId,
    open: bool,
}

impl Reservation {
    /// The container is there.
    pub(crate) fn commit(mut self, container: Arc<Container>) {
        self.open = false;
        self.containers.table().insert(self.id.clone(), Entry::Present(container));
    }

    /// Nothing of the container is left: the id is free.
    pub(crate) fn release(mut self) {
        self.open = false;
        self.containers.table().remove(&self.id);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.open {
            self.containers.tombstone(&self.id);
        }
    }
}

/// What is told of a process that is not there.
pub(crate) fn missing(what: MissingProcess) -> RpcError {
    match what {
        MissingProcess::Container => RpcError::ProcessWithoutContainer,
        MissingProcess::First => RpcError::FirstProcessGone,
        MissingProcess::Exec => RpcError::NoProcess,
    }
}

/// Whether two optional exec ids of a container mean one process.
fn is_exec(found: Option<&ExecId>, asked: &ExecId) -> bool {
    found.is_some_and(|found| found == asked)
}

#[cfg(test)]
mod tests;
