//! A container that the engine made, and what it takes to take it away.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};

use super::devices::Attached;
use super::latch::Latch;
use super::order::{CreateOrder, Stdio};
use super::remains::{Group, kill_holders, remove_state};
use super::switches::Switched;
use super::wire::{Guise, undressed};
use super::{EngineError, Places};
use crate::cgroup::Cgroup;
use crate::reaper::Handle;
use crate::spec::Prepared;

/// What the engine's library reads a specification from.
const CONFIG: &str = "config.json";
const CONFIG_MODE: u32 = 0o600;
/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// What is on disk and in the kernel for a container, from before it is made until it is taken away.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) id: String,
    pub(super) group: Group,
    state: PathBuf,
    config: PathBuf,
    pub(super) latch: Latch,
}

impl Site {
    /// Of a container that is to be made. Nothing of it is there yet but its control group, which is made here.
    pub(super) fn new(places: &Places, order: &CreateOrder) -> Result<(Self, OwnedFd), EngineError> {
        let id = order.id.as_str().to_owned();
        let state = places.state.join(&id);
        let group = Group::new(&places.cgroup, order.prepared.cgroup_path.as_path());
        // GUARD: container-state-free -> vm_engine
        if state.symlink_metadata().is_ok() {
            return Err(EngineError::Exists { id });
        }
        check_version(&places.cgroup)?;
        let (latch, other_end) = Latch::pair()?;
        let config = order.bundle.join(CONFIG);
        // Whoever takes the container away kills what is in there; and how much it makes in there has an end.
        // GUARD: group-of-its-own -> vm_engine
        Cgroup::create(&places.cgroup, &order.prepared.cgroup_path)
            .inspect_err(|_| group.forget_parents())?;
        Ok((Self { id, group, state, config, latch }, other_end))
    }

    /// Writes the specification.
    pub(super) fn write_config(&self, prepared: &Prepared) -> Result<(), EngineError> {
        let mut spec = prepared.spec.clone();
        let process = spec.process().as_ref().map(undressed);
        spec.set_process(process);
        let bytes = serde_json::to_vec(&spec)
            .map_err(|error| EngineError::System { what: "write the specification", source: error.into() })?;
        let write = || -> io::Result<()> {
            // Never through a link, never into a file that somebody holds.
            remove_file(&self.config)?;
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true).mode(CONFIG_MODE).open(&self.config)?.write_all(&bytes)
        };
        write().map_err(EngineError::system("write the specification"))
    }

    /// Takes away what an operation left that did not get to its end.
    pub(super) async fn clear_unfinished(&self) -> Result<(), EngineError> {
        let holders = kill_holders(self.latch.other_end()).await;
        self.clear_all([("processes", holders)]).await
    }

    /// Takes everything away that is there. Tries each part, and says what is left.
    pub(super) async fn clear(&self) -> Result<(), EngineError> {
        self.clear_all([]).await
    }

    async fn clear_all<const N: usize>(&self, done: [(&str, io::Result<()>); N]) -> Result<(), EngineError> {
        let group = self.group.remove().await;
        let state = remove_state(&self.state);
        let config = remove_file(&self.config);
        let parts = [("control group", group), ("state", state), ("config.json", config)];
        let all = done.into_iter().chain(parts);
        let left: Vec<String> =
            all.filter_map(|(name, done)| Some(format!("{name}: {}", done.err()?))).collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(EngineError::Left { id: self.id.clone(), what: left.join(", ") })
    }
}

/// Whether these are control groups of version 2: in any other directory limits would be files that nobody looks at.
fn check_version(root: &Path) -> Result<(), EngineError> {
    let found = rustix::fs::statfs(root).map_err(EngineError::system("look at the control groups"))?.f_type;
    // GUARD: groups-of-version-2 -> a_directory_is_no_control_group
    if u64::try_from(found).ok() != Some(CGROUP2_MAGIC) {
        return Err(EngineError::NotEnforced {
            what: "control groups",
            expected: "version 2".to_owned(),
            found: "another file system".to_owned(),
        });
    }
    Ok(())
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its first process waits.
    Created,
    /// Its first process ran.
    Started,
    /// It could not be started, or is being taken away.
    Failed,
}

impl Stage {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Started => "started",
            Self::Failed => "failed",
        }
    }
}

