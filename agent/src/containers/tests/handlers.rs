//! Requests about containers, through the gate, to an agent whose engine makes none: what is answered before the engine is asked, and
//! what is not done when nobody waits for it any more.

use std::time::Duration;

use protocol::agent::{
    AgentService as _, CreateContainerRequest, ExecProcessRequest, RemoveContainerRequest,
    SignalProcessRequest, StartContainerRequest, WaitProcessRequest,
};
use ttrpc::asynchronous::TtrpcContext;

use super::*;
use crate::context::Agent;
use crate::rpc::Service;

const ALLOW_ALL: &str = "package agent_policy
default CreateContainerRequest := true
default ExecProcessRequest := true
default ReadStreamRequest := true
default RemoveContainerRequest := true
default SignalProcessRequest := true
default StartContainerRequest := true
default WaitProcessRequest := true
default WriteStreamRequest := true
";
/// A deadline that a call meets only if nobody is in its way.
const SHORT: Duration = Duration::from_millis(500);

fn context(timeout: Duration) -> TtrpcContext {
    TtrpcContext {
        mh: ttrpc::MessageHeader::new_request(1, 0),
        metadata: HashMap::new(),
        timeout_nano: i64::try_from(timeout.as_nanos()).unwrap(),
        connection_data: Arc::default(),
    }
}

fn told<T: std::fmt::Debug>(answer: ttrpc::Result<T>) -> (String, String) {
    match answer.unwrap_err() {
        ttrpc::Error::RpcStatus(status) => (format!("{:?}", status.code()), status.message().to_owned()),
        other => panic!("{other:?}"),
    }
}

fn agent() -> (Place, Arc<Agent>) {
    let directory = tempfile::tempdir().unwrap();
    let agent = Arc::new(Agent::for_test(directory.path(), false));
    agent.gate.begin_with(ALLOW_ALL).unwrap();
    (Place::with(Arc::clone(&agent.reaper), directory), agent)
}

fn start() -> StartContainerRequest {
    StartContainerRequest { container_id: "c1".to_owned(), ..StartContainerRequest::default() }
}

fn exec_request() -> ExecProcessRequest {
    let process = protocol::oci::Process {
        Args: vec!["true".to_owned()],
        Cwd: "/".to_owned(),
        ..protocol::oci::Process::default()
    };
    ExecProcessRequest {
        container_id: "c1".to_owned(),
        exec_id: "e1".to_owned(),
        process: Some(process).into(),
        ..ExecProcessRequest::default()
    }
}

/// Starts a call while somebody else works on the container, and ends that work when the caller has stopped waiting.
async fn late<T: Send + 'static>(
    container: &Arc<Container>,
    call: impl Future<Output = ttrpc::Result<T>> + Send + 'static,
) -> ttrpc::Result<T> {
    let work = container.work().await.unwrap();
    let call = tokio::spawn(call);
    tokio::time::sleep(SHORT * 3).await;
    assert!(!call.is_finished(), "it waits for its turn");
    drop(work);
    call.await.unwrap()
}

// COMPAT: StartContainer stricter: not for a caller who has stopped waiting
#[tokio::test(flavor = "multi_thread")]
async fn evil_host_deadline_before_the_start() {
    let (place, agent) = agent();
    let (container, _end) = place.added(&agent.containers, "c1");
    let service = Service(Arc::clone(&agent));
    let call = async move { service.start_container(&context(SHORT), start()).await };
    let (code, _) = told(late(&container, call).await);
    assert_eq!(code, "DEADLINE_EXCEEDED");
    assert_eq!(container.state(), State::Created);
    // In time it comes to the engine.
    let answer = Service(agent).start_container(&context(Duration::ZERO), start()).await;
    assert!(told(answer).1.starts_with("ENGINE_UNAVAILABLE"));
}

// COMPAT: ExecProcess stricter: not for a caller who has stopped waiting
#[tokio::test(flavor = "multi_thread")]
async fn evil_host_deadline_before_an_exec() {
    let (place, agent) = agent();
    let (container, _end) = place.added(&agent.containers, "c1");
    container.set_started();
    let service = Service(Arc::clone(&agent));
    let call = async move { service.exec_process(&context(SHORT), exec_request()).await };
    let (code, _) = told(late(&container, call).await);
    assert_eq!(code, "DEADLINE_EXCEEDED");
    assert_eq!(container.processes().len(), 1);
    let answer = Service(agent).exec_process(&context(Duration::ZERO), exec_request()).await;
    assert!(told(answer).1.starts_with("ENGINE_UNAVAILABLE"));
    assert_eq!(container.processes().len(), 1);
}

// COMPAT: RemoveContainer better: `ETIME` also without a time, after 120 s, and the work is completed
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_takes_too_long_is_told_and_goes_on() {
    let (place, agent) = agent();
    let (container, _end) = place.added(&agent.containers, "c1");
    let work = container.work().await.unwrap();
    let request = RemoveContainerRequest {
        container_id: "c1".to_owned(),
        timeout: 1,
        ..RemoveContainerRequest::default()
    };
    let answer = Service(Arc::clone(&agent)).remove_container(&context(Duration::ZERO), request).await;
    assert_eq!(told(answer), ("INTERNAL".to_owned(), "ETIME".to_owned()));
    assert!(agent.containers.get(&id("c1")).is_some());
    drop(work);
}

