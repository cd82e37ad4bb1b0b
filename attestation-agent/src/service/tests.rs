//! The service over a real socket, with the ttrpc client that upstream's components use.

use std::path::PathBuf;
use std::time::Duration;

use evidence::Octets;
use evidence::abi::json::TdxEvidence;
use evidence::abi::tdx::TdxQuote;
use protocol::attestation_agent as wire;
use sha2::{Digest, Sha384};
use tokio::sync::oneshot;
use ttrpc::context;

use super::*;
use crate::config::AgentConfig;
use crate::report_data::{Claim, KbsDigest, WorkloadIdentity};
use crate::testing::FakeTdx;

/// A running service and a client of it.
struct Running {
    directory: tempfile::TempDir,
    tdx: FakeTdx,
    client: wire::AttestationAgentServiceClient,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<Result<(), ServiceError>>,
}

impl Running {
    async fn new(config: &str) -> Self {
        Self::below(tempfile::tempdir().unwrap(), config).await
    }

    /// With a TPM that nobody serves.
    async fn with_tpm(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("dev")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(directory.path().join("dev/tpm0")).unwrap());
        Self::below(directory, config).await
    }

    async fn below(directory: tempfile::TempDir, config: &str) -> Self {
        let socket = directory.path().join("aa.sock");
        let config = config.replace("SOCKET", &socket.to_string_lossy());
        let uid = rustix::process::getuid().as_raw();
        let config = AgentConfig::parse(&config.replace("UID", &uid.to_string())).unwrap();
        let tdx = FakeTdx::new();
        let attester = Arc::new(tdx.attester(directory.path()));
        let binding = Binding { config, initdata: None };
        let service = AttestationService::new(attester, &binding).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let path = socket.clone();
        let task = tokio::spawn(async move {
            let stopped = async move { drop(stopped.await) };
            service.serve(&path, || ready.send(()).unwrap(), stopped).await
        });
        is_ready.await.unwrap();
        let client =
            ttrpc::asynchronous::Client::connect(&format!("unix://{}", socket.display())).await.unwrap();
        let client = wire::AttestationAgentServiceClient::new(client);
        Self { directory, tdx, client, stop: Some(stop), task }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("aa.sock")
    }

    /// The report data of the quote that the service gives for `data`, or the status.
    async fn evidence(&self, data: &[u8]) -> Result<[u8; 64], ttrpc::Code> {
        let request = wire::GetEvidenceRequest { RuntimeData: data.to_vec(), ..Default::default() };
        let response = self.client.get_evidence(timeout(), &request).await.map_err(status)?;
        let evidence = TdxEvidence::parse(&response.Evidence).unwrap();
        Ok(TdxQuote::parse(&evidence.quote).unwrap().body.report_data.0)
    }

    /// The workload form for this process.
    fn workload_form(&self, data: &[u8]) -> [u8; 64] {
        let uid = rustix::process::getuid().as_raw();
        let (stream, _) = std::os::unix::net::UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::UnixStream::from_std(stream).unwrap();
        let socket = self.socket().to_string_lossy().into_owned();
        let cgroup = Peer::of(&stream, &socket).unwrap().cgroup;
        let identity = WorkloadIdentity::of(&socket, uid, &cgroup);
        let claim = Claim::Workload { identity, runtime_data: data.to_vec() };
        *claim.report_data().as_bytes()
    }

    fn quotes(&self) -> usize {
        self.tdx.state.lock().unwrap().asked.len()
    }

    async fn extend(
        &self,
        content: &str,
        pcr: Option<u64>,
    ) -> Result<wire::RuntimeMeasurementResult, ttrpc::Code> {
        let request = wire::ExtendRuntimeMeasurementRequest {
            Domain: "example.org".to_owned(),
            Operation: "Test".to_owned(),
            Content: content.to_owned(),
            RegisterIndex: pcr,
            ..Default::default()
        };
        let response = self.client.extend_runtime_measurement(timeout(), &request).await.map_err(status)?;
        Ok(response.Result.enum_value().unwrap())
    }
}

fn timeout() -> context::Context {
    context::with_duration(Duration::from_secs(60))
}

fn status(error: ttrpc::Error) -> ttrpc::Code {
    match error {
        ttrpc::Error::RpcStatus(status) => {
            assert!(status.message().starts_with("[ERROR:attestation-agent] "), "{}", status.message());
            status.code()
        }
        other => panic!("{other}"),
    }
}

