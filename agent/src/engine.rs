//! Containers, made by a helper in a compartment of its own.
//!
//! ```text
//!  agent (threads, keys) ─control─▶ zygote (one thread, no secret) ─clone(CLONE_PARENT)─▶ helper, one for each operation
//!    │  order, descriptors ────────────────────────────────────────────────────────────▶   │ libcontainer
//!    │  ◀── pid, terminal ──────────────────────────────────────────────────────────────   ▼
//!    └── latch: "I am what was asked for" ◀─ looked at in /proc, cgroup ─▶ "go" ────── first process: own executor
//! ```
//! Every process of a container that the engine starts is a child of the agent, waited for by its reaper alone.

mod error;
mod order;

use std::sync::Arc;

pub use error::EngineError;
pub use order::{CreateOrder, Created, ExecOrder, Stdio};
use protocol::ids::ContainerId;

use crate::log::Log;
use crate::reaper::Reaper;
use crate::spec::DeviceRule;

/// Makes containers and their processes.
#[derive(Debug)]
pub struct Engine {
    _reaper: Arc<Reaper>,
    _log: Log,
}

impl Engine {
    /// An engine that makes nothing: this process has no zygote.
    #[must_use]
    pub fn unavailable(reaper: Arc<Reaper>, log: &Log) -> Self {
        Self { _reaper: reaper, _log: log.clone() }
    }

    /// Makes a container. When it returns, the first process waits for [`Self::start`], in its cgroup and namespaces; on an
    /// error nothing is left.
    ///
    /// # Errors
    /// See [`EngineError`].
    #[expect(clippy::unused_async, reason = "waits for the helper")]
    pub async fn create(&self, order: CreateOrder) -> Result<Created, EngineError> {
        drop(order);
        Err(EngineError::Unavailable { why: "this process started none" })
    }

    /// Lets the first process execute its program, once it is seen to be what was ordered. An error leaves the container as
    /// it is, its first process killed.
    ///
    /// # Errors
    /// See [`EngineError`]; `ENGINE_PROGRAM` where the program cannot be executed.
    #[expect(clippy::unused_async, reason = "waits for the helper")]
    pub async fn start(&self, _id: &ContainerId) -> Result<(), EngineError> {
        Err(EngineError::Unavailable { why: "this process started none" })
    }

    /// Runs another process in a started container.
    ///
    /// # Errors
    /// See [`EngineError`]; `ENGINE_PROGRAM` where the program cannot be executed.
    #[expect(clippy::unused_async, reason = "waits for the helper")]
    pub async fn exec(&self, order: ExecOrder) -> Result<Created, EngineError> {
        drop(order);
        Err(EngineError::Unavailable { why: "this process started none" })
    }

    /// Replaces the rules about devices of a container.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn set_device_rules(&self, _id: &ContainerId, _rules: &[DeviceRule]) -> Result<(), EngineError> {
        Err(EngineError::Unavailable { why: "this process started none" })
    }

    /// Takes a container away: its processes, killed if need be, its cgroup and its state. The bundle stays.
    ///
    /// # Errors
    /// See [`EngineError`].
    #[expect(clippy::unused_async, reason = "waits for the helper")]
    pub async fn delete(&self, _id: &ContainerId) -> Result<(), EngineError> {
        Err(EngineError::Unavailable { why: "this process started none" })
    }
}
