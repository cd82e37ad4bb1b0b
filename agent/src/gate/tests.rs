use protocol::agent::{
    CreateSandboxRequest, Empty, OnlineCPUMemRequest, ReadStreamRequest, ReadStreamResponse,
    RemoveContainerRequest, SetPolicyRequest,
};
use std::sync::atomic::AtomicUsize;

use super::*;

const STATEFUL: &str = r#"package agent_policy

default OnlineCPUMemRequest := true

default ReadStreamRequest := false

RemoveContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("/", ["", "pstate", input.container_id]), "value": 1}]} if {
    not data.pstate[input.container_id]
}

SetPolicyRequest if startswith(input.policy, "package agent_policy")
"#;

fn context(timeout: Duration) -> TtrpcContext {
    TtrpcContext {
        mh: ttrpc::MessageHeader::new_request(1, 0),
        metadata: std::collections::HashMap::new(),
        timeout_nano: i64::try_from(timeout.as_nanos()).unwrap(),
        connection_data: Arc::default(),
    }
}

fn never() -> TtrpcContext {
    context(Duration::ZERO)
}

/// An agent with a policy, or without one.
fn agent(policy: Option<&str>, tee_active: bool) -> (tempfile::TempDir, Arc<Agent>) {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::for_test(directory.path(), tee_active);
    if let Some(policy) = policy {
        agent.gate.begin_with(policy).unwrap();
    }
    (directory, Arc::new(agent))
}

fn told(error: ttrpc::Error) -> (ttrpc::Code, String) {
    let ttrpc::Error::RpcStatus(status) = error else { panic!("{error:?}") };
    (status.code(), status.message().to_owned())
}

/// Calls with a handler that counts.
async fn call<R: MessageFull>(
    agent: &Arc<Agent>,
    endpoint: Endpoint,
    context: TtrpcContext,
    request: R,
    answer: Result<(), RpcError>,
) -> (ttrpc::Result<Empty>, usize) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let handler = move |_: Arc<Agent>, _: Permitted<R>| async move {
        counted.fetch_add(1, Ordering::Relaxed);
        answer.map(|()| Empty::new())
    };
    let result = pass(agent, endpoint, &context, request, handler).await;
    (result, count.load(Ordering::Relaxed))
}

/// A method that is added without a handler, or that is let through without a policy, fails here.
#[tokio::test]
async fn without_a_policy_every_request_is_denied() {
    let (_directory, agent) = agent(None, false);
    for endpoint in Endpoint::ALL {
        let Some(rule) = endpoint.policy_rule() else { continue };
        if policy_engine::WITHOUT_POLICY.contains(&rule) {
            continue;
        }
        assert!(!agent.gate.permits_default(endpoint), "{endpoint}");
    }
    let (result, handled) =
        call(&agent, Endpoint::OnlineCPUMem, never(), OnlineCPUMemRequest::new(), Ok(())).await;
    let (code, text) = told(result.unwrap_err());
    assert_eq!(code, ttrpc::Code::PERMISSION_DENIED);
    assert!(
        text.contains("OnlineCPUMemRequest is blocked by policy") && text.contains("POLICY_ABSENT"),
        "{text}"
    );
    assert_eq!(handled, 0);
}

#[tokio::test]
async fn evil_host_calls_what_the_policy_does_not_name() {
    let (_directory, agent) = agent(Some(STATEFUL), false);
    let (result, handled) =
        call(&agent, Endpoint::CreateSandbox, never(), CreateSandboxRequest::new(), Ok(())).await;
    let (code, text) = told(result.unwrap_err());
    assert_eq!((code, handled), (ttrpc::Code::PERMISSION_DENIED, 0));
    assert!(
        text.contains("CreateSandboxRequest is blocked by policy") && text.contains("POLICY_UNDEFINED"),
        "{text}"
    );
    assert_eq!(text.matches("blocked").count(), 1);
}

#[tokio::test]
async fn the_state_changes_with_the_effect() {
    let (_directory, agent) = agent(Some(STATEFUL), false);
    let request = || RemoveContainerRequest { container_id: "ab".to_owned(), ..Default::default() };
    let failed = RpcError::Failed("AGENT_TEST", "no".to_owned());
    let (result, handled) = call(&agent, Endpoint::RemoveContainer, never(), request(), Err(failed)).await;
    assert!(result.is_err() && handled == 1);
    assert_eq!(agent.gate.policy_state().unwrap()["pstate"], serde_json::json!({}), "nothing happened");
    let (result, _) = call(&agent, Endpoint::RemoveContainer, never(), request(), Ok(())).await;
    result.unwrap();
    assert_eq!(agent.gate.policy_state().unwrap()["pstate"], serde_json::json!({"ab": 1}));
    let (result, handled) = call(&agent, Endpoint::RemoveContainer, never(), request(), Ok(())).await;
    assert!(result.is_err() && handled == 0, "the state says that it was");
}