const LISTED: &str = "[innerkeep]\nraw_report_data_peers = [{ socket = 'SOCKET', uid = UID }]\n";
const WORKLOADS: &str = "[innerkeep]\nworkload_evidence = true\n";
const MEASURED: &str = "[eventlog_config]\nenable_eventlog = true\n";

#[tokio::test]
async fn a_listed_peer_gets_evidence_about_its_bytes() {
    let running = Running::new(LISTED).await;
    let found = running.evidence(b"abc").await.unwrap();
    assert_eq!(found.first_chunk(), Some(b"abc"));
    assert_eq!(running.evidence(&[1; 65]).await, Err(ttrpc::Code::INVALID_ARGUMENT));
    assert_eq!(running.quotes(), 1);
}

#[tokio::test]
async fn evil_workload_attests_own_kbs_key() {
    let digest: [u8; 48] = Sha384::digest(br#"{"nonce":"broker's","tee-pubkey":"my own"}"#).into();
    let kbs = *Claim::Kbs(KbsDigest::new(digest)).report_data().as_bytes();
    let running = Running::new(WORKLOADS).await;
    for bytes in [&digest[..], &kbs[..]] {
        let found = running.evidence(bytes).await.unwrap();
        assert_ne!(found, kbs);
        assert_eq!(found, running.workload_form(bytes));
    }
    let running = Running::new("").await;
    assert_eq!(running.evidence(&kbs).await, Err(ttrpc::Code::PERMISSION_DENIED));
    assert_eq!(running.quotes(), 0, "no quote was made");
}

#[tokio::test]
async fn evil_workload_replays_chip_transcript() {
    let chip = *Claim::ChipSession { transcript: [3; 64] }.report_data().as_bytes();
    let preimage = [b"innerkeep chip session v1".as_slice(), &[3; 64]].concat();
    let running = Running::new(WORKLOADS).await;
    for bytes in [&chip[..], &preimage[..], &[3; 64][..]] {
        let found = running.evidence(bytes).await.unwrap();
        assert_ne!(found, chip);
        assert_eq!(found, running.workload_form(bytes));
    }
    let running = Running::new("").await;
    assert_eq!(running.evidence(&chip).await, Err(ttrpc::Code::PERMISSION_DENIED));
    assert_eq!(running.quotes(), 0, "no quote was made");
}

#[tokio::test]
async fn evil_peer_exports_token_key() {
    let running = Running::new("[token_configs.kbs]\nurl = 'http://127.0.0.1:9'\n").await;
    let token = |kind: &str| wire::GetTokenRequest { TokenType: kind.to_owned(), ..Default::default() };
    for kind in ["kbs", "coco_as", ""] {
        let refused = running.client.get_token(timeout(), &token(kind)).await.map_err(status);
        assert_eq!(refused.unwrap_err(), ttrpc::Code::PERMISSION_DENIED, "{kind}");
    }
    assert_eq!(running.quotes(), 0, "no handshake was begun");
    let running = Running::new("[innerkeep]\ntoken_key_export = [{ socket = 'SOCKET', uid = UID }]\n").await;
    let code = |kind: &'static str| {
        let client = running.client.clone();
        async move { client.get_token(timeout(), &token(kind)).await.map_err(status).unwrap_err() }
    };
    assert_eq!(code("kbs").await, ttrpc::Code::FAILED_PRECONDITION, "no broker is configured");
    assert_eq!(code("coco_as").await, ttrpc::Code::INVALID_ARGUMENT);
}

#[tokio::test]
async fn events_are_measured_where_that_is_on() {
    use wire::RuntimeMeasurementResult as Outcome;
    let running = Running::new("").await;
    assert_eq!(running.extend("x", None).await, Ok(Outcome::NOT_ENABLED));
    assert!(running.tdx.state.lock().unwrap().rtmr.iter().all(Octets::is_zero));
    let running = Running::new(MEASURED).await;
    assert_eq!(running.extend("x", None).await, Ok(Outcome::OK));
    assert_eq!(running.extend("y", Some(9)).await, Ok(Outcome::OK));
    assert_eq!(running.extend("z", Some(1)).await, Err(ttrpc::Code::INVALID_ARGUMENT));
    assert_eq!(running.extend("a\nb", None).await, Err(ttrpc::Code::INVALID_ARGUMENT));
    let changed = running.tdx.state.lock().unwrap().rtmr.map(|register| !register.is_zero());
    assert_eq!(changed, [false, false, true, true]);
}

