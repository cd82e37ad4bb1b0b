//! ListInterfaces: every link with its addresses.

use protocol::agent::{Interfaces, ListInterfacesRequest};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// As the kernel has them now.
pub(crate) async fn handle(
    agent: &Agent,
    _request: Permitted<ListInterfacesRequest>,
) -> Result<Interfaces, RpcError> {
    Ok(Interfaces { Interfaces: agent.network.interfaces().await?, ..Interfaces::default() })
}
