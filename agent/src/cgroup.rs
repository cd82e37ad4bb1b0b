//! The control group of a container, version 2: made, limited, measured, frozen, killed, removed.
//!
//! ```text
//!  /sys/fs/cgroup ─▶ kubepods ─▶ podX ─▶ ID          parents: controllers handed down, no processes, removed when empty
//!                                         │
//!                 resources ─▶ memory.max, cpu.max, …│stats ◀─ cpu.stat, memory.stat, …
//!                 freeze, kill, processes            │oom   ◀─ memory.events (inotify)
//! ```
//!
//! Every file is opened below the root of the control groups by its directory, and never by a link. What a container writes into
//! its own group, and how many groups it makes below it, is its own affair: nothing here is read without an end.
//!
//! It refuses to: use a group that is there already, or one below the group of another container; touch the root.

mod convert;
mod directory;
mod error;
mod number;
pub mod oom;
mod resources;
mod stats;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use error::CgroupError;
pub use oom::OomEvents;
pub use resources::Applied;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::cgroup::directory::{Budget, Directory};
use crate::spec::CgroupPath;

/// How long processes may take to be frozen, or to be gone after SIGKILL.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Groups that a container may make below its own, and how deep.
const MAXIMUM_DESCENDANTS: usize = 1024;
const MAXIMUM_DEPTH: usize = 32;
const PROCESSES: &str = "cgroup.procs";
/// Between two looks at a group whose processes are to freeze or to end.
const LOOK: Duration = Duration::from_millis(5);
/// Attempts to make a group whose parents others remove.
const ATTEMPTS: usize = 16;

/// The control group of one container. It is not removed when dropped.
#[derive(Clone, Debug)]
pub struct Cgroup {
    root: Arc<Directory>,
    path: CgroupPath,
    directory: Arc<Directory>,
}