#[tokio::test]
async fn evil_peer_oversize_event() {
    let running = Running::new(MEASURED).await;
    assert_eq!(running.extend(&"x".repeat(17 * 1024), None).await, Err(ttrpc::Code::INVALID_ARGUMENT));
    assert!(running.tdx.state.lock().unwrap().rtmr.iter().all(Octets::is_zero));
}

#[tokio::test]
async fn the_other_calls_answer_as_documented() {
    let running = Running::new("").await;
    let client = &running.client;
    let tee = client.get_tee_type(timeout(), &wire::GetTeeTypeRequest::default()).await.unwrap();
    assert_eq!(tee.tee, "tdx");
    let tees =
        client.get_additional_tees(timeout(), &wire::GetAdditionalTeesRequest::default()).await.unwrap();
    assert!(tees.additional_tees.is_empty());
    let request = wire::GetAdditionalEvidenceRequest { RuntimeData: vec![1], ..Default::default() };
    assert!(client.get_additional_evidence(timeout(), &request).await.unwrap().Evidence.is_empty());
    running.tdx.state.lock().unwrap().config_id = Octets::fitted(&[7; 32]);
    let bind = |digest: Vec<u8>| {
        let request = wire::BindInitDataRequest { Digest: digest, ..Default::default() };
        async move { client.bind_init_data(timeout(), &request).await.map(|_| ()).map_err(status) }
    };
    assert_eq!(bind(vec![7; 32]).await, Ok(()));
    assert_eq!(bind(vec![8; 32]).await, Err(ttrpc::Code::FAILED_PRECONDITION));
    assert_eq!(bind(Vec::new()).await, Err(ttrpc::Code::INVALID_ARGUMENT));
}

#[tokio::test]
async fn evil_workload_gets_device_evidence_without_permission() {
    let running = Running::with_tpm("").await;
    let request = wire::GetAdditionalEvidenceRequest { RuntimeData: vec![1], ..Default::default() };
    let refused = running.client.get_additional_evidence(timeout(), &request).await.map_err(status);
    assert_eq!(refused.unwrap_err(), ttrpc::Code::PERMISSION_DENIED);
    let tees = running.client.get_additional_tees(timeout(), &Default::default()).await.unwrap();
    assert_eq!(tees.additional_tees, ["tpm"]);
}

#[tokio::test]
async fn many_peers_are_served_and_stopping_removes_the_socket() {
    let mut running = Running::new(WORKLOADS).await;
    let calls = (0..4_u8).map(|index| {
        let address = format!("unix://{}", running.socket().display());
        tokio::spawn(async move {
            let client = ttrpc::asynchronous::Client::connect(&address).await.unwrap();
            let client = wire::AttestationAgentServiceClient::new(client);
            let request = wire::GetEvidenceRequest { RuntimeData: vec![index], ..Default::default() };
            client.get_evidence(timeout(), &request).await.map(|_| ())
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    assert_eq!(running.quotes(), 4);
    running.stop.take().unwrap().send(()).unwrap();
    (&mut running.task).await.unwrap().unwrap();
    assert!(!running.socket().exists());
}

#[tokio::test]
async fn evil_peer_takes_every_connection() {
    use tokio::io::AsyncReadExt as _;
    let running = Running::new("").await;
    // The service's own client has the first one.
    let mut held = Vec::new();
    for _ in 1..queue::MAXIMUM_PEER_CONNECTIONS {
        let mut stream = tokio::net::UnixStream::connect(running.socket()).await.unwrap();
        let silent = tokio::time::timeout(Duration::from_millis(20), stream.read_u8()).await;
        assert!(silent.is_err(), "a connection within the bound stays open");
        held.push(stream);
    }
    let mut one_more = tokio::net::UnixStream::connect(running.socket()).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), one_more.read_u8()).await;
    assert!(ended.unwrap().is_err(), "one more is closed");
    // Whoever was connected is still served.
    running.client.get_tee_type(timeout(), &wire::GetTeeTypeRequest::default()).await.unwrap();
}
