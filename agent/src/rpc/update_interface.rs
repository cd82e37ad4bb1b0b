//! UpdateInterface: a link becomes what the host says, or stays what it was.

use protocol::agent::UpdateInterfaceRequest;
use protocol::status::RpcError;
use protocol::types::Interface;

use crate::context::Agent;
use crate::gate::Permitted;

/// Answers the interface of the request, as upstream does.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<UpdateInterfaceRequest>,
) -> Result<Interface, RpcError> {
    let interface = request.interface.as_ref().ok_or(RpcError::Empty("empty update interface request"))?;
    let device: Option<String> = match &*interface.devicePath {
        "" => None,
        // Nobody waits for devices yet.
        _ => {
            let text = "interface not available: devices are not waited for".to_owned();
            return Err(RpcError::Failed("NETWORK_DEVICE", text));
        }
    };
    let changed = agent.network.update_interface(interface, device.as_deref()).await?;
    agent.network.settle(changed, request.is_late()).await?;
    Ok(interface.clone())
}
