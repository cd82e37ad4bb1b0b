//! CreateSandbox: what all containers of the pod share.

use protocol::agent::{CreateSandboxRequest, Empty};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// All of it, or nothing of it.
pub(crate) async fn handle(agent: &Agent, request: Permitted<CreateSandboxRequest>) -> Result<Empty, RpcError> {
    agent.sandbox.create(agent, request).await?;
    Ok(Empty::new())
}
