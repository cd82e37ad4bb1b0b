//! Requests about streams, limits, figures and events, through the gate, of containers whose control group is a directory of files.

use std::fs;
use std::time::Duration;

use protocol::agent::{
    AgentService as _, CloseStdinRequest, PauseContainerRequest, ReadStreamRequest, ResumeContainerRequest,
    StatsContainerRequest, TtyWinResizeRequest, UpdateContainerRequest, WriteStreamRequest,
};
use protocol::oci::{LinuxDeviceCgroup, LinuxResources};
use ttrpc::asynchronous::TtrpcContext;

use super::*;
use crate::context::Agent;
use crate::rpc::Service;

const ALLOW_ALL: &str = "package agent_policy
default CloseStdinRequest := true
default PauseContainerRequest := true
default ReadStreamRequest := true
default ResumeContainerRequest := true
default StatsContainerRequest := true
default TtyWinResizeRequest := true
default UpdateContainerRequest := true
default WriteStreamRequest := true
";
/// A deadline that a call meets only if nobody is in its way.
const SHORT: Duration = Duration::from_millis(100);

fn context(timeout: Duration) -> TtrpcContext {
    TtrpcContext {
        mh: ttrpc::MessageHeader::new_request(1, 0),
        metadata: HashMap::new(),
        timeout_nano: i64::try_from(timeout.as_nanos()).unwrap(),
        connection_data: Arc::default(),
    }
}

fn now() -> TtrpcContext {
    context(Duration::ZERO)
}

fn told<T: std::fmt::Debug>(answer: ttrpc::Result<T>) -> (String, String) {
    match answer.unwrap_err() {
        ttrpc::Error::RpcStatus(status) => (format!("{:?}", status.code()), status.message().to_owned()),
        other => panic!("{other:?}"),
    }
}

/// An agent with one container, and what the kernel would show of it.
struct Stage {
    place: Place,
    container: Arc<Container>,
    service: Service,
    end: End,
}

impl Stage {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let agent = Arc::new(Agent::for_test(directory.path(), false));
        agent.gate.begin_with(ALLOW_ALL).unwrap();
        fs::create_dir_all(&agent.roots.proc).unwrap();
        for list in ["misc", "devices"] {
            fs::write(agent.roots.proc.join(list), "").unwrap();
        }
        let place = Place::with(Arc::clone(&agent.reaper), directory);
        let (container, end) = place.added(&agent.containers, "c1");
        let stage = Self { service: Service(Arc::clone(&agent)), place, container, end };
        for (name, text) in files {
            fs::write(stage.file(name), text).unwrap();
        }
        stage
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        let group = self.container.cgroup().path().as_path();
        self.place.directory.path().join("cgroup").join(group).join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }
}

fn update(change: impl FnOnce(&mut LinuxResources)) -> UpdateContainerRequest {
    let mut resources = LinuxResources::new();
    change(&mut resources);
    UpdateContainerRequest {
        container_id: "c1".to_owned(),
        resources: Some(resources).into(),
        ..UpdateContainerRequest::default()
    }
}

fn fewer() -> UpdateContainerRequest {
    update(|resources| resources.Pids.mut_or_insert_default().Limit = 5)
}

#[tokio::test]
async fn limits_are_written_and_figures_read() {
    let stage = Stage::new(&[("pids.max", "max\n"), ("memory.current", "77\n")]);
    stage.service.update_container(&now(), fewer()).await.unwrap();
    assert_eq!(stage.text("pids.max"), "5");
    let nothing = UpdateContainerRequest { container_id: "c1".to_owned(), ..Default::default() };
    stage.service.update_container(&now(), nothing).await.unwrap();
    let request = StatsContainerRequest { container_id: "c1".to_owned(), ..Default::default() };
    let stats = stage.service.stats_container(&now(), request).await.unwrap().cgroup_stats;
    assert_eq!(stats.memory_stats.usage.usage, 77);
    assert_eq!(stats.pids_stats.limit, 5);
}

// COMPAT: UpdateContainer better: all limits or none, also for a caller who has stopped waiting
#[tokio::test(flavor = "multi_thread")]
async fn evil_host_deadline_in_an_update() {
    let stage = Stage::new(&[("pids.max", "max\n")]);
    let work = stage.container.work().await.unwrap();
    let service = stage.service.clone();
    let call = tokio::spawn(async move { service.update_container(&context(SHORT), fewer()).await });
    tokio::time::sleep(SHORT * 3).await;
    assert!(!call.is_finished(), "it waits for its turn");
    drop(work);
    assert_eq!(told(call.await.unwrap()).0, "DEADLINE_EXCEEDED");
    assert_eq!(stage.text("pids.max"), "max\n");
}

