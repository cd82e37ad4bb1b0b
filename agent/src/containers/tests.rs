use std::path::Path;
use std::process::{Command, Stdio};

use super::process::{MAXIMUM_PROCESSES, MAXIMUM_REMEMBERED};
use super::*;
use crate::cgroup::Cgroup;
use crate::log::Log;
use crate::reaper::{Ended, Handle, Reaper};
use crate::spec::{Facts, prepare};
use crate::streams::{PipeSize, Streams};
use protocol::oci::{Linux, LinuxNamespace, Root, Spec};
use rustix::process::Signal;
use tokio::sync::watch;

mod figures;
mod handlers;

type End = watch::Sender<Option<Ended>>;

fn id(text: &str) -> ContainerId {
    ContainerId::parse(text).unwrap()
}

fn exec(text: &str) -> ExecId {
    ExecId::parse(text).unwrap()
}

/// What containers of these tests stand on: one real process, one set of streams.
struct Place {
    directory: tempfile::TempDir,
    handle: Handle,
    streams: Arc<Streams>,
    _reaper: Arc<Reaper>,
}

impl Place {
    /// To be called inside a runtime.
    fn new() -> Self {
        Self::with(Arc::new(Reaper::start(&Log::console()).unwrap()), tempfile::tempdir().unwrap())
    }

    fn with(reaper: Arc<Reaper>, directory: tempfile::TempDir) -> Self {
        let mut sleep = Command::new("sleep");
        let handle = reaper.spawn(sleep.arg("600").stdin(Stdio::null())).unwrap().handle();
        let (_, streams) = Streams::pipes(PipeSize::default()).unwrap();
        Self { directory, handle, streams: Arc::new(streams), _reaper: reaper }
    }

    fn process(&self, name: Option<&str>) -> (Process, End) {
        let (end, ended) = watch::channel(None);
        let process = Process::watched(name.map(exec), self.handle.clone(), Arc::clone(&self.streams), ended);
        (process, end)
    }

    fn container(&self, name: &str) -> (Arc<Container>, End) {
        let (first, end) = self.process(Some(name));
        let bundle = Bundle::make(&self.directory.path().join("run"), &id(name)).unwrap();
        let prepared =
            prepare(&specification(), &Facts::new(id(name), bundle.path().to_owned(), false)).unwrap();
        let groups = self.directory.path().join("cgroup");
        std::fs::create_dir_all(groups.join(prepared.cgroup_path.as_path())).unwrap();
        let cgroup = Cgroup::open(&groups, &prepared.cgroup_path).unwrap();
        let parts = Parts { id: id(name), first, prepared, cgroup, bundle: Arc::new(bundle) };
        (Arc::new(Container::new(parts)), end)
    }

    fn added(&self, containers: &Containers, name: &str) -> (Arc<Container>, End) {
        let reservation = containers.reserve(&id(name)).unwrap();
        let (container, end) = self.container(name);
        reservation.commit(Arc::clone(&container));
        (container, end)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.handle.signal(Signal::KILL);
    }
}

fn specification() -> Spec {
    let namespace = LinuxNamespace { Type: "mount".to_owned(), ..LinuxNamespace::default() };
    let process = protocol::oci::Process {
        Args: vec!["true".to_owned()],
        Cwd: "/".to_owned(),
        ..protocol::oci::Process::default()
    };
    Spec {
        Version: "1.1.0".to_owned(),
        Process: Some(process).into(),
        Root: Some(Root { Path: "/rootfs".to_owned(), ..Root::default() }).into(),
        Linux: Some(Linux { Namespaces: vec![namespace], ..Linux::default() }).into(),
        ..Spec::default()
    }
}

#[tokio::test]
async fn evil_host_id_collision_in_the_table() {
    let place = Place::new();
    let containers = Containers::default();
    let reservation = containers.reserve(&id("c1")).unwrap();
    assert_eq!(containers.reserve(&id("c1")).unwrap_err().code(), "CONTAINER_ID_TAKEN");
    assert!(containers.get(&id("c1")).is_none());
    reservation.release();
    let (first, _end) = place.added(&containers, "c1");
    assert_eq!(containers.reserve(&id("c1")).unwrap_err().code(), "CONTAINER_ID_TAKEN");
    assert!(Arc::ptr_eq(&containers.get(&id("c1")).unwrap(), &first));
    containers.remove(&id("c1"));
    assert!(containers.is_empty());
    containers.reserve(&id("c1")).unwrap().release();
}

