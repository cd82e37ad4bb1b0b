//! `RemoveContainer`.

use std::sync::Arc;

use protocol::agent::{Empty, RemoveContainerRequest};
use protocol::status::RpcError;

use crate::containers::remove;
use crate::context::Agent;
use crate::gate::Permitted;

pub(crate) async fn handle(
    agent: &Arc<Agent>,
    request: Permitted<RemoveContainerRequest>,
) -> Result<Empty, RpcError> {
    remove::remove(agent, request).await.map(|_| Empty::default())
}
