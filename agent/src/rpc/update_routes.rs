//! UpdateRoutes: routes of the main table are set, all or none.

use protocol::agent::{Routes, UpdateRoutesRequest};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// Answers the main table.
pub(crate) async fn handle(agent: &Agent, request: Permitted<UpdateRoutesRequest>) -> Result<Routes, RpcError> {
    let routes = request.routes.as_ref().ok_or(RpcError::Empty("empty update routes request"))?;
    let changed = agent.network.update_routes(&routes.Routes).await.map_err(|error| {
        RpcError::Failed(error.code(), format!("Failed to update routes: {}", crate::error::chain(&error)))
    })?;
    match agent.network.routes().await {
        Ok(listed) => {
            agent.network.settle(changed, request.is_late()).await?;
            Ok(Routes { Routes: listed, ..Routes::default() })
        }
        Err(error) => {
            agent.network.undo(changed).await?;
            Err(error.into())
        }
    }
}
