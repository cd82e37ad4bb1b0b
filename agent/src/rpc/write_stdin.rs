//! WriteStdin: bytes for a process, or, without bytes, their end.

use protocol::agent::{WriteStreamRequest, WriteStreamResponse};
use protocol::ids::ProcessRef;
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// Waits until the process has made room for all of them.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<WriteStreamRequest>,
) -> Result<WriteStreamResponse, RpcError> {
    let which = ProcessRef::try_from(&*request)?;
    let process = agent.containers.process(&which).map_err(RpcError::StdinWithoutProcess)?;
    if request.data.is_empty() {
        process.streams().close_stdin();
    } else {
        process.streams().write_stdin(&request.data).await?;
    }
    // A frame is shorter than that.
    let len = u32::try_from(request.data.len()).unwrap_or(u32::MAX);
    Ok(WriteStreamResponse { len, ..WriteStreamResponse::default() })
}
