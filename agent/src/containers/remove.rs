//! RemoveContainer, and what the end of the sandbox does to each container.

use std::sync::Arc;
use std::time::Duration;

use protocol::agent::RemoveContainerRequest;
use protocol::ids::ContainerId;
use protocol::status::RpcError;
use tokio::time::timeout;

use crate::containers::Container;
use crate::containers::create::{blocking, engine_error};
use crate::context::Agent;
use crate::engine::EngineError;
use crate::gate::Permitted;
use crate::log::{Key, Level, Value};

const SUBSYSTEM: &str = "container";
/// How long a caller waits who says nothing: longer than any runtime.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a process that was killed may take to be gone.
const END: Duration = Duration::from_secs(10);
/// How long the end of the sandbox waits for its containers.
const LAST: Duration = Duration::from_secs(30);

/// Removes a container with everything that it has.
///
/// # Errors
/// `ETIME` after the time that the request gives: the removal goes on. After another error the container is still there, dead, and may
/// be removed again.
pub(crate) async fn remove(
    agent: &Arc<Agent>,
    request: Permitted<RemoveContainerRequest>,
) -> Result<(), RpcError> {
    let id = ContainerId::parse(&request.container_id)?;
    let container = agent.containers.get(&id).ok_or(RpcError::NoContainerToRun)?;
    let limit = match request.timeout {
        0 => PATIENCE,
        seconds => Duration::from_secs(seconds.into()).min(PATIENCE),
    };
    // A task of its own: work on a container is not left half-way because its time is over.
    let agent = Arc::clone(agent);
    let work = tokio::spawn(async move { end(&agent, &container).await });
    match timeout(limit, work).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => {
            Err(RpcError::Failed("CONTAINER_LOST", "the removal ended by a defect of the agent".to_owned()))
        }
        Err(_) => Err(RpcError::RemovalTimeout),
    }
}

/// Ends a container: processes, hooks, control group, storages, directory, id. Each of these is tried whatever became of those before it.
///
/// # Errors
/// The first error; the container is still there then.
pub(crate) async fn end(agent: &Agent, container: &Container) -> Result<(), RpcError> {
    let _work = container.work().await.ok_or(RpcError::NoContainerToRun)?;
    let id = container.id();
    let mut outcome = Outcome { agent, first: None };
    // The last look at its memory: the engine removes the group, and the kernel may be late with its word of it.
    agent.oom.forget(id);
    outcome.note(match agent.engine.delete(id).await {
        // It was deleted when this was tried before.
        Ok(()) | Err(EngineError::Missing { .. }) => Ok(()),
        Err(error) => Err(engine_error(error)),
    });
    let ended = timeout(END, container.first().end()).await;
    outcome.note(
        ended
            .map(|_| ())
            .map_err(|_| RpcError::Failed("CONTAINER_ALIVE", "the first process does not end".to_owned())),
    );
    agent.sealed.release(id);
    agent.secrets.release(id);
    agent.askers.release(id);
    agent.volumes.forget_log(id);
    outcome.note(agent.containers.pids().withdraw(id, false).map_err(RpcError::from));
    let bundle = Arc::clone(container.bundle());
    outcome.note(blocking(move || bundle.release_root().map_err(RpcError::from)).await);
    outcome.note(agent.storages.release(id).await.map_err(RpcError::from));
    let bundle = Arc::clone(container.bundle());
    outcome.note(blocking(move || bundle.remove().map_err(RpcError::from)).await);
    match outcome.first {
        Some(error) => Err(error),
        None => {
            container.set_removed();
            agent.containers.remove(id);
            Ok(())
        }
    }
}

/// Ends all containers, for as long as the machine waits for it. What is left then goes with the machine.
pub(crate) async fn end_all(agent: &Agent) {
    let all = async {
        for container in agent.containers.all() {
            // The log has it.
            let _ = end(agent, &container).await;
        }
    };
    let _ = timeout(LAST, all).await;
}

/// What went wrong.
struct Outcome<'a> {
    agent: &'a Agent,
    first: Option<RpcError>,
}

impl Outcome<'_> {
    fn note(&mut self, result: Result<(), RpcError>) {
        let Err(error) = result else { return };
        let fields = [(Key::Error, Value::shown(&error.status().1))];
        self.agent.log.say(Level::Warning, SUBSYSTEM, "a part of a container could not be removed", &fields);
        self.first.get_or_insert(error);
    }
}
