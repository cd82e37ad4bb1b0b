//! `innerkeep.AuditService`: the audit's head, its records, and that somebody keeps them. Each call passes the gate.

use std::sync::Arc;

use async_trait::async_trait;
use policy_engine::audit::AuditError;
use protocol::Endpoint;
use protocol::innerkeep as wire;
use protocol::status::RpcError;
use ttrpc::asynchronous::TtrpcContext;

use crate::context::Agent;
use crate::gate::{self, Permitted};

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct AuditService(pub(crate) Arc<Agent>);

#[async_trait]
impl wire::AuditService for AuditService {
    async fn head(
        &self,
        context: &TtrpcContext,
        request: wire::AuditHeadRequest,
    ) -> ttrpc::Result<wire::AuditHeadResponse> {
        let handler = |agent: Arc<Agent>, request: Permitted<_>| async move { head(&agent, &request) };
        gate::pass(&self.0, Endpoint::Head, context, request, handler).await
    }

    async fn read(
        &self,
        context: &TtrpcContext,
        request: wire::AuditReadRequest,
    ) -> ttrpc::Result<wire::AuditReadResponse> {
        let handler = |agent: Arc<Agent>, request: Permitted<_>| async move { read(&agent, &request) };
        gate::pass(&self.0, Endpoint::Read, context, request, handler).await
    }

    async fn acknowledge(
        &self,
        context: &TtrpcContext,
        request: wire::AuditAcknowledgeRequest,
    ) -> ttrpc::Result<wire::AuditAcknowledgeResponse> {
        let handler = |agent: Arc<Agent>, request: Permitted<_>| async move { acknowledge(&agent, &request) };
        gate::pass(&self.0, Endpoint::Acknowledge, context, request, handler).await
    }
}

fn head(agent: &Agent, request: &wire::AuditHeadRequest) -> Result<wire::AuditHeadResponse, RpcError> {
    let head = agent.audit.head(&request.nonce).map_err(refused)?;
    let evidence = agent.audit.evidence_bytes().filter(|_| request.evidence);
    Ok(wire::AuditHeadResponse {
        genesis: agent.audit.genesis().to_vec(),
        head,
        evidence: evidence.map(|evidence| evidence.to_vec()).unwrap_or_default(),
        ..Default::default()
    })
}

fn read(agent: &Agent, request: &wire::AuditReadRequest) -> Result<wire::AuditReadResponse, RpcError> {
    let most = usize::try_from(request.max_bytes).unwrap_or(usize::MAX);
    let records = agent.audit.read(request.from, most).map_err(refused)?;
    Ok(wire::AuditReadResponse { frames: records.frames, next: records.next, ..Default::default() })
}

fn acknowledge(
    agent: &Agent,
    request: &wire::AuditAcknowledgeRequest,
) -> Result<wire::AuditAcknowledgeResponse, RpcError> {
    agent.audit.acknowledge(request.to).map_err(refused)?;
    Ok(wire::AuditAcknowledgeResponse::new())
}

