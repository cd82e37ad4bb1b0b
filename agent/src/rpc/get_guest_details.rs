//! GetGuestDetails: what the guest can take, and what the agent is.

use protocol::agent::{GuestDetailsRequest, GuestDetailsResponse};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;
use crate::storage::DRIVERS;

/// Looked up when it is asked for.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<GuestDetailsRequest>,
) -> Result<GuestDetailsResponse, RpcError> {
    Ok(agent.machine.details(&request, DRIVERS.map(str::to_owned).into())?)
}
