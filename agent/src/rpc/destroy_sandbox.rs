//! DestroySandbox: every container ends, and then the agent, and as process 1 the machine.

use protocol::agent::{DestroySandboxRequest, Empty};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// Works once.
pub(crate) async fn handle(agent: &Agent, _request: Permitted<DestroySandboxRequest>) -> Result<Empty, RpcError> {
    agent.sandbox.destroy(agent).await?;
    Ok(Empty::new())
}
