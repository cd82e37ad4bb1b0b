//! UpdateEphemeralMounts: file systems in memory get another size, as the machine did.

use protocol::agent::{Empty, UpdateEphemeralMountsRequest};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// All of them, or none.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<UpdateEphemeralMountsRequest>,
) -> Result<Empty, RpcError> {
    agent.storages.update(&request.storages, &agent.hotplug).await?;
    Ok(Empty::new())
}
