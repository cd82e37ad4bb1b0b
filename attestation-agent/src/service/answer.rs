//! The answers to one peer.

use std::sync::Arc;

use async_trait::async_trait;
use protocol::attestation_agent as wire;
use ttrpc::asynchronous::TtrpcContext;

use crate::attester::{Attester, Bound, Extension};
use crate::error::{AttestationError, BindingError};
use crate::service::AttestationService;
use crate::service::error::ServiceError;
use crate::service::peer::Peer;
use crate::service::queue::Queue;

/// Most content of one event.
const MAXIMUM_CONTENT_BYTES: usize = 16 * 1024;
/// Longest digest.
const MAXIMUM_DIGEST_BYTES: usize = 64;

/// The service as one peer sees it.
pub(crate) struct PeerService {
    pub(crate) service: Arc<AttestationService>,
    pub(crate) peer: Peer,
    pub(crate) queue: Arc<Queue>,
}

impl PeerService {
    /// Work that blocks, in the peer's turn. The turn ends with the work, even if nobody waits for the answer.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Attester) -> Result<T, AttestationError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let turn = self.queue.turn().await?;
        let working = Arc::clone(&self.service.working);
        let slot = working.acquire_owned().await.map_err(|_| ServiceError::Interrupted)?;
        let attester = Arc::clone(&self.service.attester);
        let task = tokio::task::spawn_blocking(move || {
            let result = work(&attester);
            drop((turn, slot));
            result
        });
        Ok(task.await.map_err(|_| ServiceError::Interrupted)??)
    }

    async fn evidence(&self, runtime_data: &[u8]) -> Result<Vec<u8>, ServiceError> {
        let claim = self.service.rules.claim(&self.peer, runtime_data)?;
        self.work(move |attester| Ok(attester.evidence(&claim)?.to_json().into_bytes())).await
    }

    /// Evidence of devices: no bytes without any, as upstream.
    async fn additional(&self, runtime_data: &[u8]) -> Result<Vec<u8>, ServiceError> {
        if self.service.attester.additional_tees().is_empty() {
            return Ok(Vec::new());
        }
        let claim = self.service.rules.claim(&self.peer, runtime_data)?;
        let evidence = self.work(move |attester| attester.additional_evidence(&claim)).await?;
        let members = evidence.iter().map(|(tee, evidence)| format!("\"{tee}\":{}", evidence.to_json()));
        Ok(format!("{{{}}}", members.collect::<Vec<_>>().join(",")).into_bytes())
    }

    async fn token(&self, kind: &str, timeout_ns: i64) -> Result<Vec<u8>, ServiceError> {
        self.service.rules.may_export_token_key(&self.peer)?;
        if kind != "kbs" {
            let found: String = kind.chars().take(32).flat_map(char::escape_debug).collect();
            return Err(ServiceError::TokenType { found });
        }
        let tokens = self.service.tokens.as_ref().ok_or(ServiceError::NoBroker)?;
        let _turn = self.queue.turn().await?;
        let mut answer = tokens.export(timeout_ns).await?;
        // The framing below takes ownership; its copies are not wiped (docs/compatibility.md).
        Ok(std::mem::take(&mut *answer))
    }

    async fn extend(
        &self,
        request: wire::ExtendRuntimeMeasurementRequest,
    ) -> Result<wire::RuntimeMeasurementResult, ServiceError> {
        self.service.rules.may_extend(&self.peer)?;
        if !self.service.measure {
            return Ok(wire::RuntimeMeasurementResult::NOT_ENABLED);
        }
        let found = request.Domain.len() + request.Operation.len() + request.Content.len();
        // GUARD: event-cap -> evil_peer_oversize_event
        if found > MAXIMUM_CONTENT_BYTES {
            return Err(ServiceError::TooLarge { what: "event", maximum: MAXIMUM_CONTENT_BYTES, found });
        }
        let pcr = request.RegisterIndex.unwrap_or(self.service.default_pcr);
        let (domain, operation, content) = (request.Domain, request.Operation, request.Content);
        let outcome = self.work(move |attester| attester.extend(&domain, &operation, &content, pcr)).await?;
        Ok(match outcome {
            Extension::Done { .. } => wire::RuntimeMeasurementResult::OK,
            Extension::NotSupported => wire::RuntimeMeasurementResult::NOT_SUPPORTED,
        })
    }

    async fn bind(&self, digest: Vec<u8>) -> Result<(), ServiceError> {
        if digest.is_empty() || digest.len() > MAXIMUM_DIGEST_BYTES {
            let found = digest.len();
            return Err(ServiceError::TooLarge { what: "Digest", maximum: MAXIMUM_DIGEST_BYTES, found });
        }
        match self.work(move |attester| attester.bind_initdata(&digest)).await? {
            Bound::Matches => Ok(()),
            Bound::NotSupported => {
                Err(BindingError::NoRegister { platform: self.service.attester.tee().name() }.into())
            }
        }
    }
}