#[tokio::test]
async fn limits_are_taken_back_when_device_rules_cannot_be_replaced() {
    let stage = Stage::new(&[("pids.max", "max\n")]);
    let request = update(|resources| {
        resources.Pids.mut_or_insert_default().Limit = 5;
        let rule = LinuxDeviceCgroup {
            Type: "c".to_owned(),
            Major: 1,
            Minor: 3,
            Access: "r".to_owned(),
            Allow: true,
            ..Default::default()
        };
        resources.Devices.push(rule);
    });
    let (_, text) = told(stage.service.update_container(&now(), request).await);
    assert!(text.starts_with("ENGINE_"), "{text}");
    assert_eq!(stage.text("pids.max"), "max\n");
}

// COMPAT: PauseContainer, ResumeContainer same: only what runs, and only what is paused
#[tokio::test]
async fn only_what_runs_is_paused_and_only_what_is_paused_resumed() {
    let stage = Stage::new(&[("cgroup.freeze", "0\n"), ("cgroup.events", "populated 1\nfrozen 1\n")]);
    let pause = || PauseContainerRequest { container_id: "c1".to_owned(), ..Default::default() };
    let resume = || ResumeContainerRequest { container_id: "c1".to_owned(), ..Default::default() };
    let (code, text) = told(stage.service.resume_container(&now(), resume()).await);
    assert!(code == "INTERNAL" && text.contains("current status is: created, not paused"), "{text}");
    stage.service.pause_container(&now(), pause()).await.unwrap();
    assert_eq!((stage.text("cgroup.freeze").as_str(), stage.container.state()), ("1", State::Paused));
    let (code, text) = told(stage.service.pause_container(&now(), pause()).await);
    assert!(
        code == "INTERNAL" && text.contains("failed to pause container: current status is: paused"),
        "{text}"
    );
    fs::write(stage.file("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
    stage.service.resume_container(&now(), resume()).await.unwrap();
    assert_eq!((stage.text("cgroup.freeze").as_str(), stage.container.state()), ("0", State::Created));
    stage.end.send_replace(Some(Ended::Exited(0)));
    let (_, text) = told(stage.service.pause_container(&now(), pause()).await);
    assert!(text.contains("current status is: stopped"), "{text}");
}

// COMPAT: UpdateContainer, StatsContainer, PauseContainer, ResumeContainer same: code and text where there is no such container
#[tokio::test]
async fn who_is_not_there_is_told_as_upstream_tells() {
    let stage = Stage::new(&[]);
    let service = &stage.service;
    let told_of = |code: &str, text: &str| (code.to_owned(), text.to_owned());
    let nobody = told_of("INVALID_ARGUMENT", "\"invalid container id\"");
    let id = || "c2".to_owned();
    let stats = StatsContainerRequest { container_id: id(), ..Default::default() };
    assert_eq!(told(service.stats_container(&now(), stats).await), nobody);
    let pause = PauseContainerRequest { container_id: id(), ..Default::default() };
    assert_eq!(told(service.pause_container(&now(), pause).await), nobody);
    let resume = ResumeContainerRequest { container_id: id(), ..Default::default() };
    assert_eq!(told(service.resume_container(&now(), resume).await), nobody);
    let update = UpdateContainerRequest { container_id: id(), ..Default::default() };
    assert_eq!(told(service.update_container(&now(), update).await), nobody);

    let missing = told_of("INVALID_ARGUMENT", "InvalidContainerId");
    let read = || ReadStreamRequest { container_id: id(), ..Default::default() };
    assert_eq!(told(service.read_stdout(&now(), read()).await), missing);
    assert_eq!(told(service.read_stderr(&now(), read()).await), missing);
    let close = CloseStdinRequest { container_id: id(), ..Default::default() };
    assert_eq!(told(service.close_stdin(&now(), close).await), missing);
    let resize = TtyWinResizeRequest { container_id: id(), ..Default::default() };
    assert_eq!(told(service.tty_win_resize(&now(), resize).await), missing);
    // Here upstream has another code.
    let write = |container: &str, exec: &str| WriteStreamRequest {
        container_id: container.to_owned(),
        exec_id: exec.to_owned(),
        data: vec![1],
        ..Default::default()
    };
    let answer = told(service.write_stdin(&now(), write("c2", "")).await);
    assert_eq!(answer, told_of("INTERNAL", "InvalidContainerId"));
    let answer = told(service.write_stdin(&now(), write("c1", "e9")).await);
    assert_eq!(answer, told_of("INTERNAL", "InvalidExecId"));

    // Its ends of the pipes are closed.
    let read = ReadStreamRequest { container_id: "c1".to_owned(), len: u32::MAX, ..Default::default() };
    assert!(service.read_stdout(&now(), read).await.unwrap().data.is_empty());
    let answer = told(service.write_stdin(&now(), write("c1", "")).await);
    assert_eq!(answer, told_of("INTERNAL", "Cannot get writer"));
    let resize = TtyWinResizeRequest { container_id: "c1".to_owned(), ..Default::default() };
    let answer = told(service.tty_win_resize(&now(), resize).await);
    assert_eq!(answer, told_of("UNAVAILABLE", "\"no tty\""));
}
