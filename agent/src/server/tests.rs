use protocol::agent::{AgentServiceClient, CopyFileRequest};
use protocol::health::{CheckRequest, HealthClient};
use protocol::ids::SHARED_DIRECTORY;
use tokio::io::AsyncWriteExt as _;
use ttrpc::asynchronous::Client;
use ttrpc::context;

use super::*;

struct Served {
    address: String,
    path: std::path::PathBuf,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<Result<(), AgentError>>,
    directory: tempfile::TempDir,
}

async fn served() -> Served {
    served_under("").await
}

async fn served_under(policy: &str) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    let address = format!("unix://{}", path.display());
    let (stop, stopped) = watch::channel(false);
    let parsed: ServerAddress = address.parse().unwrap();
    let agent = Arc::new(Agent::for_test(directory.path(), false));
    if !policy.is_empty() {
        agent.gate.begin_with(policy).unwrap();
    }
    let task = tokio::spawn(async move { serve(&parsed, &agent, stopped).await });
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Served { address, path, stop, task, directory }
}

impl Served {
    async fn client(&self) -> Client {
        Client::connect(&self.address).await.unwrap()
    }
}

async fn raw_call(client: &Client, service: &str, method: &str) -> ttrpc::Error {
    let request =
        ttrpc::Request { service: service.to_owned(), method: method.to_owned(), ..ttrpc::Request::new() };
    client.request(request).await.unwrap_err()
}

fn status(error: &ttrpc::Error) -> (ttrpc::Code, String) {
    let ttrpc::Error::RpcStatus(status) = error else { panic!("no status: {error:?}") };
    (status.code(), status.message().to_owned())
}

// COMPAT: Check, Version same
#[tokio::test]
async fn health_answers_as_upstream() {
    let served = served().await;
    let health = HealthClient::new(served.client().await);
    let context = context::with_timeout(10_000_000_000);
    let request = CheckRequest { service: "whatever".to_owned(), ..CheckRequest::default() };
    let check = health.check(context.clone(), &request).await.unwrap();
    assert_eq!(protocol::Message::write_to_bytes(&check).unwrap(), [8, 1], "SERVING");
    let version = health.version(context, &CheckRequest::new()).await.unwrap();
    assert_eq!((version.grpc_version.as_str(), version.agent_version.as_str()), ("0.0.1", "4.1.0"));
}

#[tokio::test]
async fn other_calls_are_refused_as_upstream_refuses_unknown_ones() {
    let served = served().await;
    let client = served.client().await;
    let error = raw_call(&client, "grpc.AgentService", "PullImage").await;
    assert_eq!(status(&error), (ttrpc::Code::UNIMPLEMENTED, "PullImage method".to_owned()));
    let error = raw_call(&client, "grpc.Health", "Watch").await;
    assert_eq!(status(&error), (ttrpc::Code::UNIMPLEMENTED, "Watch method".to_owned()));
    let error = raw_call(&client, "grpc.Nothing", "Check").await;
    assert_eq!(
        status(&error),
        (ttrpc::Code::INVALID_ARGUMENT, "grpc.Nothing service does not exist".to_owned())
    );
}

#[tokio::test]
async fn stopping_ends_connections_and_frees_the_socket() {
    let served = served().await;
    let client = served.client().await;
    let health = HealthClient::new(client);
    health.check(context::with_timeout(10_000_000_000), &CheckRequest::new()).await.unwrap();
    served.stop.send_replace(true);
    served.task.await.unwrap().unwrap();
    assert!(health.check(context::with_timeout(10_000_000_000), &CheckRequest::new()).await.is_err());
    assert!(UnixStream::connect(&served.path).await.is_err());
}

/// Pieces as runtimes send them, and nearly the largest frame that there is.
#[tokio::test]
async fn files_come_whole_in_large_frames() {
    let served = served_under("package agent_policy\ndefault CopyFileRequest := true\n").await;
    let service = AgentServiceClient::new(served.client().await);
    for (name, length, piece) in [("in-pieces", 3 << 20, 1 << 20), ("at-once", (4 << 20) - 4096, 4 << 20)] {
        let sent: Vec<u8> = (0_u32..length / 4).flat_map(u32::to_le_bytes).collect();
        let mut offset = 0;
        for data in sent.chunks(piece) {
            let request = CopyFileRequest {
                path: format!("{SHARED_DIRECTORY}{name}"),
                file_size: i64::from(length),
                file_mode: 0o10_0640,
                dir_mode: 0o4_0750,
                offset,
                data: data.to_vec(),
                ..CopyFileRequest::default()
            };
            service.copy_file(context::with_timeout(60_000_000_000), &request).await.unwrap();
            offset += i64::try_from(data.len()).unwrap();
        }
        let place = served.directory.path().join("run/kata-containers/shared/containers").join(name);
        assert!(std::fs::read(place).unwrap() == sent, "{name}");
    }
}

#[tokio::test]
async fn evil_host_resets_in_the_middle_of_a_frame() {
    let served = served().await;
    for cut in [1, 9, 10, 15] {
        let mut stream = UnixStream::connect(&served.path).await.unwrap();
        let frame = [&20_u32.to_be_bytes()[..], &1_u32.to_be_bytes(), &[1, 0], &[0; 20]].concat();
        stream.write_all(&frame[..cut]).await.unwrap();
        drop(stream);
    }
    let health = HealthClient::new(served.client().await);
    health.check(context::with_timeout(10_000_000_000), &CheckRequest::new()).await.unwrap();
}

#[tokio::test]
async fn evil_host_takes_every_connection() {
    let served = served().await;
    let mut streams = Vec::new();
    for _ in 0..MAXIMUM_CONNECTIONS {
        streams.push(UnixStream::connect(&served.path).await.unwrap());
    }
    // One more is let in by the kernel, and sent away by the agent.
    let extra = HealthClient::new(served.client().await);
    assert!(extra.check(context::with_timeout(10_000_000_000), &CheckRequest::new()).await.is_err());
    drop(streams);
    loop {
        let health = HealthClient::new(served.client().await);
        if health.check(context::with_timeout(10_000_000_000), &CheckRequest::new()).await.is_ok() {
            return;
        }
    }
}

#[test]
fn evil_container_connects_by_the_local_cid() {
    assert!(is_host(VsockAddr::new(VMADDR_CID_HOST, 5)).is_ok());
    for cid in [0, 1, 3, VMADDR_CID_ANY] {
        assert!(is_host(VsockAddr::new(cid, 5)).is_err(), "{cid}");
    }
}

fn peer(uid: u32, placement: Placement) -> Peer {
    Peer { socket: "/run/agent.sock".to_owned(), uid, cgroup: "/".to_owned(), placement }
}

#[test]
fn evil_user_connects_to_the_agent() {
    assert!(is_local(&peer(7, Placement::Image), 7).is_ok());
    assert!(is_local(&peer(0, Placement::Image), 7).is_ok());
    assert!(is_local(&peer(8, Placement::Image), 7).is_err());
}

#[test]
fn evil_container_connects_to_the_agent() {
    for uid in [0, 7] {
        assert!(is_local(&peer(uid, Placement::Container), 7).is_err());
    }
}
