//! GetIPTables: packet filters as text.

use protocol::agent::{GetIPTablesRequest, GetIPTablesResponse};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;
use crate::network::Filters;

/// What the program of the image says, if it succeeds.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<GetIPTablesRequest>,
) -> Result<GetIPTablesResponse, RpcError> {
    let data = agent.network.filters(&agent.reaper, Filters { is_ipv6: request.is_ipv6 }).await?;
    Ok(GetIPTablesResponse { data, ..GetIPTablesResponse::default() })
}
