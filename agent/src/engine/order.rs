//! What the engine is asked to make.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use protocol::ids::ContainerId;

use crate::reaper::Admitted;
use crate::spec::{Prepared, PreparedProcess};

/// A container: its namespaces, its cgroup and its first process, which runs nothing until [`super::Engine::start`].
#[derive(Debug)]
pub struct CreateOrder {
    /// Its id, which names its state on disk.
    pub id: ContainerId,
    /// The directory that holds `rootfs/`. The engine writes `config.json` there.
    pub bundle: PathBuf,
    /// What it is.
    pub prepared: Prepared,
    /// Its standard streams: a terminal exactly if `prepared` says so.
    pub stdio: Stdio,
}

/// A process that joins a running container.
#[derive(Debug)]
pub struct ExecOrder {
    /// The container.
    pub id: ContainerId,
    /// The process.
    pub process: PreparedProcess,
    /// Its standard streams: a terminal exactly if `process` says so.
    pub stdio: Stdio,
}

/// The standard streams of a process.
#[derive(Debug)]
pub enum Stdio {
    /// The ends that the process holds. They are closed in this process before the answer.
    Pipes {
        /// What it reads.
        stdin: OwnedFd,
        /// What it writes.
        stdout: OwnedFd,
        /// What it complains to.
        stderr: OwnedFd,
    },
    /// A terminal of the container's own; its master comes back in [`Created::terminal`].
    Terminal,
}

/// A process that was made.
#[derive(Debug)]
pub struct Created {
    /// Its end, which nobody else waits for, and a way to signal it.
    pub process: Admitted,
    /// Its number in the guest.
    pub pid: i32,
    /// The master of its terminal, if it was to have one. Its size is 0 × 0.
    pub terminal: Option<OwnedFd>,
}
