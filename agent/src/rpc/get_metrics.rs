//! GetMetrics: figures of the agent and of the guest.

use protocol::agent::{GetMetricsRequest, Metrics};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// As a text in the form of Prometheus.
pub(crate) async fn handle(
    agent: &Agent,
    _request: Permitted<GetMetricsRequest>,
) -> Result<Metrics, RpcError> {
    let metrics = agent.metrics.gather(&agent.roots.proc, agent.sealed.progress()).await?;
    Ok(Metrics { metrics, ..Metrics::default() })
}
