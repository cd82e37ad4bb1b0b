//! Containers that somebody in this process made, and tells of.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{ContainerId, Containers, is_within};

/// Containers and their control groups, kept by whoever makes and removes them.
#[derive(Debug, Default)]
pub struct KnownContainers(Mutex<HashMap<String, (ContainerId, String)>>);

impl KnownContainers {
    /// A container begins to exist: before its first process runs. `cgroup`: its path below the root of the hierarchy, with a leading slash.
    pub fn insert(&self, container: ContainerId, cgroup: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(container.id().to_owned(), (container, cgroup.to_owned()));
    }

    /// A container is gone, and none of its processes is left.
    pub fn remove(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl Containers for KnownContainers {
    fn of_cgroup(&self, cgroup: &str) -> Vec<ContainerId> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .values()
            .filter(|(_, of)| is_within(cgroup, of))
            .map(|(container, _)| container.clone())
            .collect()
    }
}
