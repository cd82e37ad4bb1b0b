use protocol::agent::{
    CreateSandboxRequest, Empty, OnlineCPUMemRequest, ReadStreamRequest, ReadStreamResponse,
    RemoveContainerRequest, SetPolicyRequest,
};
use std::sync::atomic::AtomicUsize;

use policy_engine::audit::{
    Facts, Frame, Head, OperatorKey, OperatorSecret, OperatorSuite, Record, Story, Told,
};
use protocol::agent::ExecProcessRequest;
use tokio::sync::Notify;

use super::queue::MAXIMUM_QUEUED;
use super::*;

const STATEFUL: &str = r#"package agent_policy

default OnlineCPUMemRequest := true

default ReadStreamRequest := false

RemoveContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("/", ["", "pstate", input.container_id]), "value": 1}]} if {
    not data.pstate[input.container_id]
}

SetPolicyRequest if startswith(input.policy, "package agent_policy")

ExecProcessRequest if not data.pstate[input.container_id]
"#;

/// Whether a request that has nothing but defaults is let through.
fn permits_default(agent: &Agent, endpoint: Endpoint) -> bool {
    agent.gate.would_permit(endpoint, &*endpoint.request().new_instance())
}

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
        assert!(!permits_default(&agent, endpoint), "{endpoint}");
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

fn removal() -> RemoveContainerRequest {
    RemoveContainerRequest { container_id: "ab".to_owned(), ..Default::default() }
}

#[tokio::test]
async fn evil_host_deadline_in_the_queue() {
    let (_directory, agent) = agent(Some(STATEFUL), false);
    let before = agent.gate.queue.changes.lock().await;
    // It does not wait for its turn to hear that it is too late, and its place is another's.
    let (result, handled) =
        call(&agent, Endpoint::RemoveContainer, context(Duration::from_millis(1)), removal(), Ok(())).await;
    assert_eq!((told(result.unwrap_err()).0, handled), (ttrpc::Code::DEADLINE_EXCEEDED, 0));
    assert_eq!(agent.gate.queue.places.available_permits(), MAXIMUM_QUEUED);
    drop(before);
    assert_eq!(agent.gate.policy_state().unwrap()["pstate"], serde_json::json!({}));
}

#[tokio::test]
async fn evil_host_deadline_before_the_decision() {
    let (_directory, agent) = agent(Some(STATEFUL), false);
    let over = Some(Instant::now());
    let handler = |_: Arc<Agent>, _: Permitted<RemoveContainerRequest>| async move { Ok(Empty::new()) };
    let answer = run(Arc::clone(&agent), Endpoint::RemoveContainer, over, removal(), handler).await;
    assert_eq!(answer.unwrap_err(), RpcError::Deadline);
    assert_eq!(agent.gate.policy_state().unwrap()["pstate"], serde_json::json!({}));
}

