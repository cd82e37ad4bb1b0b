//! `WaitProcess`: the status of a process, for as many as ask, until its container is removed.

use protocol::agent::{WaitProcessRequest, WaitProcessResponse};
use protocol::ids::ProcessRef;
use protocol::status::RpcError;

use crate::containers::missing;
use crate::context::Agent;
use crate::gate::Permitted;

pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<WaitProcessRequest>,
) -> Result<WaitProcessResponse, RpcError> {
    let which = ProcessRef::try_from(&*request)?;
    let process = agent.containers.process(&which).map_err(missing)?;
    let Some(ended) = process.wait().await else {
        let text = "the agent waits for processes no longer".to_owned();
        return Err(RpcError::Failed("AGENT_STOPPING", text));
    };
    Ok(WaitProcessResponse { status: ended.code(), ..WaitProcessResponse::default() })
}
