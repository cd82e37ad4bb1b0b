//! Who asks: the container that a connection's other end belongs to, by the word of the kernel alone.
//!
//! ```text
//!  (peer, local) ─/proc/net/tcp─▶ socket ─/proc/PID/fd─▶ every process that has it ─/proc/PID/cgroup─▶ exactly one container
//! ```
//! A container that makes network namespaces of its own has a loopback of its own, too: it does not reach the front by TCP. What nobody can
//! tell, or what two containers may be, is nobody.

mod bundles;
mod known;
mod process;
mod tcp_table;

use std::net::SocketAddr;

use attestation_agent::report_data::WorkloadIdentity;

pub use bundles::Bundles;
pub use known::KnownContainers;
pub use process::ProcPeers;
pub use tcp_table::socket_of;

use crate::config::is_name;

/// The annotation with a container's name.
pub const NAME: &str = "io.kubernetes.cri.container-name";
/// How the names of containers begin that an entry of bound configuration means by what was verified of them.
const OF_ENTRY: &str = "rest:";

/// The name, in lists and evidence, of whom the entry with this index of `[[rest]]` in bound `innerkeep.toml` means.
#[must_use]
pub fn entry_name(index: usize) -> String {
    format!("{OF_ENTRY}{index}")
}

/// Whether a name could be taken for that of such a container.
pub(crate) fn is_entry_name(name: &str) -> bool {
    name.starts_with(OF_ENTRY)
}

/// What a workload's identity begins with. A socket's path, which other identities have there, begins with `/`.
const IDENTITY: &str = "container";

/// A container of this guest: which one, and the name that policy let pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContainerId {
    id: String,
    name: String,
}

impl ContainerId {
    /// The container `id` with the name `name`; none if either is no name: 1 to 253 printable ASCII characters without blanks, and not the name
    /// of an entry.
    #[must_use]
    pub fn new(id: &str, name: &str) -> Option<Self> {
        // GUARD: rest-name-of-entry -> evil_host_calls_a_container_by_the_name_of_an_entry
        if is_entry_name(name) {
            return None;
        }
        (is_name(id) && is_name(name)).then(|| Self { id: id.to_owned(), name: name.to_owned() })
    }

    /// The container `id`, which the entry with this index means.
    #[must_use]
    pub fn of_entry(id: &str, index: usize) -> Option<Self> {
        is_name(id).then(|| Self { id: id.to_owned(), name: entry_name(index) })
    }

    /// Which one: unique while it exists.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its name in bound configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its identity in evidence: that of the name, user 0, socket `container`. A verifier needs no number of this boot for it.
    #[must_use]
    pub fn identity(&self) -> WorkloadIdentity {
        WorkloadIdentity::of(IDENTITY, 0, &self.name)
    }
}

/// Finds out who is at the other end of a connection.
pub trait Peers: Send + Sync {
    /// The container of the TCP connection from `peer` to `local`, if it is one, and that of everybody who has its end. Blocks.
    fn container_of(&self, peer: SocketAddr, local: SocketAddr) -> Option<ContainerId>;
}

/// The containers of this guest.
pub trait Containers: Send + Sync {
    /// All containers that a process in this control group may belong to: those whose group it is, or lies in. Blocks.
    fn of_cgroup(&self, cgroup: &str) -> Vec<ContainerId>;
}

/// Whether a control group is another, or lies in it. The root is nobody's.
pub(crate) fn is_within(cgroup: &str, of: &str) -> bool {
    of.len() > 1 && cgroup.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests;
