use std::fs;
use std::sync::Arc;
use std::time::Duration;

use protocol::Endpoint;
use protocol::agent::Empty;
use protocol::ids::ContainerId;
use ttrpc::asynchronous::TtrpcContext;

use super::*;
use crate::gate::pass;
use crate::namespaces::tests::in_namespaces;

const OPEN: &str =
    "package agent_policy\n\ndefault CreateSandboxRequest := true\ndefault DestroySandboxRequest := true\n";
const UNSHARE: &[&str] = &["--mount", "--uts", "--ipc"];

/// The body, with an agent whose trees lie in a directory, in a runtime.
fn with_agent<F: Future<Output = ()>>(body: impl FnOnce(Arc<Agent>) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let agent = Arc::new(Agent::for_test(directory.path(), false));
        fs::create_dir_all(&agent.roots.run).unwrap();
        fs::create_dir_all(&agent.roots.etc).unwrap();
        fs::write(agent.roots.etc.join("resolv.conf"), "nameserver 127.0.0.53\n").unwrap();
        agent.gate.begin_with(OPEN).unwrap();
        body(agent).await;
    });
}

/// Calls through the gate; the handler begins after `before`.
async fn create(
    agent: &Arc<Agent>,
    request: CreateSandboxRequest,
    limit: Duration,
    before: Duration,
) -> Result<Empty, (ttrpc::Code, String)> {
    let context = TtrpcContext {
        mh: ttrpc::MessageHeader::new_request(1, 0),
        metadata: std::collections::HashMap::new(),
        timeout_nano: i64::try_from(limit.as_nanos()).unwrap(),
        connection_data: Arc::default(),
    };
    let handler = move |agent: Arc<Agent>, request: Permitted<CreateSandboxRequest>| async move {
        tokio::time::sleep(before).await;
        agent.sandbox.create(&agent, request).await.map(|()| Empty::new())
    };
    pass(agent, Endpoint::CreateSandbox, &context, request, handler).await.map_err(|error| {
        let ttrpc::Error::RpcStatus(status) = error else { panic!("{error:?}") };
        (status.code(), status.message().to_owned())
    })
}

fn request() -> CreateSandboxRequest {
    CreateSandboxRequest {
        hostname: "pod".to_owned(),
        dns: vec!["nameserver 10.0.0.1".to_owned()],
        sandbox_id: "pod-1".to_owned(),
        ..Default::default()
    }
}

fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().map(|line| line.split(' ').nth(4).unwrap().to_owned()).collect()
}

// COMPAT: CreateSandbox same
#[test]
fn containers_share_what_a_sandbox_makes() {
    in_namespaces(UNSHARE, || {
        with_agent(|agent| async move {
            let before = mounts();
            create(&agent, request(), Duration::ZERO, Duration::ZERO).await.unwrap();
            assert!(agent.sandbox.is_called("pod-1") && !agent.sandbox.is_called("pod-2"));
            let namespaces = agent.sandbox.namespaces();
            assert!(namespaces.ipc.unwrap().exists() && namespaces.uts.unwrap().exists());
            let resolver = agent.roots.etc.join("resolv.conf");
            assert_eq!(fs::read_to_string(&resolver).unwrap(), "nameserver 10.0.0.1");
            // Runtimes may try again.
            create(&agent, request(), Duration::ZERO, Duration::ZERO).await.unwrap();
            assert_eq!(mounts().len(), before.len() + 3, "ipc, uts, resolv.conf, once each");
            agent.sandbox.destroy(&agent).await.unwrap();
            assert_eq!(mounts(), before);
            assert_eq!(fs::read_to_string(&resolver).unwrap(), "nameserver 127.0.0.53\n");
            assert_eq!(agent.sandbox.destroy(&agent).await.unwrap_err(), RpcError::SandboxGone);
            let (code, _) = create(&agent, request(), Duration::ZERO, Duration::ZERO).await.unwrap_err();
            assert_eq!(code, ttrpc::Code::INTERNAL);
        });
    });
}

// COMPAT: CreateSandbox stricter: not while there are containers, and not after the end
#[test]
fn evil_host_makes_the_sandbox_again() {
    in_namespaces(UNSHARE, || {
        with_agent(|agent| async move {
            create(&agent, request(), Duration::ZERO, Duration::ZERO).await.unwrap();
            let before = mounts();
            let container = agent.containers.reserve(&ContainerId::parse("c1").unwrap()).unwrap();
            let again = CreateSandboxRequest { hostname: "other".to_owned(), ..request() };
            let (code, text) = create(&agent, again, Duration::ZERO, Duration::ZERO).await.unwrap_err();
            assert_eq!(code, ttrpc::Code::FAILED_PRECONDITION);
            assert!(text.starts_with("SANDBOX_OCCUPIED"), "{text}");
            assert_eq!(mounts(), before, "what the container shares is still there");
            container.release();
        });
    });
}

// COMPAT: CreateSandbox better: all of it or nothing, also for a caller who has stopped waiting
#[test]
fn evil_host_deadline_mid_sandbox() {
    in_namespaces(UNSHARE, || {
        with_agent(|agent| async move {
            let before = mounts();
            let (limit, late) = (Duration::from_secs(1), Duration::from_millis(1100));
            let (code, _) = create(&agent, request(), limit, late).await.unwrap_err();
            assert_eq!(code, ttrpc::Code::DEADLINE_EXCEEDED);
            assert_eq!(mounts(), before, "nothing is left of it");
            assert_eq!(agent.sandbox.namespaces(), spec::SandboxNamespaces::default());
        });
    });
}

#[test]
fn a_sandbox_that_fails_leaves_nothing() {
    in_namespaces(UNSHARE, || {
        with_agent(|agent| async move {
            let before = mounts();
            let bad =
                CreateSandboxRequest { dns: vec!["nameserver 1.1.1.1\nsearch evil".to_owned()], ..request() };
            let (_, text) = create(&agent, bad, Duration::ZERO, Duration::ZERO).await.unwrap_err();
            assert!(text.starts_with("DNS_"), "{text}");
            assert_eq!(mounts(), before);
        });
    });
}
