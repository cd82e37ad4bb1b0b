//! SetGuestDateTime: the clock, which in a confidential guest the host does not set back.

use protocol::agent::{Empty, SetGuestDateTimeRequest};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// A caller that is gone would set a time that is over.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<SetGuestDateTimeRequest>,
) -> Result<Empty, RpcError> {
    if request.is_late() {
        return Err(RpcError::Deadline);
    }
    agent.machine.clock().set(request.Sec, request.Usec)?;
    Ok(Empty::new())
}
