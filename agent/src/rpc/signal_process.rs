//! `SignalProcess`.

use protocol::agent::{Empty, SignalProcessRequest};
use protocol::status::RpcError;

use crate::containers::signal;
use crate::context::Agent;
use crate::gate::Permitted;

pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<SignalProcessRequest>,
) -> Result<Empty, RpcError> {
    signal::signal(agent, &request).await.map(|()| Empty::default())
}
