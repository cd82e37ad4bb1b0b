//! GetDiagnosticData: what a container left in its termination log.

use protocol::agent::{GetDiagnosticDataRequest, GetDiagnosticDataResponse};
use protocol::ids::ContainerId;
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// The only kind of log that there is.
const TERMINATION_LOG: &str = "termination_log";

/// At most 4096 bytes; nothing if there is no log.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<GetDiagnosticDataRequest>,
) -> Result<GetDiagnosticDataResponse, RpcError> {
    if request.log_type != TERMINATION_LOG {
        return Err(RpcError::UnknownLog(request.log_type.clone()));
    }
    let container = ContainerId::parse(&request.container_id)?;
    let data = agent.volumes.log_of(&container).await?;
    Ok(GetDiagnosticDataResponse { data, ..GetDiagnosticDataResponse::default() })
}
