//! MemAgentCompactSet: there is no memory agent, as upstream without `agent.mem_agent_enable`.

use protocol::agent::{Empty, MemAgentCompactConfig};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// Upstream's answer when it is off.
pub(crate) async fn handle(_agent: &Agent, _request: Permitted<MemAgentCompactConfig>) -> Result<Empty, RpcError> {
    Err(RpcError::MemoryAgentDisabled)
}
