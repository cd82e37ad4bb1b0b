//! `grpc.Health`: asked by runtimes before everything else. No policy is asked for it.

use async_trait::async_trait;
use protocol::health as wire;
use ttrpc::asynchronous::TtrpcContext;

/// The service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Health;

#[async_trait]
impl wire::Health for Health {
    async fn check(
        &self,
        _context: &TtrpcContext,
        _request: wire::CheckRequest,
    ) -> ttrpc::Result<wire::HealthCheckResponse> {
        let status = wire::health_check_response::ServingStatus::SERVING.into();
        Ok(wire::HealthCheckResponse { status, ..Default::default() })
    }

    async fn version(
        &self,
        _context: &TtrpcContext,
        _request: wire::CheckRequest,
    ) -> ttrpc::Result<wire::VersionCheckResponse> {
        Ok(wire::VersionCheckResponse {
            grpc_version: crate::API_VERSION.to_owned(),
            agent_version: crate::INTERFACE_VERSION.to_owned(),
            ..Default::default()
        })
    }
}