// COMPAT: CreateContainer stricter: ids of containers that left something are taken for ever
#[tokio::test]
async fn evil_host_takes_the_id_of_a_tombstone() {
    let place = Place::new();
    let containers = Containers::default();
    // A task that panicked said nothing of what it left.
    drop(containers.reserve(&id("c1")).unwrap());
    let (_kept, _end) = place.added(&containers, "c2");
    containers.tombstone(&id("c2"));
    for name in ["c1", "c2"] {
        assert_eq!(containers.reserve(&id(name)).unwrap_err().code(), "CONTAINER_TOMBSTONE");
        assert!(containers.get(&id(name)).is_none());
        containers.remove(&id(name));
        assert_eq!(containers.reserve(&id(name)).unwrap_err().code(), "CONTAINER_TOMBSTONE");
    }
    assert!(!containers.is_empty());
}

// COMPAT: CreateContainer stricter: names of the agent's own directories are no ids
#[test]
fn evil_host_container_with_a_name_of_the_agent() {
    let containers = Containers::default();
    for name in RESERVED {
        assert_eq!(containers.reserve(&id(name)).unwrap_err().code(), "CONTAINER_ID_RESERVED");
    }
    assert!(containers.is_empty());
}

#[test]
fn evil_host_more_containers_than_there_may_be() {
    let containers = Containers::default();
    for n in 0..MAXIMUM_CONTAINERS {
        drop(containers.reserve(&id(&format!("c{n}"))).unwrap());
    }
    assert_eq!(containers.reserve(&id("one-more")).unwrap_err().code(), "CONTAINER_TOO_MANY");
}

// COMPAT: StartContainer stricter: only a container that was created and not started
#[tokio::test]
async fn states_follow_each_other() {
    let place = Place::new();
    let (container, end) = place.container("c1");
    assert_eq!(container.state(), State::Created);
    container.set_paused(true);
    assert_eq!(container.state(), State::Paused);
    container.set_paused(false);
    assert_eq!(container.state(), State::Created);
    container.set_started();
    assert_eq!(container.state(), State::Running);
    container.set_paused(true);
    assert_eq!(container.state(), State::Paused);
    end.send_replace(Some(Ended::Killed(9)));
    assert_eq!(container.state(), State::Stopped);
}

// COMPAT: WaitProcess better: the status stays until the container is removed
#[tokio::test]
async fn a_status_is_kept_for_all_who_ask() {
    let place = Place::new();
    let containers = Containers::default();
    let (container, end) = place.added(&containers, "c1");
    let first = ProcessRef::parse("c1", "").unwrap();
    let by_name = ProcessRef::parse("c1", "c1").unwrap();
    let waits: Vec<_> = [&first, &by_name, &first].map(|which| containers.process(which).unwrap()).into();
    let tasks: Vec<_> =
        waits.into_iter().map(|process| tokio::spawn(async move { process.wait().await })).collect();
    assert!(!container.first().is_settled());
    end.send_replace(Some(Ended::Exited(7)));
    for task in tasks {
        assert_eq!(task.await.unwrap(), Some(Ended::Exited(7)));
    }
    assert_eq!(containers.process(&first).unwrap().wait().await, Some(Ended::Exited(7)));
    containers.remove(&id("c1"));
    assert_eq!(containers.process(&first).unwrap_err(), MissingProcess::Container);
}

#[tokio::test]
async fn one_who_stops_waiting_takes_nothing_away() {
    let place = Place::new();
    let (process, end) = place.process(None);
    {
        let waiting = process.wait();
        tokio::pin!(waiting);
        assert!(futures_pending(waiting.as_mut()).await);
    }
    end.send_replace(Some(Ended::Exited(3)));
    assert!(!process.is_settled());
    assert_eq!(process.wait().await, Some(Ended::Exited(3)));
    assert!(process.is_settled());
}

async fn futures_pending<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    let mut future = Some(future);
    std::future::poll_fn(|context| {
        let pending = future.take().is_some_and(|future| future.poll(context).is_pending());
        std::task::Poll::Ready(pending)
    })
    .await
}

#[tokio::test]
async fn evil_host_exec_id_collision() {
    let place = Place::new();
    let (container, _end) = place.container("c1");
    let (running, end) = place.process(Some("e1"));
    let running = Arc::new(running);
    container.may_exec(&exec("e1")).unwrap();
    container.add(Arc::clone(&running));
    for taken in ["c1", "e1"] {
        assert_eq!(container.may_exec(&exec(taken)).unwrap_err().code(), "CONTAINER_EXEC_ID_TAKEN");
    }
    let (code, text) = RpcError::from(container.may_exec(&exec("e1")).unwrap_err()).status();
    assert_eq!((format!("{code:?}").as_str(), text.as_str()), ("INTERNAL", "exec_id 'e1' already exists"));
    end.send_replace(Some(Ended::Exited(0)));
    // Nobody was told yet.
    assert_eq!(container.may_exec(&exec("e1")).unwrap_err().code(), "CONTAINER_EXEC_ID_TAKEN");
    running.wait().await.unwrap();
    container.may_exec(&exec("e1")).unwrap();
    let (second, _end) = place.process(Some("e1"));
    let second = Arc::new(second);
    container.add(Arc::clone(&second));
    assert!(Arc::ptr_eq(&container.process(Some(&exec("e1"))).unwrap(), &second));
    assert_eq!(container.processes().len(), 2);
}

