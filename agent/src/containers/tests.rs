use super::process::{MAXIMUM_PROCESSES, MAXIMUM_REMEMBERED};
use super::*;
use crate::reaper::Ended;
use rustix::process::Pid;
use tokio::sync::watch;

type End = watch::Sender<Option<Ended>>;

fn id(text: &str) -> ContainerId {
    ContainerId::parse(text).unwrap()
}

fn exec(text: &str) -> ExecId {
    ExecId::parse(text).unwrap()
}

fn process(name: Option<&str>) -> (Process, End) {
    let (end, ended) = watch::channel(None);
    (Process::new(name.map(exec), Pid::INIT, None, false, ended), end)
}

fn container(name: &str) -> (Arc<Container>, End) {
    let (first, end) = process(Some(name));
    (Arc::new(Container::new(id(name), first)), end)
}

fn added(containers: &Containers, name: &str) -> (Arc<Container>, End) {
    let reservation = containers.reserve(&id(name)).unwrap();
    let (container, end) = container(name);
    reservation.commit(Arc::clone(&container));
    (container, end)
}

#[test]
fn evil_host_id_collision_in_the_table() {
    let containers = Containers::default();
    let reservation = containers.reserve(&id("c1")).unwrap();
    assert_eq!(containers.reserve(&id("c1")).unwrap_err().code(), "CONTAINER_ID_TAKEN");
    assert!(containers.get(&id("c1")).is_none());
    reservation.release();
    let (first, _end) = added(&containers, "c1");
    assert_eq!(containers.reserve(&id("c1")).unwrap_err().code(), "CONTAINER_ID_TAKEN");
    assert!(Arc::ptr_eq(&containers.get(&id("c1")).unwrap(), &first));
    containers.remove(&id("c1"));
    assert!(containers.is_empty());
    containers.reserve(&id("c1")).unwrap().release();
}

#[test]
fn evil_host_takes_the_id_of_a_tombstone() {
    let containers = Containers::default();
    // A task that panicked said nothing of what it left.
    drop(containers.reserve(&id("c1")).unwrap());
    let (_kept, _end) = added(&containers, "c2");
    containers.tombstone(&id("c2"));
    for name in ["c1", "c2"] {
        assert_eq!(containers.reserve(&id(name)).unwrap_err().code(), "CONTAINER_TOMBSTONE");
        assert!(containers.get(&id(name)).is_none());
        containers.remove(&id(name));
        assert_eq!(containers.reserve(&id(name)).unwrap_err().code(), "CONTAINER_TOMBSTONE");
    }
    assert!(!containers.is_empty());
}

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

#[test]
fn states_follow_each_other() {
    let (container, end) = container("c1");
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

#[tokio::test]
async fn a_status_is_kept_for_all_who_ask() {
    let containers = Containers::default();
    let (container, end) = added(&containers, "c1");
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
    let (process, end) = process(None);
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
    let (container, _end) = container("c1");
    let (running, end) = process(Some("e1"));
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
    let (second, _end) = process(Some("e1"));
    let second = Arc::new(second);
    container.add(Arc::clone(&second));
    assert!(Arc::ptr_eq(&container.process(Some(&exec("e1"))).unwrap(), &second));
    assert_eq!(container.processes().len(), 2);
}

#[tokio::test]
async fn evil_host_more_processes_than_there_may_be() {
    let (container, _end) = container("c1");
    let mut ends = Vec::new();
    for n in 0..MAXIMUM_PROCESSES {
        let (process, end) = process(Some(&format!("e{n}")));
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
    let (process, _end) = process(Some("one-more"));
    container.add(Arc::new(process));
    // The last ones are remembered, and the first process.
    assert_eq!(container.processes().len(), 1 + MAXIMUM_REMEMBERED + 1);
    let last = format!("e{}", MAXIMUM_PROCESSES - 1);
    assert!(container.process(Some(&exec(&last))).is_some());
    assert!(container.process(Some(&exec("e0"))).is_none());
}
