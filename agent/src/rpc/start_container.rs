//! `StartContainer`.

use std::sync::Arc;

use protocol::agent::{Empty, StartContainerRequest};
use protocol::status::RpcError;

use crate::containers::start;
use crate::context::Agent;
use crate::gate::Permitted;

pub(crate) async fn handle(
    agent: &Arc<Agent>,
    request: Permitted<StartContainerRequest>,
) -> Result<Empty, RpcError> {
    start::start(agent, request).await.map(|_| Empty::default())
}
