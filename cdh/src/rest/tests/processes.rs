//! Real processes over real TCP, found by the real table of connections and their real descriptors. Only the names of their control groups
//! are the test's: making groups takes rights that tests do not have.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::rest::peers::{KnownContainers, ProcPeers};

/// Waits for a line, then sends a request and prints what comes back.
const CLIENT: &str = r#"
    read -r go
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n\r\n' "$2" "$1" >&3
    while IFS= read -r line <&3 || [ -n "$line" ]; do printf '%s\n' "$line"; done
"#;

struct Process(Child);

impl Process {
    fn start(running: &Running, target: &str) -> Self {
        let port = running.address.port().to_string();
        let mut command = Command::new("bash");
        command.args(["-c", CLIENT, "client", &port, target]);
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// What came back.
    async fn go(mut self) -> Answer {
        let ended = tokio::task::spawn_blocking(move || {
            self.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
            let mut bytes = Vec::new();
            self.0.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
            self.0.wait().unwrap();
            bytes
        });
        Answer::parse(&ended.await.unwrap()).expect("an answer")
    }
}

/// A view of `/proc` in which a process is in this control group.
fn see(view: &Path, process: &Process, cgroup: &str) {
    let number = process.0.id().to_string();
    let place = view.join(&number);
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
    symlink(format!("/proc/{number}/fd"), place.join("fd")).unwrap();
}

#[tokio::test]
async fn evil_processes_get_what_their_container_may_have_and_no_more() {
    let view = tempfile::tempdir().unwrap();
    symlink("/proc/net", view.path().join("net")).unwrap();
    let known = KnownContainers::default();
    known.insert(container("app"), "/pod/app");
    known.insert(container("db"), "/pod/db");
    let peers = Arc::new(ProcPeers::new(view.path(), Arc::new(known)));
    let running = Running::with(Choices { peers, ..Choices::of("app") }).await;
    let (app, db) = ("/cdh/resource/default/app/token", "/cdh/resource/default/db/password");
    for (cgroup, target, expected) in [
        (Some("/pod/app"), app, Ok("app's own\n")),
        (Some("/pod/app/worker"), app, Ok("app's own\n")),
        (Some("/pod/db"), db, Ok("hunter2\n")),
        (Some("/pod/app"), db, Err("REST_NOT_LISTED")),
        (Some("/pod/db"), app, Err("REST_NOT_LISTED")),
        (Some("/pod/third"), app, Err("REST_PEER_UNKNOWN")),
        (Some("/"), app, Err("REST_PEER_UNKNOWN")),
        (None, app, Err("REST_PEER_UNKNOWN")),
    ] {
        let process = Process::start(&running, target);
        if let Some(cgroup) = cgroup {
            see(view.path(), &process, cgroup);
        }
        let before = running.reached().len();
        let answer = process.go().await;
        match expected {
            Ok(body) => assert_eq!(String::from_utf8(answer.body).unwrap(), body, "{cgroup:?} {target}"),
            Err(code) => {
                assert_eq!(answer.refusal(), refused(403, code), "{cgroup:?} {target}");
                assert_eq!(running.reached().len(), before, "{cgroup:?} {target}");
            }
        }
    }
}

/// By this machine's own `/proc`, in the control group that the process really has.
#[tokio::test]
async fn a_process_is_found_by_the_proc_of_this_machine() {
    let known = Arc::new(KnownContainers::default());
    let peers = Arc::new(ProcPeers::new("/proc", Arc::clone(&known) as _));
    let running = Running::with(Choices { peers, ..Choices::of("app") }).await;
    let target = "/cdh/resource/default/app/token";
    let answer = Process::start(&running, target).go().await;
    assert_eq!(answer.refusal(), refused(403, "REST_PEER_UNKNOWN"), "no container is known");
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let mut paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let own = paths.find(|path| path.len() > 1 && !path.contains("/.."));
    if let Some(own) = own {
        known.insert(container("app"), own);
    }
    let answer = Process::start(&running, target).go().await;
    // Without the right to see the descriptors of everybody in the group, or in the root of all groups, nobody is known.
    if own.is_some() && rustix::process::geteuid().is_root() {
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"app's own\n".as_slice()));
    } else if own.is_none() {
        assert_eq!(answer.refusal(), refused(403, "REST_PEER_UNKNOWN"));
    }
}
