//! SetIPTables: packet filters of a text are set, or what was there stays.

use protocol::agent::{SetIPTablesRequest, SetIPTablesResponse};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;
use crate::network::Filters;

/// Answers what the program of the image said.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<SetIPTablesRequest>,
) -> Result<SetIPTablesResponse, RpcError> {
    let filters = Filters { is_ipv6: request.is_ipv6 };
    let (data, before) = agent.network.set_filters(&agent.reaper, filters, &request.data).await?;
    if request.is_late() {
        agent.network.undo_filters(&agent.reaper, &before).await?;
        return Err(RpcError::Deadline);
    }
    Ok(SetIPTablesResponse { data, ..SetIPTablesResponse::default() })
}
