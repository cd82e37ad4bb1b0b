//! The program where it is not process 1.

use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use protocol::health::{CheckRequest, HealthClient};
use rustix::process::{Pid, Signal, kill_process};
use ttrpc::asynchronous::Client;
use ttrpc::context;

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_innerkeep-agent"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn terminate(child: Child) -> std::io::Result<Output> {
    let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(process.ok_or(std::io::ErrorKind::NotFound)?, Signal::TERM)?;
    child.wait_with_output()
}

#[tokio::test]
async fn it_serves_a_socket_until_it_is_told_to_stop() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let address = format!("unix://{}", socket.display());
    let other = directory.path().join("other.sock");
    let child = program(&["--server-addr", &address])
        .env("KATA_AGENT_SERVER_ADDR", format!("unix://{}", other.display()))
        .env("KATA_AGENT_LOG_LEVEL", "trace")
        .spawn()
        .unwrap();
    // Not only until it is there: it is made a moment before somebody listens.
    while UnixStream::connect(&socket).is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let health = HealthClient::new(Client::connect(&address).await.unwrap());
    let request = CheckRequest::new();
    let version = health.version(context::with_timeout(10_000_000_000), &request).await.unwrap();
    assert_eq!(version.agent_version, "4.1.0");
    let output = terminate(child).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!socket.exists() && !other.exists());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: Vec<_> = lines.iter().map(|line| line["msg"].as_str().unwrap()).collect();
    // Whoever runs it: without privileges it says first that it makes no containers.
    let expected = ["no policy: every request is denied", "serving", "stopping"];
    assert!(texts.ends_with(&expected), "{texts:?}");
    assert_eq!(lines[lines.len() - 2]["address"], address.as_str());
}

#[test]
fn the_version_is_printed_as_runtimes_expect() {
    for flag in ["--version", "-v"] {
        let output = program(&[flag]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && text.starts_with("kata-agent version 4.1.0 (api version: 0.0.1, "),
            "{text}"
        );
    }
}

#[test]
fn a_socket_of_somebody_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let output = program(&["--server-addr", &format!("unix://{}", file.display())]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((line["level"].as_str(), line["code"].as_str()), (Some("CRIT"), Some("ATTEST_SOCKET")));
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    let output = program(&["--server-addr", "tcp://0.0.0.0:1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
