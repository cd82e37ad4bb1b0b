//! OnlineCPUMem: processors and memory that the host plugged in are put to use.

use protocol::agent::{Empty, OnlineCPUMemRequest};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// Waits for them whether or not the host asks for it, as upstream does.
pub(crate) async fn handle(agent: &Agent, request: Permitted<OnlineCPUMemRequest>) -> Result<Empty, RpcError> {
    agent.machine.online(request.nb_cpus, request.cpu_only, || request.is_late()).await?;
    Ok(Empty::new())
}
