//! RemoveStaleVirtiofsShareMounts: the kernel is made to look at mounts of the shared directory.

use protocol::agent::{Empty, RemoveStaleVirtiofsShareMountsRequest};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// Does not wait for a host that does not answer.
pub(crate) async fn handle(
    agent: &Agent,
    _: Permitted<RemoveStaleVirtiofsShareMountsRequest>,
) -> Result<Empty, RpcError> {
    agent.volumes.look_at_shares().await?;
    Ok(Empty::new())
}