// COMPAT: ReadStdout, ReadStderr stricter: denied before the stream is touched, and not after
#[tokio::test]
async fn evil_host_stream_read_before_decision() {
    let (_directory, agent) = agent(Some(STATEFUL), false);
    let touched = Arc::new(AtomicUsize::new(0));
    let own = Arc::clone(&touched);
    let handler = move |_: Arc<Agent>, _: Permitted<ReadStreamRequest>| async move {
        own.fetch_add(1, Ordering::Relaxed);
        Ok(ReadStreamResponse { data: b"secret".to_vec(), ..Default::default() })
    };
    let answer =
        pass(&agent, Endpoint::ReadStdout, &never(), ReadStreamRequest::new(), handler).await.unwrap();
    assert_eq!((answer.data.len(), touched.load(Ordering::Relaxed)), (0, 0), "the stream is untouched");
}

#[tokio::test]
async fn evil_host_deadline_in_the_queue() {
    let (_directory, agent) = agent(Some(STATEFUL), false);
    let before = agent.gate.queue.lock().await;
    let request = || RemoveContainerRequest { container_id: "ab".to_owned(), ..Default::default() };
    let late = Arc::clone(&agent);
    let waiting = tokio::spawn(async move {
        call(&late, Endpoint::RemoveContainer, context(Duration::from_millis(1)), request(), Ok(())).await
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(before);
    let (result, handled) = waiting.await.unwrap();
    assert_eq!((told(result.unwrap_err()).0, handled), (ttrpc::Code::DEADLINE_EXCEEDED, 0));
    assert_eq!(agent.gate.policy_state().unwrap()["pstate"], serde_json::json!({}));
}

#[tokio::test]
async fn evil_host_floods_the_queue() {
    let (_directory, agent) = agent(Some(STATEFUL), false);
    let before = agent.gate.queue.lock().await;
    let request = || RemoveContainerRequest { container_id: "ab".to_owned(), ..Default::default() };
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..MAXIMUM_QUEUED {
        let agent = Arc::clone(&agent);
        waiting.spawn(
            async move { call(&agent, Endpoint::RemoveContainer, never(), request(), Ok(())).await.1 },
        );
    }
    while agent.gate.queued.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let refused = call(&agent, Endpoint::RemoveContainer, never(), request(), Ok(()));
    // One that waits instead never ends by itself: the queue does not move.
    let (result, handled) = tokio::time::timeout(Duration::from_secs(30), refused).await.unwrap();
    assert_eq!((told(result.unwrap_err()).0, handled), (ttrpc::Code::RESOURCE_EXHAUSTED, 0));
    // What does not touch the state does not queue.
    let (result, _) = call(&agent, Endpoint::OnlineCPUMem, never(), OnlineCPUMemRequest::new(), Ok(())).await;
    result.unwrap();
    drop(before);
    let handled: usize = waiting.join_all().await.into_iter().sum();
    assert_eq!(handled, 1, "the first of them; the others found the state changed");
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_half() {
    let (_directory, agent) = agent(Some(STATEFUL), false);
    let (begun, end) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (began, go) = (Arc::clone(&begun), Arc::clone(&end));
    let handler = move |_: Arc<Agent>, _: Permitted<RemoveContainerRequest>| async move {
        began.notify_one();
        go.notified().await;
        Ok(Empty::new())
    };
    let request = RemoveContainerRequest { container_id: "ab".to_owned(), ..Default::default() };
    let caller = Arc::clone(&agent);
    let call = tokio::spawn(async move {
        pass(&caller, Endpoint::RemoveContainer, &never(), request, handler).await.is_ok()
    });
    begun.notified().await;
    call.abort();
    end.notify_one();
    // The queue is free when it is over.
    drop(agent.gate.queue.lock().await);
    assert_eq!(agent.gate.policy_state().unwrap()["pstate"], serde_json::json!({"ab": 1}));
}

async fn set_policy(agent: &Arc<Agent>, policy: &str) -> ttrpc::Result<Empty> {
    let request = SetPolicyRequest { policy: policy.to_owned(), ..Default::default() };
    pass(agent, Endpoint::SetPolicy, &never(), request, |agent, request| async move {
        agent.gate.replace_policy(&request.policy).map(|()| Empty::new())
    })
    .await
}

// COMPAT: SetPolicy stricter: in a confidential guest only a text that bound initdata lists
// COMPAT: SetPolicy better: a text that is no policy leaves the old one in force
#[tokio::test]
async fn evil_host_policy_downgrade() {
    let open = "package agent_policy\n\ndefault CreateSandboxRequest := true\n";
    let (_directory, tee) = agent(Some(STATEFUL), true);
    let (code, text) = told(set_policy(&tee, open).await.unwrap_err());
    assert_eq!(code, ttrpc::Code::FAILED_PRECONDITION);
    assert!(text.starts_with("POLICY_NOT_LISTED"), "{text}");
    assert!(!tee.gate.permits_default(Endpoint::CreateSandbox), "the old policy decides");
    let (_directory, plain) = agent(Some(STATEFUL), false);
    let broken = "package agent_policy\n\nCreateSandboxRequest := \n";
    assert_eq!(told(set_policy(&plain, broken).await.unwrap_err()).0, ttrpc::Code::INVALID_ARGUMENT);
    assert!(plain.gate.permits_default(Endpoint::OnlineCPUMem), "the old policy is still there");
    set_policy(&plain, open).await.unwrap();
    assert!(plain.gate.permits_default(Endpoint::CreateSandbox));
    let again = told(set_policy(&plain, open).await.unwrap_err());
    assert_eq!(again.0, ttrpc::Code::PERMISSION_DENIED, "the new policy does not name SetPolicyRequest");
}
