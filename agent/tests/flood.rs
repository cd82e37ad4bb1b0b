//! A host that sends more than fits: what the whole process holds has a bound, and it serves on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use protocol::agent::CreateContainerRequest;
use protocol::oci::{Process, Spec};
use protocol::{Message as _, frame::MAXIMUM_PAYLOAD_BYTES};

const CONNECTIONS: usize = 12;
const REQUESTS: u32 = 8;
/// All requests together are twice as many bytes as what the process may ever hold more than at its start, whatever decoding makes of them.
const MOST_KIB: u64 = 160 << 10;

/// Ended with the test, however that ends.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    fn serving(socket: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_innerkeep-agent"));
        command.args(["--server-addr", &format!("unix://{}", socket.display())]);
        let agent = Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
        while UnixStream::connect(socket).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        agent
    }

    /// Most memory that it ever had, in KiB.
    fn most_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

fn member(number: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut left = value.len();
    while left > 0x7f {
        out.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    out.push(u8::try_from(left).unwrap());
    out.extend(value);
    out
}

fn frame(call: u32, payload: &[u8]) -> Vec<u8> {
    let body = [member(1, b"grpc.AgentService"), member(2, b"CreateContainer"), member(3, payload)].concat();
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_be_bytes()[..], &call.to_be_bytes(), &[1, 0], &body].concat()
}

/// As large as a request may be, of as many parts as it may have.
fn largest() -> Vec<u8> {
    let process = Process { Env: vec![format!("A={}", "b".repeat(490)); 8192], ..Process::default() };
    let spec = Spec { Process: Some(process).into(), ..Spec::default() };
    let request = CreateContainerRequest {
        container_id: "flood".to_owned(),
        OCI: Some(spec).into(),
        ..CreateContainerRequest::default()
    };
    let bytes = request.write_to_bytes().unwrap();
    assert!(bytes.len() < MAXIMUM_PAYLOAD_BYTES as usize - 256 && bytes.len() > 4_000_000, "{}", bytes.len());
    bytes
}

/// Reads answers: how many of them there were when the connection ended, or were enough.
fn answers(stream: &mut UnixStream) -> u32 {
    let mut count = 0;
    let mut header = [0; 10];
    while count < REQUESTS && stream.read_exact(&mut header).is_ok() {
        let length = u32::from_be_bytes(*header.first_chunk().unwrap());
        let mut body = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut body).unwrap();
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("CreateContainerRequest is blocked by policy"), "{text}");
        count += 1;
    }
    count
}

#[test]
fn evil_host_floods_with_the_largest_requests() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let agent = Agent::serving(&socket);
    let before = agent.most_memory();
    let payload = largest();
    let answered: u32 = std::thread::scope(|scope| {
        let connections = (0..CONNECTIONS).map(|_| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            let mut writer = stream.try_clone().unwrap();
            let payload = &payload;
            scope.spawn(move || {
                for call in 0..REQUESTS {
                    writer.write_all(&frame(2 * call + 1, payload)).unwrap();
                }
            });
            scope.spawn(move || answers(&mut stream))
        });
        let connections: Vec<_> = connections.collect();
        connections.into_iter().map(|connection| connection.join().unwrap()).sum()
    });
    assert_eq!(answered, u32::try_from(CONNECTIONS).unwrap() * REQUESTS, "each is told");
    let sent = (u64::try_from(payload.len()).unwrap() * u64::from(answered)) >> 10;
    let grown = agent.most_memory() - before;
    assert!(sent > 2 * MOST_KIB && grown < MOST_KIB, "{grown} KiB more, of {sent} KiB that were sent");
}
