//! The pod: what its containers share.

use std::sync::{Mutex, PoisonError};

use protocol::agent::CreateSandboxRequest;
use protocol::ids::SandboxId;
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

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
    hostname: String,
    running: bool,
    destroyed: bool,
}

impl Sandbox {
    /// Its id, when it has one.
    pub(crate) fn id(&self) -> Option<SandboxId> {
        self.lock().id.clone()
    }

    /// Whether a container is the pod's first one, by its id.
    pub(crate) fn is_called(&self, id: &str) -> bool {
        self.lock().id.as_ref().is_some_and(|own| own.as_str() == id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what containers share.
    ///
    /// # Errors
    /// Nothing remains then.
    pub(crate) async fn create(
        &self,
        _agent: &Agent,
        request: Permitted<CreateSandboxRequest>,
    ) -> Result<(), RpcError> {
        let _turn = self.turn.lock().await;
        let id = SandboxId::parse_optional(&request.sandbox_id)?;
        let mut state = self.lock();
        if state.destroyed {
            return Err(RpcError::SandboxGone);
        }
        state.running = true;
        state.hostname.clone_from(&request.hostname);
        if id.is_some() {
            state.id = id;
        }
        Ok(())
    }

    /// Ends everything, and the agent.
    ///
    /// # Errors
    /// [`RpcError::SandboxGone`] the second time.
    pub(crate) async fn destroy(&self, agent: &Agent) -> Result<(), RpcError> {
        let _turn = self.turn.lock().await;
        {
            let mut state = self.lock();
            if state.destroyed {
                return Err(RpcError::SandboxGone);
            }
            state.destroyed = true;
            state.running = false;
        }
        agent.stopper.stop();
        Ok(())
    }
}
