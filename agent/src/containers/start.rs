//! StartContainer.

use protocol::agent::StartContainerRequest;
use protocol::ids::ContainerId;
use protocol::status::RpcError;

use crate::containers::create::engine_error;
use crate::containers::{Container, State};
use crate::context::Agent;
use crate::engine::SecretVariable;
use crate::gate::Permitted;
use crate::log::{Key, Level, Value};

const SUBSYSTEM: &str = "container";

/// Lets the first process execute its program.
///
/// # Errors
/// The program does not run then. Once it was to be released and could not be, its processes are dead, and the container is there
/// to be removed.
pub(crate) async fn start(agent: &Agent, request: Permitted<StartContainerRequest>) -> Result<(), RpcError> {
    let id = ContainerId::parse(&request.container_id)?;
    let container = agent.containers.get(&id).ok_or(RpcError::NoContainerToRun)?;
    let _work = container.work().await.ok_or(RpcError::NoContainerToRun)?;
    container.expect(State::Created, "created")?;
    let secrets = before_release(agent, &container, &request).await?;
    // GUARD: start-in-time -> evil_host_deadline_before_the_start
    if request.is_late() {
        return Err(RpcError::Deadline);
    }
    // The sandbox's own container holds namespaces, and nobody asks for its memory.
    if !agent.sandbox.is_called(id.as_str()) {
        // A guest whose kernel does not count memory has no such events.
        if let Err(error) = agent.oom.watch(&id, container.cgroup()) {
            let fields = [(Key::Code, error.code().into()), (Key::Error, Value::shown(&error.to_string()))];
            agent.log.say(Level::Warning, SUBSYSTEM, "a container's memory is not watched", &fields);
        }
    }
    if let Err(error) = agent.engine.start_with(&id, &secrets).await {
        agent.oom.forget(&id);
        agent.askers.withdraw(&id);
        return Err(engine_error(error));
    }
    container.set_started();
    if request.is_late() {
        // Nobody waits for it any more, and the policy's state does not know of it.
        container.cgroup().kill_all().await?;
        return Err(RpcError::Deadline);
    }
    Ok(())
}

/// Between create and start: here the container gets what is meant for its verified root, before its program can look. The values of its
/// environment that are secrets come with the release of its process.
async fn before_release(
    agent: &Agent,
    container: &Container,
    request: &Permitted<StartContainerRequest>,
) -> Result<Vec<SecretVariable>, RpcError> {
    let (policy, process) = (agent.gate.policy_in_force(), container.first().pid().as_raw_nonzero().get());
    agent.sealed.attach(container.id(), policy.as_ref(), process, || request.is_late()).await?;
    let (policy, deadline) = (policy.as_ref(), request.deadline());
    let opened = agent.secrets.open(container.id(), policy, process, deadline, || request.is_late()).await;
    let opened = opened?;
    agent.askers.begin(container.id(), policy, process).await;
    Ok(opened)
}
