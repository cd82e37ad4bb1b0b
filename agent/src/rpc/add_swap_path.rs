//! AddSwapPath: a disk by its name, behind a cipher.

use protocol::agent::{AddSwapPathRequest, Empty};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// The key exists in the kernel alone.
pub(crate) async fn handle(agent: &Agent, request: Permitted<AddSwapPathRequest>) -> Result<Empty, RpcError> {
    agent.swap.add_path(&request.path, &agent.hotplug, &agent.storages, &agent.roots.dev).await?;
    Ok(Empty::new())
}