/// A container that was made.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) site: Site,
    pub(super) guise: Guise,
    /// Its control group, as its processes see it.
    pub(super) group: PathBuf,
    pub(super) first: Handle,
    pub(super) devices: std::sync::Mutex<Attached>,
    /// Whether something runs when it is taken away.
    pub(super) has_last_hooks: bool,
    /// One operation at a time.
    pub(super) stage: tokio::sync::Mutex<Stage>,
}

/// What is checked of an order before anything is done.
pub(super) fn check(order: &CreateOrder) -> Result<(&Process, Guise), EngineError> {
    let spec = &order.prepared.spec;
    let process = spec.process().as_ref().ok_or(EngineError::Order { what: "no process" })?;
    check_namespaces(spec)?;
    check_streams(process, &order.stdio)?;
    let guise = Guise::of(process, order.prepared.seccomp.as_ref())?;
    Ok((process, guise))
}

/// Whether the namespaces are such that a container is apart from the agent, and whoever joins it is inside.
fn check_namespaces(spec: &Spec) -> Result<(), EngineError> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let has = |kind| namespaces.is_some_and(|all| all.iter().any(|one| one.typ() == kind));
    // Without one of its own, its mounts would be made among the agent's.
    // GUARD: engine-mount-namespace -> evil_host_container_among_the_mounts_of_the_agent
    if !has(LinuxNamespaceType::Mount) {
        return Err(EngineError::Order { what: "a container without a mount namespace" });
    }
    // Processes that join it would stay outside.
    // GUARD: engine-user-namespace -> evil_host_container_in_a_user_namespace
    if has(LinuxNamespaceType::User) {
        return Err(EngineError::Order { what: "a container with a user namespace" });
    }
    Ok(())
}

/// Whether the streams are of the kind that a process has.
pub(super) fn check_streams(process: &Process, stdio: &Stdio) -> Result<(), EngineError> {
    if (process.terminal() == Some(true)) != matches!(stdio, Stdio::Terminal) {
        return Err(EngineError::Order {
            what: "a process with a terminal has no other streams, and the reverse",
        });
    }
    Ok(())
}

/// Whether something is to run when a container is taken away.
pub(super) fn has_last_hooks(spec: &Spec) -> bool {
    spec.hooks().as_ref().and_then(|hooks| hooks.poststop().as_ref()).is_some_and(|hooks| !hooks.is_empty())
}

/// The descriptors that go with an order to make a process.
pub(super) fn descriptors(latch: OwnedFd, stdio: Stdio) -> Vec<OwnedFd> {
    match stdio {
        Stdio::Pipes { stdin, stdout, stderr } => vec![latch, stdin, stdout, stderr],
        Stdio::Terminal => vec![latch],
    }
}

/// Sets the switches of the network that a container asks for.
pub(super) fn switch(places: &Places, prepared: &Prepared) -> Result<Switched, EngineError> {
    Switched::new(&places.sysctl, &prepared.net_sysctls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(namespaces: &serde_json::Value) -> Option<String> {
        let linux = serde_json::json!({ "namespaces": namespaces });
        let spec = serde_json::json!({ "ociVersion": "1.2.0", "linux": linux });
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let error = check_namespaces(&spec).err()?;
        assert_eq!(error.code(), "ENGINE_ORDER");
        Some(error.to_string())
    }

    #[test]
    fn a_directory_is_no_control_group() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(check_version(directory.path()).unwrap_err().code(), "ENGINE_NOT_ENFORCED");
        assert_eq!(check_version(&directory.path().join("none")).unwrap_err().code(), "ENGINE_SYSTEM");
    }

    #[test]
    fn evil_host_container_among_the_mounts_of_the_agent() {
        assert_eq!(refused(&serde_json::json!([{"type": "mount"}, {"type": "pid"}])), None);
        for namespaces in
            [serde_json::json!([{"type": "pid"}]), serde_json::json!([]), serde_json::Value::Null]
        {
            let text = refused(&namespaces).unwrap();
            assert!(text.contains("without a mount namespace"), "{namespaces}: {text}");
        }
    }

    #[test]
    fn evil_host_container_in_a_user_namespace() {
        let text = refused(&serde_json::json!([{"type": "mount"}, {"type": "user"}])).unwrap();
        assert!(text.contains("with a user namespace"), "{text}");
    }
}
