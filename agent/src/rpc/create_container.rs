//! `CreateContainer`.

use std::sync::Arc;

use protocol::agent::{Empty, CreateContainerRequest};
use protocol::status::RpcError;

use crate::containers::create;
use crate::context::Agent;
use crate::gate::Permitted;

pub(crate) async fn handle(
    agent: &Arc<Agent>,
    request: Permitted<CreateContainerRequest>,
) -> Result<Empty, RpcError> {
    create::create(agent, request).await.map(|_| Empty::default())
}
