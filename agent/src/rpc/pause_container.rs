//! PauseContainer: all processes of a container stand still.

use protocol::agent::{Empty, PauseContainerRequest};
use protocol::ids::ContainerId;
use protocol::status::RpcError;

use crate::containers::State;
use crate::context::Agent;
use crate::gate::Permitted;

/// Only one that was made or runs; if they do not stand still in time, all run again.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<PauseContainerRequest>,
) -> Result<Empty, RpcError> {
    let id = ContainerId::parse(&request.container_id)?;
    let container = agent.containers.get(&id).ok_or(RpcError::NoContainer)?;
    let _work = container.work().await.ok_or(RpcError::NoContainer)?;
    let state = container.state();
    if !matches!(state, State::Created | State::Running) {
        let text = format!("failed to pause container: current status is: {state}");
        return Err(RpcError::Failed("CONTAINER_STATE", text));
    }
    let group = container.cgroup();
    group.freeze().await?;
    if request.is_late() {
        group.thaw().await?;
        return Err(RpcError::Deadline);
    }
    container.set_paused(true);
    Ok(Empty::new())
}
