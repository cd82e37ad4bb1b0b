//! TtyWinResize: another size for a terminal.

use protocol::agent::{Empty, TtyWinResizeRequest};
use protocol::ids::{ProcessRef, TerminalSize};
use protocol::status::RpcError;

use crate::containers::missing;
use crate::context::Agent;
use crate::gate::Permitted;

/// The kernel tells the processes.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<TtyWinResizeRequest>,
) -> Result<Empty, RpcError> {
    let process = agent.containers.process(&ProcessRef::try_from(&*request)?).map_err(missing)?;
    process.streams().resize(TerminalSize::parse(request.row, request.column)?)?;
    Ok(Empty::new())
}
