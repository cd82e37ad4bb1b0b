//! CopyFile: a piece of a file of the host, into the directory that both share.

use protocol::agent::{CopyFileRequest, Empty};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// Whole files appear, or nothing does.
pub(crate) async fn handle(agent: &Agent, request: Permitted<CopyFileRequest>) -> Result<Empty, RpcError> {
    agent.copies.take(request.into_inner()).await?;
    Ok(Empty::new())
}
