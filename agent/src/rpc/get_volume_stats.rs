//! GetVolumeStats: how full a volume is.

use protocol::agent::VolumeStatsRequest;
use protocol::csi::VolumeStatsResponse;
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// Only of what lies below the directory of the runtime.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<VolumeStatsRequest>,
) -> Result<VolumeStatsResponse, RpcError> {
    agent.volumes.statistics(&request.volume_guest_path).await
}
