//! MemHotplugByProbe: the kernel is told where there is memory.

use protocol::agent::{Empty, MemHotplugByProbeRequest};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// What the kernel took it cannot give back: the first address that it refuses ends it.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<MemHotplugByProbeRequest>,
) -> Result<Empty, RpcError> {
    if request.is_late() {
        return Err(RpcError::Deadline);
    }
    agent.machine.probe_memory(request.memHotplugProbeAddr.clone()).await?;
    Ok(Empty::new())
}