impl Cgroup {
    /// Makes the group, and the parents that it has not. `root` is where the control groups are mounted.
    ///
    /// # Errors
    /// `CGROUP_TAKEN` if there is one; `CGROUP_PARENT` if a parent has processes, being the group of another container;
    /// `CGROUP_FILE`. Nothing is left then but parents.
    pub fn create(root: &Path, path: &CgroupPath) -> Result<Self, CgroupError> {
        let root = Arc::new(Directory::root(root)?);
        let mut attempts = 0_usize;
        let directory = loop {
            attempts += 1;
            match make(&root, path) {
                // Whoever removes another container takes parents away that are empty.
                Err(CgroupError::File { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound && attempts < ATTEMPTS => {}
                made => break made?,
            }
        };
        let group = Self { root, path: path.clone(), directory: Arc::new(directory) };
        group.bound().inspect_err(|_| group.forget())?;
        Ok(group)
    }

    /// The group of a container that is there.
    ///
    /// # Errors
    /// `CGROUP_FILE`.
    pub fn open(root: &Path, path: &CgroupPath) -> Result<Self, CgroupError> {
        let root = Arc::new(Directory::root(root)?);
        let directory = Arc::new(root.below(path.as_path())?);
        Ok(Self { root, path: path.clone(), directory })
    }

    /// Where it is, below the root.
    #[must_use]
    pub const fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// Its directory: for who attaches a program to it, or starts a process in it.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// A container that makes groups without end would make its removal one.
    fn bound(&self) -> Result<(), CgroupError> {
        self.directory.write_if_there("cgroup.max.descendants", &MAXIMUM_DESCENDANTS.to_string())?;
        self.directory.write_if_there("cgroup.max.depth", &MAXIMUM_DEPTH.to_string())?;
        Ok(())
    }

    /// Processes in it and in what the container made below it. Threads are not listed, and zombies are not.
    ///
    /// # Errors
    /// `CGROUP_FILE`, `CGROUP_MALFORMED`, `CGROUP_TOO_MANY`.
    pub fn processes(&self) -> Result<Vec<Pid>, CgroupError> {
        let mut found = Vec::new();
        self.directory.walk(&mut budget(), &mut |group| {
            let text = match group.read(PROCESSES) {
                // A group of threads: the group above names their processes.
                Err(CgroupError::File { source, .. })
                    if Errno::from_io_error(&source) == Some(Errno::OPNOTSUPP) =>
                {
                    return Ok(());
                }
                text => text?.unwrap_or_default(),
            };
            for line in text.lines() {
                let process = i32::try_from(number::parse(PROCESSES, line)?).ok().and_then(Pid::from_raw);
                // 0 is a process that this process id namespace does not have: of a container, it cannot be.
                found.push(process.ok_or(CgroupError::Malformed { file: PROCESSES })?);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Whether there is a process in it, or below it.
    ///
    /// # Errors
    /// `CGROUP_FILE`, `CGROUP_MALFORMED`.
    pub fn is_populated(&self) -> Result<bool, CgroupError> {
        self.event("populated")
    }

    /// Whether all its processes stand still.
    ///
    /// # Errors
    /// `CGROUP_FILE`, `CGROUP_MALFORMED`.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        self.event("frozen")
    }

    fn event(&self, name: &str) -> Result<bool, CgroupError> {
        const FILE: &str = "cgroup.events";
        let text = self.directory.need(FILE)?;
        match number::pairs(&text).find(|(key, _)| *key == name) {
            Some((_, value)) => Ok(value != 0),
            None => Err(CgroupError::Malformed { file: FILE }),
        }
    }

    /// Freezes all processes and waits until they stand still.
    ///
    /// # Errors
    /// `CGROUP_TIMEOUT` if they do not within [`PATIENCE`]: then they run again. `CGROUP_FILE`.
    pub async fn freeze(&self) -> Result<(), CgroupError> {
        self.directory.write("cgroup.freeze", "1")?;
        let frozen = self.wait("frozen", true).await;
        if frozen.is_err() {
            self.directory.write("cgroup.freeze", "0")?;
        }
        frozen
    }

    /// Lets them run again.
    ///
    /// # Errors
    /// `CGROUP_TIMEOUT`, `CGROUP_FILE`.
    pub async fn thaw(&self) -> Result<(), CgroupError> {
        self.directory.write("cgroup.freeze", "0")?;
        self.wait("frozen", false).await
    }

    /// Kills all processes in it and below it, also frozen ones, and waits until none is left. Their parent has to take their
    /// status as always.
    ///
    /// # Errors
    /// `CGROUP_TIMEOUT` if one is left after [`PATIENCE`]; `CGROUP_FILE`.
    pub async fn kill_all(&self) -> Result<(), CgroupError> {
        if !self.directory.write_if_there("cgroup.kill", "1")? {
            self.kill_each().await?;
        }
        self.wait("populated", false).await
    }

    /// For kernels before 5.14: nobody forks while all stand still.
    async fn kill_each(&self) -> Result<(), CgroupError> {
        // A group that does not freeze is killed as well as it goes: the wait behind says whether somebody is left.
        let _ = self.freeze().await;
        for process in self.processes()? {
            let _ = kill_process(process, Signal::KILL);
        }
        self.directory.write("cgroup.freeze", "0")
    }

    async fn wait(&self, name: &'static str, value: bool) -> Result<(), CgroupError> {
        let until = Instant::now() + PATIENCE;
        while self.event(name)? != value {
            if Instant::now() >= until {
                return Err(CgroupError::Timeout { what: name, seconds: PATIENCE.as_secs() });
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Removes the group with all that the container made below it, and parents that are empty then. What is not there any
    /// more is removed. There must be no processes in it.
    ///
    /// # Errors
    /// `CGROUP_TIMEOUT` if there is still something in it after [`PATIENCE`]; `CGROUP_FILE`.
    pub async fn remove(&self) -> Result<(), CgroupError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.try_remove() {
                Err(CgroupError::File { source, .. })
                    if Errno::from_io_error(&source) == Some(Errno::BUSY) && Instant::now() < until =>
                {
                    sleep(LOOK).await;
                }
                outcome => return outcome,
            }
        }
    }

    fn try_remove(&self) -> Result<(), CgroupError> {
        // The deepest first.
        self.directory.remove_below(&mut budget())?;
        self.root.remove(self.path.as_path())?;
        self.remove_empty_parents();
        Ok(())
    }

    /// A group in which nobody ever was.
    fn forget(&self) {
        let _ = self.root.remove(self.path.as_path());
        self.remove_empty_parents();
    }

    fn remove_empty_parents(&self) {
        for parent in self.path.as_path().ancestors().skip(1).filter(|parent| *parent != Path::new("")) {
            // One that is in use says so.
            if self.root.remove(parent).is_err() {
                break;
            }
        }
    }
}

const fn budget() -> Budget {
    Budget::new(MAXIMUM_DESCENDANTS, MAXIMUM_DEPTH)
}

/// Makes the parents, hands their controllers down, and makes the group itself.
fn make(root: &Directory, path: &CgroupPath) -> Result<Directory, CgroupError> {
    let names: Vec<_> = path.as_path().iter().collect();
    let (last, parents) = names.split_last().ok_or(CgroupError::Taken)?;
    let mut place = PathBuf::new();
    let mut parent = root.below(Path::new("."))?;
    parent.hand_down_controllers()?;
    for name in parents {
        place.push(name);
        root.make(&place, true)?;
        parent = root.below(&place)?;
        refuse_processes(&parent)?;
        parent.hand_down_controllers()?;
    }
    place.push(last);
    root.make(&place, false)?;
    root.below(&place)
}

/// A group with processes is a container's own.
fn refuse_processes(parent: &Directory) -> Result<(), CgroupError> {
    let processes = parent.read(PROCESSES)?.unwrap_or_default();
    // GUARD: cgroup-parent-without-processes -> evil_host_cgroup_below_another_container
    if !processes.trim().is_empty() {
        return Err(CgroupError::Parent);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