// COMPAT: StartContainer, ExecProcess, RemoveContainer same: code and text where there is no such container
// COMPAT: WaitProcess, SignalProcess same: codes and texts where there is no such process
#[tokio::test]
async fn who_is_not_there_is_told_as_runtimes_expect_it() {
    let (_place, agent) = agent();
    let service = Service(agent);
    let now = || context(Duration::ZERO);
    let bare = |code: &str, text: &str| (code.to_owned(), text.to_owned());
    assert_eq!(
        told(service.start_container(&now(), start()).await),
        bare("INTERNAL", "Invalid container id")
    );
    assert_eq!(
        told(service.exec_process(&now(), exec_request()).await),
        bare("INTERNAL", "Invalid container id")
    );
    let remove =
        RemoveContainerRequest { container_id: "c1".to_owned(), ..RemoveContainerRequest::default() };
    assert_eq!(
        told(service.remove_container(&now(), remove).await),
        bare("INTERNAL", "Invalid container id")
    );
    let wait = WaitProcessRequest { container_id: "c1".to_owned(), ..WaitProcessRequest::default() };
    let missing = bare("INVALID_ARGUMENT", "InvalidContainerId");
    assert_eq!(told(service.wait_process(&now(), wait).await), missing);
    for number in [9, 15] {
        let signal = SignalProcessRequest {
            container_id: "c1".to_owned(),
            signal: number,
            ..SignalProcessRequest::default()
        };
        assert_eq!(told(service.signal_process(&now(), signal).await), missing);
    }
}

// COMPAT: WaitProcess same: codes and texts where there is no such process
// COMPAT: ExecProcess same: `exec_id 'X' already exists`
// COMPAT: SignalProcess same: codes and texts where there is no such process; a signal that comes too late is none
#[tokio::test]
async fn processes_that_are_not_there_and_signals_that_come_too_late() {
    let (place, agent) = agent();
    let (container, end) = place.added(&agent.containers, "c1");
    let service = Service(Arc::clone(&agent));
    let now = || context(Duration::ZERO);
    let wait = |exec: &str| WaitProcessRequest {
        container_id: "c1".to_owned(),
        exec_id: exec.to_owned(),
        ..WaitProcessRequest::default()
    };
    let signal = |exec: &str, number: u32| SignalProcessRequest {
        container_id: "c1".to_owned(),
        exec_id: exec.to_owned(),
        signal: number,
        ..SignalProcessRequest::default()
    };
    let missing = ("NOT_FOUND".to_owned(), "InvalidExecId".to_owned());
    assert_eq!(told(service.wait_process(&now(), wait("e9")).await), missing);
    assert_eq!(told(service.signal_process(&now(), signal("e9", 15)).await), missing);
    assert!(told(service.signal_process(&now(), signal("", 65)).await).1.starts_with("REQUEST_SIGNAL"));
    assert!(told(service.signal_process(&now(), signal("", 33)).await).1.starts_with("PROCESS_SIGNAL"));
    // An exec id that is that of the first process.
    container.set_started();
    let mut request = exec_request();
    request.exec_id = "c1".to_owned();
    let (_, text) = told(service.exec_process(&now(), request).await);
    assert_eq!(text, "exec_id 'c1' already exists");
    let mut request = exec_request();
    request.process = None.into();
    let (_, text) = told(service.exec_process(&now(), request).await);
    assert_eq!(text, "Unable to parse process from ExecProcessRequest");

    // This process is a real one: it gets the signal, and one that comes too late is none.
    service.signal_process(&now(), signal("c1", 9)).await.unwrap();
    end.send_replace(Some(Ended::Killed(9)));
    for _ in 0..2 {
        assert_eq!(service.wait_process(&now(), wait("")).await.unwrap().status, 137);
    }
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while container.first().is_alive() && std::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!container.first().is_alive());
    service.signal_process(&now(), signal("", 15)).await.unwrap();
}

// COMPAT: CreateContainer same: EINVAL without a specification
#[tokio::test]
async fn a_container_that_cannot_be_made_leaves_nothing() {
    let (place, agent) = agent();
    let root = agent.roots.shared().join("c1/rootfs");
    std::fs::create_dir_all(&root).unwrap();
    let mut specification = specification();
    specification.Root.as_mut().unwrap().Path = root.to_str().unwrap().to_owned();
    let request = CreateContainerRequest {
        container_id: "c1".to_owned(),
        OCI: Some(specification.clone()).into(),
        ..CreateContainerRequest::default()
    };
    let service = Service(Arc::clone(&agent));
    let mut without = request.clone();
    without.OCI = None.into();
    let (code, text) = told(service.create_container(&context(Duration::ZERO), without).await);
    assert!(code == "INTERNAL" && text.starts_with("EINVAL: "), "{text}");
    specification.Root.as_mut().unwrap().Path = "/".to_owned();
    let mut outside = request;
    outside.OCI = Some(specification).into();
    let (_, text) = told(service.create_container(&context(Duration::ZERO), outside).await);
    assert!(text.starts_with("CONTAINER_ROOT: "), "{text}");
    assert!(agent.containers.is_empty());
    assert!(!agent.roots.run.join("c1").exists());
    let entries = std::fs::read_dir(place.directory.path().join("run/kata-containers")).unwrap();
    assert_eq!(entries.count(), 1, "what the host shares");
}
