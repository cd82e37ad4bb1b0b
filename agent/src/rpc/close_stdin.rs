//! CloseStdin: nothing more comes for a process. A terminal is closed as a whole.

use protocol::agent::{CloseStdinRequest, Empty};
use protocol::ids::ProcessRef;
use protocol::status::RpcError;

use crate::containers::missing;
use crate::context::Agent;
use crate::gate::Permitted;

/// What is still being written comes first.
pub(crate) async fn handle(agent: &Agent, request: Permitted<CloseStdinRequest>) -> Result<Empty, RpcError> {
    let process = agent.containers.process(&ProcessRef::try_from(&*request)?).map_err(missing)?;
    process.streams().close_stdin();
    Ok(Empty::new())
}
