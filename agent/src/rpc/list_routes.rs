//! ListRoutes: the main table.

use protocol::agent::{ListRoutesRequest, Routes};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// As the kernel has it now, in upstream's form.
pub(crate) async fn handle(agent: &Agent, _request: Permitted<ListRoutesRequest>) -> Result<Routes, RpcError> {
    Ok(Routes { Routes: agent.network.routes().await?, ..Routes::default() })
}
