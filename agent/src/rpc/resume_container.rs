//! ResumeContainer: processes that stand still run again.

use protocol::agent::{Empty, ResumeContainerRequest};
use protocol::ids::ContainerId;
use protocol::status::RpcError;

use crate::containers::State;
use crate::context::Agent;
use crate::gate::Permitted;

/// Only of a container that was paused.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<ResumeContainerRequest>,
) -> Result<Empty, RpcError> {
    let id = ContainerId::parse(&request.container_id)?;
    let container = agent.containers.get(&id).ok_or(RpcError::NoContainer)?;
    let _work = container.work().await.ok_or(RpcError::NoContainer)?;
    let state = container.state();
    if state != State::Paused {
        let text = format!("failed to resume container: current status is: {state}, not paused");
        return Err(RpcError::Failed("CONTAINER_STATE", text));
    }
    // Whoever comes too late finds it paused.
    if request.is_late() {
        return Err(RpcError::Deadline);
    }
    container.cgroup().thaw().await?;
    container.set_paused(false);
    Ok(Empty::new())
}
