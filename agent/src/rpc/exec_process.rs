//! `ExecProcess`.

use std::sync::Arc;

use protocol::agent::{Empty, ExecProcessRequest};
use protocol::status::RpcError;

use crate::containers::exec;
use crate::context::Agent;
use crate::gate::Permitted;

pub(crate) async fn handle(
    agent: &Arc<Agent>,
    request: Permitted<ExecProcessRequest>,
) -> Result<Empty, RpcError> {
    exec::exec(agent, request).await.map(|_| Empty::default())
}
