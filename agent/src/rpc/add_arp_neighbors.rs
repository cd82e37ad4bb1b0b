//! AddARPNeighbors: neighbours are set, all or none.

use protocol::agent::{AddARPNeighborsRequest, Empty};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// Those of IPv6, too.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<AddARPNeighborsRequest>,
) -> Result<Empty, RpcError> {
    let neighbours = request.neighbors.as_ref().ok_or(RpcError::Empty("empty add arp neighbours request"))?;
    let changed = agent.network.add_neighbours(&neighbours.ARPNeighbors).await?;
    agent.network.settle(changed, request.is_late()).await?;
    Ok(Empty::new())
}