#[async_trait]
impl wire::AttestationAgentService for PeerService {
    async fn get_evidence(
        &self,
        _context: &TtrpcContext,
        request: wire::GetEvidenceRequest,
    ) -> ttrpc::Result<wire::GetEvidenceResponse> {
        let evidence = self.evidence(&request.RuntimeData).await.map_err(|error| error.status())?;
        Ok(wire::GetEvidenceResponse { Evidence: evidence, ..Default::default() })
    }

    async fn get_additional_evidence(
        &self,
        _context: &TtrpcContext,
        request: wire::GetAdditionalEvidenceRequest,
    ) -> ttrpc::Result<wire::GetEvidenceResponse> {
        let evidence = self.additional(&request.RuntimeData).await.map_err(|error| error.status())?;
        Ok(wire::GetEvidenceResponse { Evidence: evidence, ..Default::default() })
    }

    async fn get_token(
        &self,
        context: &TtrpcContext,
        request: wire::GetTokenRequest,
    ) -> ttrpc::Result<wire::GetTokenResponse> {
        let token = self.token(&request.TokenType, context.timeout_nano).await;
        let token = token.map_err(|error| error.status())?;
        Ok(wire::GetTokenResponse { Token: token, ..Default::default() })
    }

    async fn extend_runtime_measurement(
        &self,
        _context: &TtrpcContext,
        request: wire::ExtendRuntimeMeasurementRequest,
    ) -> ttrpc::Result<wire::ExtendRuntimeMeasurementResponse> {
        let result = self.extend(request).await.map_err(|error| error.status())?;
        Ok(wire::ExtendRuntimeMeasurementResponse { Result: result.into(), ..Default::default() })
    }

    async fn bind_init_data(
        &self,
        _context: &TtrpcContext,
        request: wire::BindInitDataRequest,
    ) -> ttrpc::Result<wire::BindInitDataResponse> {
        self.bind(request.Digest).await.map_err(|error| error.status())?;
        Ok(wire::BindInitDataResponse::default())
    }

    async fn get_tee_type(
        &self,
        _context: &TtrpcContext,
        _request: wire::GetTeeTypeRequest,
    ) -> ttrpc::Result<wire::GetTeeTypeResponse> {
        let tee = self.service.attester.tee().name().to_owned();
        Ok(wire::GetTeeTypeResponse { tee, ..Default::default() })
    }

    async fn get_additional_tees(
        &self,
        _context: &TtrpcContext,
        _request: wire::GetAdditionalTeesRequest,
    ) -> ttrpc::Result<wire::GetAdditionalTeesResponse> {
        let tees = self.service.attester.additional_tees();
        let additional_tees = tees.into_iter().map(|tee| tee.name().to_owned()).collect();
        Ok(wire::GetAdditionalTeesResponse { additional_tees, ..Default::default() })
    }
}
