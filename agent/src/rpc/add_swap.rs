//! AddSwap: a disk by its PCI path, behind a cipher.

use protocol::agent::{AddSwapRequest, Empty};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// The key exists in the kernel alone.
pub(crate) async fn handle(agent: &Agent, request: Permitted<AddSwapRequest>) -> Result<Empty, RpcError> {
    agent.swap.add_pci(&request.PCIPath, &agent.hotplug, &agent.storages, &agent.roots.dev).await?;
    Ok(Empty::new())
}
