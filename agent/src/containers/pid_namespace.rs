//! The process ids that containers share where the runtime asks for it: those of the sandbox's first container, never the agent's.
//!
//! They are pinned by a bind mount, so that what a later container joins is this namespace and not that of whoever has the number of
//! the first process by then.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::ids::ContainerId;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::containers::{ContainerError, Process};

#[derive(Debug, Default)]
struct State {
    /// There was a first container.
    begun: bool,
    pinned: Option<(ContainerId, PathBuf)>,
}

/// The namespace of the sandbox's process ids.
#[derive(Debug, Default)]
pub(crate) struct PidNamespace {
    state: Mutex<State>,
}

impl PidNamespace {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the namespace is that a container joins; `None` if it gets one of its own: because it did not ask, or is the first.
    ///
    /// # Errors
    /// `CONTAINER_PID_NAMESPACE`: it asked, and the first container is gone.
    pub(crate) fn of_container(&self, asked: bool) -> Result<Option<PathBuf>, ContainerError> {
        let state = self.state();
        if !asked || !state.begun {
            return Ok(None);
        }
        state.pinned.as_ref().map(|(_, path)| Some(path.clone())).ok_or(ContainerError::PidNamespace)
    }

    /// If this is the first container ever: others may join its process ids. `proc` is where `/proc` is, `directory` the agent's own.
    ///
    /// # Errors
    /// `CONTAINER_BUNDLE`, `CONTAINER_STATE` if the process has ended.
    pub(crate) fn offer(
        &self,
        container: &ContainerId,
        first: &Process,
        proc: &Path,
        directory: &Path,
    ) -> Result<(), ContainerError> {
        let mut state = self.state();
        if state.begun {
            return Ok(());
        }
        let failed = ContainerError::bundle;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed("make a place for"))?;
        let place = directory.join("pid-namespace");
        let mut file = OpenOptions::new();
        file.write(true).create(true).truncate(false).mode(0o400);
        file.custom_flags(i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default());
        file.open(&place).map_err(failed("make a place for"))?;
        let source = proc.join(first.pid().as_raw_nonzero().to_string()).join("ns/pid");
        mount_bind(source, &place).map_err(|error| failed("pin the process ids of")(error.into()))?;
        // While it has not ended, the number was its own.
        if !first.is_alive() {
            take_off(&place)?;
            return Err(ContainerError::State {
                expected: "created",
                found: crate::containers::State::Stopped,
            });
        }
        *state = State { begun: true, pinned: Some((container.clone(), place)) };
        Ok(())
    }

    /// The container is gone. If it was never there (`undone`), the next one is the first.
    ///
    /// # Errors
    /// `CONTAINER_BUNDLE`.
    pub(crate) fn withdraw(&self, container: &ContainerId, undone: bool) -> Result<(), ContainerError> {
        let mut state = self.state();
        let Some((_, place)) = state.pinned.as_ref().filter(|(own, _)| own == container) else {
            return Ok(());
        };
        take_off(place)?;
        *state = State { begun: !undone, pinned: None };
        Ok(())
    }
}

fn take_off(place: &Path) -> Result<(), ContainerError> {
    match unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(error) => return Err(ContainerError::bundle("release the process ids of")(error.into())),
    }
    match std::fs::remove_file(place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ContainerError::bundle("release the process ids of")(error))
        }
        _ => Ok(()),
    }
}
