//! ResizeVolume: no agent has it, and runtimes know what that answer looks like.

use protocol::agent::{Empty, ResizeVolumeRequest};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// Upstream's answer, after the policy.
pub(crate) async fn handle(_: &Agent, _: Permitted<ResizeVolumeRequest>) -> Result<Empty, RpcError> {
    Err(RpcError::ResizeVolume)
}