fn refused(error: AuditError) -> RpcError {
    match error {
        AuditError::Random => RpcError::Failed(error.code(), error.to_string()),
        _ => RpcError::Precondition(error.code(), error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use policy_engine::audit::{
        Facts, Frame, Head, OperatorKey, OperatorSecret, OperatorSuite, Record, Story, Told,
    };
    use protocol::agent::{ExecProcessRequest, OnlineCPUMemRequest};
    use protocol::innerkeep::AuditService as _;

    use super::*;

    const POLICY: &str = "package agent_policy\n\ndefault AuditHeadRequest := true\n\ndefault AuditReadRequest := true\n\ndefault OnlineCPUMemRequest := true\n\ndefault ExecProcessRequest := false\n";
    const NONCE: &[u8] = b"sixteen bytes ok";

    fn context() -> TtrpcContext {
        TtrpcContext {
            mh: ttrpc::MessageHeader::new_request(1, 0),
            metadata: std::collections::HashMap::new(),
            timeout_nano: 0,
            connection_data: Arc::default(),
        }
    }

    fn told(error: ttrpc::Error) -> (ttrpc::Code, String) {
        let ttrpc::Error::RpcStatus(status) = error else { panic!("{error:?}") };
        (status.code(), status.message().to_owned())
    }

    struct Guest {
        _directory: tempfile::TempDir,
        operator: OperatorSecret,
        service: AuditService,
    }

    fn guest(policy: Option<&str>) -> Guest {
        let directory = tempfile::tempdir().unwrap();
        let operator = OperatorSecret::generate(OperatorSuite::P384).unwrap();
        let key = OperatorKey::parse(OperatorSuite::P384, &operator.public_bytes()).unwrap();
        let audit = policy_engine::audit::Audit::start(Facts::default(), Some(key)).unwrap();
        let agent = Agent::for_test_with(directory.path(), false, audit);
        if let Some(policy) = policy {
            agent.gate.begin_with(policy).unwrap();
        }
        Guest { _directory: directory, operator, service: AuditService(Arc::new(agent)) }
    }

    impl Guest {
        async fn story(&self) -> Story {
            let answer = self.service.read(&context(), wire::AuditReadRequest::new()).await.unwrap();
            Story::read(&Frame::parse_all(&answer.frames).unwrap(), Some(&self.operator)).unwrap()
        }

        async fn head(&self) -> Head {
            let request = wire::AuditHeadRequest { nonce: NONCE.to_vec(), ..Default::default() };
            Head::parse(&self.service.head(&context(), request).await.unwrap().head).unwrap()
        }
    }

    fn lines(story: &Story) -> Vec<String> {
        let line = |told: &Told| match told {
            Told::Record { record: Record::Decision(decision), .. } => {
                Some(format!("{} {} {}", decision.endpoint, decision.ruling.name(), decision.code))
            }
            Told::Record { record: Record::Outcome { error, .. }, .. } => {
                Some(format!("outcome {}", error.as_deref().unwrap_or("ok")))
            }
            Told::Record { record: Record::Policy { .. }, .. } => Some("policy".to_owned()),
            _ => None,
        };
        story.told().iter().filter_map(line).collect()
    }

    #[tokio::test]
    async fn what_the_gate_decides_is_in_the_audit_before_it_happens() {
        let guest = guest(Some(POLICY));
        let agent = Arc::clone(&guest.service.0);
        let seen = Arc::new(std::sync::Mutex::new(0));
        let own = Arc::clone(&seen);
        let handler = move |agent: Arc<Agent>, _: Permitted<OnlineCPUMemRequest>| async move {
            *own.lock().unwrap() = Head::parse(&agent.audit.head(NONCE).unwrap()).unwrap().allowed;
            Err::<protocol::agent::Empty, _>(RpcError::Failed("AGENT_TEST", "no".to_owned()))
        };
        let request = OnlineCPUMemRequest::new();
        gate::pass(&agent, Endpoint::OnlineCPUMem, &context(), request, handler).await.unwrap_err();
        assert_eq!(*seen.lock().unwrap(), 1, "the handler ran after the decision was taken down");
        let handler = |_: Arc<Agent>, _: Permitted<ExecProcessRequest>| async move {
            Ok(protocol::agent::Empty::new())
        };
        let request = ExecProcessRequest::new();
        gate::pass(&agent, Endpoint::ExecProcess, &context(), request, handler).await.unwrap_err();
        let story = guest.story().await;
        let expected = [
            "policy",
            "/grpc.AgentService/OnlineCPUMem allowed ",
            "outcome AGENT_TEST",
            "/grpc.AgentService/ExecProcess denied POLICY_DENIED",
            "/innerkeep.AuditService/Read allowed ",
        ];
        assert_eq!(lines(&story), expected);
        let head = guest.head().await;
        assert_eq!((head.allowed, head.denied), (3, 1));
    }

    /// The policy does not name Acknowledge: the host makes nothing go.
    #[tokio::test]
    async fn evil_host_acknowledges_without_leave() {
        let guest = guest(Some(POLICY));
        let before = guest.story().await.next();
        let request = wire::AuditAcknowledgeRequest { to: before, ..Default::default() };
        let (code, text) = told(guest.service.acknowledge(&context(), request).await.unwrap_err());
        assert_eq!(code, ttrpc::Code::PERMISSION_DENIED);
        assert!(text.contains("AuditAcknowledgeRequest is blocked by policy"), "{text}");
        let story = guest.story().await;
        assert!(!story.told().iter().any(|told| matches!(told, Told::Gap(_))));
        assert!(
            lines(&story).iter().any(|line| line.starts_with("/innerkeep.AuditService/Acknowledge denied"))
        );
    }

    #[tokio::test]
    async fn without_a_policy_the_audit_can_be_read() {
        let guest = guest(None);
        let agent = Arc::clone(&guest.service.0);
        let handler = |_: Arc<Agent>, _: Permitted<ExecProcessRequest>| async move {
            Ok(protocol::agent::Empty::new())
        };
        let request = ExecProcessRequest::new();
        gate::pass(&agent, Endpoint::ExecProcess, &context(), request, handler).await.unwrap_err();
        // The head first: that it was asked for is in the audit too.
        let head = guest.head().await;
        let story = guest.story().await;
        assert_eq!(lines(&story).first().unwrap(), "/grpc.AgentService/ExecProcess denied POLICY_ABSENT");
        story.require_head(&head, Some(NONCE)).unwrap();
        let request = wire::AuditAcknowledgeRequest { to: 1, ..Default::default() };
        let (code, _) = told(guest.service.acknowledge(&context(), request).await.unwrap_err());
        assert_eq!(code, ttrpc::Code::PERMISSION_DENIED);
    }

    #[tokio::test]
    async fn refusals_have_their_codes() {
        let guest = guest(None);
        let request = wire::AuditHeadRequest { nonce: vec![0; 15], ..Default::default() };
        let (code, text) = told(guest.service.head(&context(), request).await.unwrap_err());
        assert_eq!(code, ttrpc::Code::FAILED_PRECONDITION);
        assert!(text.starts_with("AUDIT_NONCE: "), "{text}");
        let request = wire::AuditReadRequest { from: 1000, ..Default::default() };
        let (_, text) = told(guest.service.read(&context(), request).await.unwrap_err());
        assert!(text.starts_with("AUDIT_UNKNOWN_RECORD: "), "{text}");
    }
}