/// A call that is held in its effect until it is let go, and how to see both.
fn held<R: MessageFull>(
    agent: &Arc<Agent>,
    endpoint: Endpoint,
    request: R,
) -> (Arc<Notify>, Arc<Notify>, tokio::task::JoinHandle<bool>) {
    let (begun, end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (began, go, agent) = (Arc::clone(&begun), Arc::clone(&end), Arc::clone(agent));
    let handler = move |_: Arc<Agent>, _: Permitted<R>| async move {
        began.notify_one();
        go.notified().await;
        Ok(Empty::new())
    };
    let call = tokio::spawn(async move { pass(&agent, endpoint, &never(), request, handler).await.is_ok() });
    (begun, end, call)
}

fn exec_in(container: &str) -> ExecProcessRequest {
    ExecProcessRequest { container_id: container.to_owned(), ..Default::default() }
}

/// A slow effect of one call does not hold up those that only look at the state.
#[tokio::test]
async fn who_reads_the_state_does_not_wait_for_an_effect() {
    let (_directory, agent) = agent(Some(STATEFUL), false);
    let (begun, end, slow) = held(&agent, Endpoint::RemoveContainer, removal());
    begun.notified().await;
    let beside = call(&agent, Endpoint::ExecProcess, never(), exec_in("ab"), Ok(()));
    let (result, _) = tokio::time::timeout(Duration::from_secs(30), beside).await.unwrap();
    result.unwrap();
    end.notify_one();
    assert!(slow.await.unwrap());
    let (result, handled) = call(&agent, Endpoint::ExecProcess, never(), exec_in("ab"), Ok(())).await;
    assert!(result.is_err() && handled == 0, "the state says that it is gone");
}

/// What was permitted by a state happens under that state: not after the container that it was about has become another one.
#[tokio::test]
async fn evil_host_has_an_effect_after_its_permission_is_over() {
    let (_directory, agent) = agent(Some(STATEFUL), false);
    let (begun, end, reader) = held(&agent, Endpoint::ExecProcess, exec_in("ab"));
    begun.notified().await;
    let own = Arc::clone(&agent);
    let change = tokio::spawn(async move {
        call(&own, Endpoint::RemoveContainer, never(), removal(), Ok(())).await.0.is_ok()
    });
    while agent.gate.queue.changes.try_lock().is_ok() {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(agent.gate.policy_state().unwrap()["pstate"], serde_json::json!({}), "somebody relies on it");
    assert!(!change.is_finished());
    end.notify_one();
    assert!(reader.await.unwrap() && change.await.unwrap());
    assert_eq!(agent.gate.policy_state().unwrap()["pstate"], serde_json::json!({"ab": 1}));
}

/// An agent whose audit somebody reads.
fn audited(policy: &str) -> (tempfile::TempDir, Arc<Agent>, OperatorSecret) {
    let directory = tempfile::tempdir().unwrap();
    let operator = OperatorSecret::generate(OperatorSuite::P384).unwrap();
    let key = OperatorKey::parse(OperatorSuite::P384, &operator.public_bytes()).unwrap();
    let audit = Audit::start(Facts::default(), Some(key)).unwrap();
    let agent = Agent::for_test_with(directory.path(), false, audit);
    agent.gate.begin_with(policy).unwrap();
    (directory, Arc::new(agent), operator)
}

/// Decisions, as the operator reads them.
fn recorded(agent: &Agent, operator: &OperatorSecret) -> Vec<String> {
    let frames = Frame::parse_all(&agent.audit.read(0, 1 << 20).unwrap().frames).unwrap();
    let story = Story::read(&frames, Some(operator)).unwrap();
    let line = |told: &Told| match told {
        Told::Record { record: Record::Decision(decision), .. } => {
            let method = decision.endpoint.rsplit('/').next().unwrap_or_default();
            Some(format!("{method} {} {}", decision.ruling.name(), decision.code))
        }
        _ => None,
    };
    story.told().iter().filter_map(line).collect()
}

#[tokio::test]
async fn evil_host_refusals_that_nobody_hears_of() {
    let (_directory, agent, operator) = audited(STATEFUL);
    let before = agent.gate.queue.changes.lock().await;
    let late = context(Duration::from_millis(1));
    let (result, _) = call(&agent, Endpoint::RemoveContainer, late, removal(), Ok(())).await;
    assert_eq!(told(result.unwrap_err()).0, ttrpc::Code::DEADLINE_EXCEEDED);
    let full = agent.gate.queue.places.try_acquire_many(u32::try_from(MAXIMUM_QUEUED).unwrap()).unwrap();
    for _ in 0..5 {
        let (result, _) = call(&agent, Endpoint::RemoveContainer, never(), removal(), Ok(())).await;
        assert_eq!(told(result.unwrap_err()).0, ttrpc::Code::RESOURCE_EXHAUSTED);
    }
    drop((full, before));
    agent.gate.refused_by_limits(Endpoint::CreateContainer, &LimitError::Members);
    let expected = [
        "RemoveContainer denied REQUEST_LATE",
        "RemoveContainer denied REQUEST_BUSY",
        "CreateContainer denied REQUEST_MEMBERS",
    ];
    assert_eq!(recorded(&agent, &operator), expected);
    // The others that are alike are counted.
    assert_eq!(Head::parse(&agent.audit.head(&[1; 16]).unwrap()).unwrap().denied, 7);
}

/// That a stream is thrown away because policy denies it is a decision: it is told apart from those that the host asked for.
#[tokio::test]
async fn what_the_agent_asks_for_itself_is_in_the_audit() {
    let (_directory, agent, operator) = audited(STATEFUL);
    assert!(!agent.gate.would_permit(Endpoint::ReadStdout, &ReadStreamRequest::new()));
    assert!(agent.gate.would_permit(Endpoint::OnlineCPUMem, &OnlineCPUMemRequest::new()));
    let handler =
        |_: Arc<Agent>, _: Permitted<ReadStreamRequest>| async move { Ok(ReadStreamResponse::new()) };
    pass(&agent, Endpoint::ReadStdout, &never(), ReadStreamRequest::new(), handler).await.unwrap();
    let expected = [
        "ReadStdout denied AGENT_ASKED",
        "OnlineCPUMem allowed AGENT_ASKED",
        "ReadStdout denied POLICY_DENIED",
    ];
    assert_eq!(recorded(&agent, &operator), expected);
    // It changes nothing.
    assert!(agent.gate.would_permit(Endpoint::RemoveContainer, &removal()));
    assert_eq!(agent.gate.policy_state().unwrap()["pstate"], serde_json::json!({}));
}

#[tokio::test]
async fn evil_host_floods_the_queue() {
    let (_directory, agent) = agent(Some(STATEFUL), false);
    let before = agent.gate.queue.changes.lock().await;
    let request = removal;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..MAXIMUM_QUEUED {
        let agent = Arc::clone(&agent);
        waiting.spawn(
            async move { call(&agent, Endpoint::RemoveContainer, never(), request(), Ok(())).await.1 },
        );
    }
    while agent.gate.queue.places.available_permits() > 0 {
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
    let (begun, end, call) = held(&agent, Endpoint::RemoveContainer, removal());
    begun.notified().await;
    call.abort();
    end.notify_one();
    // The queue is free when it is over.
    drop(agent.gate.queue.changes.lock().await);
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
    assert!(!permits_default(&tee, Endpoint::CreateSandbox), "the old policy decides");
    let (_directory, plain) = agent(Some(STATEFUL), false);
    let broken = "package agent_policy\n\nCreateSandboxRequest := \n";
    assert_eq!(told(set_policy(&plain, broken).await.unwrap_err()).0, ttrpc::Code::INVALID_ARGUMENT);
    assert!(permits_default(&plain, Endpoint::OnlineCPUMem), "the old policy is still there");
    set_policy(&plain, open).await.unwrap();
    assert!(permits_default(&plain, Endpoint::CreateSandbox));
    let again = told(set_policy(&plain, open).await.unwrap_err());
    assert_eq!(again.0, ttrpc::Code::PERMISSION_DENIED, "the new policy does not name SetPolicyRequest");
}
