//! ReseedRandomDev: bytes of the host are mixed into the random numbers of the guest.

use protocol::agent::{Empty, ReseedRandomDevRequest};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// In a confidential guest they count for nothing.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<ReseedRandomDevRequest>,
) -> Result<Empty, RpcError> {
    agent.machine.reseed(&request.data)?;
    Ok(Empty::new())
}
