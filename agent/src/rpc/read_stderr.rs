//! ReadStderr: the next bytes of what a process complains, or none at its end.

use protocol::agent::{ReadStreamRequest, ReadStreamResponse};
use protocol::ids::{ProcessRef, read_length};
use protocol::status::RpcError;

use crate::containers::missing;
use crate::context::Agent;
use crate::gate::Permitted;

/// Waits for the first byte. Dropped, it has taken nothing.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<ReadStreamRequest>,
) -> Result<ReadStreamResponse, RpcError> {
    let process = agent.containers.process(&ProcessRef::try_from(&*request)?).map_err(missing)?;
    let data = process.streams().read_stderr(read_length(request.len)).await?;
    Ok(ReadStreamResponse { data, ..ReadStreamResponse::default() })
}
