//! The pod: what its containers share, made by CreateSandbox and gone with DestroySandbox.
//!
//! ```text
//!  modules ─▶ namespaces ─▶ storages ─▶ hooks ─▶ name servers      each undone, in reverse, if a later one fails
//! ```

mod error;
mod hooks;
mod listed;
mod modules;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

pub(crate) use error::SandboxError;
use oci_spec::runtime::Hooks;
use protocol::agent::CreateSandboxRequest;
use protocol::ids::{AbsolutePath, SandboxId};
use protocol::status::RpcError;
use tokio::task::spawn_blocking;

use crate::containers;
use crate::context::Agent;
use crate::error::chain;
use crate::gate::Permitted;
use crate::log::{Key, Level, Value};
use crate::namespaces::SandboxNamespaces;
use crate::network::dns::{self, Resolver};
use crate::spec;

const SUBSYSTEM: &str = "sandbox";

/// What is known of the pod.
#[derive(Debug, Default)]
pub(crate) struct Sandbox {
    state: Mutex<State>,
    /// One creation or destruction at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    id: Option<SandboxId>,
    shared: Option<Shared>,
    destroyed: bool,
}

/// What containers share. Dropped, it is gone.
#[derive(Debug)]
struct Shared {
    namespaces: SandboxNamespaces,
    hooks: Option<Hooks>,
    _resolver: Option<Resolver>,
}

impl Sandbox {
    /// Whether a container is the pod's first one, by its id.
    pub(crate) fn is_called(&self, id: &str) -> bool {
        self.lock().id.as_ref().is_some_and(|own| own.as_str() == id)
    }

    /// The namespaces that its containers share; none without a sandbox.
    pub(crate) fn namespaces(&self) -> spec::SandboxNamespaces {
        let state = self.lock();
        let shared = state.shared.as_ref().map(|shared| &shared.namespaces);
        spec::SandboxNamespaces {
            ipc: shared.map(|namespaces| namespaces.ipc().to_owned()),
            uts: shared.map(|namespaces| namespaces.uts().to_owned()),
            pid: None,
        }
    }

    /// Hooks of the image, for every container.
    pub(crate) fn hooks(&self) -> Option<Hooks> {
        self.lock().shared.as_ref().and_then(|shared| shared.hooks.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what containers share. Runtimes may do so again while there is no container.
    ///
    /// # Errors
    /// `SANDBOX_…`, `NAMESPACE_…`, `DNS_…`, those of storages: nothing remains then.
    pub(crate) async fn create(
        &self,
        agent: &Agent,
        request: Permitted<CreateSandboxRequest>,
    ) -> Result<(), RpcError> {
        let _turn = self.turn.lock().await;
        let id = SandboxId::parse_optional(&request.sandbox_id)?;
        if self.lock().destroyed {
            return Err(RpcError::SandboxGone);
        }
        // GUARD: sandbox-once -> evil_host_makes_the_sandbox_again
        if !agent.containers.is_empty() {
            return Err(SandboxError::Occupied.into());
        }
        // What an earlier one shared goes before its successor lies on top of it.
        drop(self.lock().shared.take());
        modules::load(&request.kernel_modules, agent.tee_active, &agent.reaper).await?;
        let directory = agent.roots.run.with_file_name("sandbox-ns");
        let hostname = request.hostname.clone();
        let namespaces =
            blocking(move || SandboxNamespaces::create(&directory, &hostname).map_err(SandboxError::from))
                .await?;
        let added = agent.storages.add(&request.storages, None, &agent.hotplug).await?;
        match finish(agent, &request, namespaces).await {
            Ok(shared) => {
                added.keep();
                let mut state = self.lock();
                state.shared = Some(shared);
                if id.is_some() {
                    state.id = id;
                }
                Ok(())
            }
            Err(error) => {
                added.undo().await?;
                Err(error)
            }
        }
    }

    /// Ends every container, and the agent with them.
    ///
    /// # Errors
    /// [`RpcError::SandboxGone`] the second time.
    pub(crate) async fn destroy(&self, agent: &Agent) -> Result<(), RpcError> {
        let _turn = self.turn.lock().await;
        if std::mem::replace(&mut self.lock().destroyed, true) {
            return Err(RpcError::SandboxGone);
        }
        containers::end_all(agent).await;
        agent.oom.end();
        drop(self.lock().shared.take());
        agent.stopper.stop();
        Ok(())
    }
}

/// Hooks, name servers; and whether the caller still waits.
async fn finish(
    agent: &Agent,
    request: &Permitted<CreateSandboxRequest>,
    namespaces: SandboxNamespaces,
) -> Result<Shared, RpcError> {
    let hooks = hooks_of(agent, &request.guest_hook_path);
    let (lines, directory) = (request.dns.clone(), agent.roots.run.join("sandbox"));
    let over = agent.roots.etc.join("resolv.conf");
    let resolver =
        blocking(move || dns::write(&lines, &directory, &over).map_err(SandboxError::from)).await?;
    // GUARD: sandbox-late -> evil_host_deadline_mid_sandbox
    if request.is_late() {
        return Err(RpcError::Deadline);
    }
    Ok(Shared { namespaces, hooks, _resolver: resolver })
}

/// As upstream, a path without usable hooks is a line in the log.
fn hooks_of(agent: &Agent, path: &str) -> Option<Hooks> {
    if path.is_empty() {
        return None;
    }
    let found = AbsolutePath::parse(path)
        .map_err(|error| SandboxError::Hooks { path: Path::new("").to_owned(), reason: error.to_string() })
        .and_then(|path| hooks::find(path.as_path(), &agent.roots.etc, agent.tee_active));
    match found {
        Ok(hooks) => Some(hooks),
        Err(error) => {
            let fields = [(Key::Code, error.code().into()), (Key::Error, Value::shown(&chain(&error)))];
            agent.log.say(Level::Error, SUBSYSTEM, "no hooks", &fields);
            None
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SandboxError> + Send + 'static,
) -> Result<T, SandboxError> {
    spawn_blocking(work).await.unwrap_or(Err(SandboxError::Lost))
}

#[cfg(test)]
mod tests;
