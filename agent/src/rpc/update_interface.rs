//! UpdateInterface: a link becomes what the host says, or stays what it was.

use protocol::agent::UpdateInterfaceRequest;
use protocol::status::RpcError;
use protocol::types::Interface;

use crate::context::Agent;
use crate::gate::Permitted;
use crate::hotplug::PciPath;

/// Answers the interface of the request, as upstream does.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<UpdateInterfaceRequest>,
) -> Result<Interface, RpcError> {
    let interface = request.interface.as_ref().ok_or(RpcError::Empty("empty update interface request"))?;
    let device = match &*interface.devicePath {
        "" => None,
        path => Some(link_of(agent, path).await?),
    };
    let changed = agent.network.update_interface(interface, device.as_deref()).await?;
    agent.network.settle(changed, request.is_late()).await?;
    Ok(interface.clone())
}

/// The link of the device at a PCI path, when it is there.
async fn link_of(agent: &Agent, path: &str) -> Result<String, RpcError> {
    let found = match PciPath::parse(path) {
        Ok(path) => agent.hotplug.net_by_pci(&path).await,
        Err(error) => Err(error),
    };
    found.map_err(|error| {
        RpcError::Failed(error.code(), format!("interface not available: {}", crate::error::chain(&error)))
    })
}
