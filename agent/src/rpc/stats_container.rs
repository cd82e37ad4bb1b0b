//! StatsContainer: what a container used until now.

use protocol::agent::{StatsContainerRequest, StatsContainerResponse};
use protocol::ids::ContainerId;
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// From the files of its control group.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<StatsContainerRequest>,
) -> Result<StatsContainerResponse, RpcError> {
    let id = ContainerId::parse(&request.container_id)?;
    let container = agent.containers.get(&id).ok_or(RpcError::NoContainer)?;
    Ok(container.cgroup().stats()?)
}