// COMPAT: ExecProcess stricter: at most 512 processes whose end nobody asked for
#[tokio::test]
async fn evil_host_more_processes_than_there_may_be() {
    let place = Place::new();
    let (container, _end) = place.container("c1");
    let mut ends = Vec::new();
    for n in 0..MAXIMUM_PROCESSES {
        let (process, end) = place.process(Some(&format!("e{n}")));
        container.may_exec(process.exec().unwrap()).unwrap();
        container.add(Arc::new(process));
        ends.push(end);
    }
    let refused = container.may_exec(&exec("one-more")).unwrap_err();
    assert_eq!(refused.code(), "CONTAINER_TOO_MANY_PROCESSES");
    for end in &ends {
        end.send_replace(Some(Ended::Exited(0)));
    }
    assert_eq!(container.may_exec(&exec("one-more")).unwrap_err().code(), "CONTAINER_TOO_MANY_PROCESSES");
    for process in container.processes().iter().skip(1) {
        process.wait().await.unwrap();
    }
    container.may_exec(&exec("one-more")).unwrap();
    let (process, _end) = place.process(Some("one-more"));
    container.add(Arc::new(process));
    // The last ones are remembered, and the first process.
    assert_eq!(container.processes().len(), 1 + MAXIMUM_REMEMBERED + 1);
    let last = format!("e{}", MAXIMUM_PROCESSES - 1);
    assert!(container.process(Some(&exec(&last))).is_some());
    assert!(container.process(Some(&exec("e0"))).is_none());
}

/// What waits for a container that is removed meanwhile finds none, and not half of one.
#[tokio::test]
async fn work_on_a_removed_container_is_not_begun() {
    let place = Place::new();
    let (container, _end) = place.container("c1");
    let work = container.work().await.unwrap();
    let other = Arc::clone(&container);
    let waiting = tokio::spawn(async move { other.work().await.is_none() });
    container.set_removed();
    drop(work);
    assert!(waiting.await.unwrap());
}

#[tokio::test]
async fn states_are_named_in_refusals() {
    let place = Place::new();
    let (container, _end) = place.container("c1");
    container.expect(State::Created, "created").unwrap();
    let refused = container.expect(State::Running, "running").unwrap_err();
    assert_eq!(refused.to_string(), "container: expected it to be running, found it created");
    let (code, text) = RpcError::from(refused).status();
    assert_eq!(format!("{code:?}"), "FAILED_PRECONDITION");
    assert!(text.starts_with("CONTAINER_STATE: "), "{text}");
}

#[test]
fn a_process_id_namespace_that_nobody_offers() {
    let pids = PidNamespace::default();
    assert_eq!(pids.of_container(true).unwrap(), None);
    assert_eq!(pids.of_container(false).unwrap(), None);
    pids.withdraw(&id("c1"), false).unwrap();
    assert_eq!(pids.of_container(true).unwrap(), None);
}

/// The first container's process ids are joined by a file that stays theirs, and nobody's after it.
#[test]
fn process_ids_of_the_first_container_are_shared() {
    crate::namespaces::tests::in_namespaces(&["--mount"], || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let place = Place::new();
            let (first, _end) = place.process(None);
            let pids = PidNamespace::default();
            let own = place.directory.path().join("own");
            pids.offer(&id("c1"), &first, Path::new("/proc"), &own).unwrap();
            // A second one changes nothing.
            pids.offer(&id("c2"), &first, Path::new("/nowhere"), &own).unwrap();
            pids.withdraw(&id("c2"), false).unwrap();
            assert_eq!(pids.of_container(false).unwrap(), None);
            let path = pids.of_container(true).unwrap().unwrap();
            let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
            assert_eq!(inode(&path), inode(Path::new("/proc/self/ns/pid")));
            pids.withdraw(&id("c1"), false).unwrap();
            assert!(!path.exists());
            assert_eq!(pids.of_container(true).unwrap_err().code(), "CONTAINER_PID_NAMESPACE");
        });
    });
}
