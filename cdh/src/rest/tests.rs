//! The front over real connections, in front of a real hub with secrets in files and an attester without a platform.

mod connections;
mod processes;
mod requests;

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use attestation_agent::report_data::Claim;
use attestation_agent::{Attester, Options, TeeRoot};
use initdata::InsecureMode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::intake::{MAXIMUM_FIELDS, MAXIMUM_HEAD_BYTES};
use super::peers::Peers;
use super::*;
use crate::config::HubConfig;
use crate::modes::Modes;
use crate::plaintext::Plaintext;
use crate::service::Hub;

const CONFIG: &str = r#"
[kbc]
name = "offline_fs_kbc"
[[innerkeep.rest]]
container = "app"
routes = ["/info", "/aa/evidence", "/aa/additional-evidence", "/aa/aael", "/cdh/resource/default/app/*", "/cdh/resource/default/none/x"]
[[innerkeep.rest]]
container = "db"
routes = ["/cdh/resource/default/db/password"]
"#;

fn container(name: &str) -> ContainerId {
    ContainerId::new(&format!("{name}-1"), name).unwrap()
}

/// Says who asks: one answer after the other, the last one for ever.
struct Told(Mutex<VecDeque<Option<ContainerId>>>);

impl Told {
    fn new(names: &[Option<&str>]) -> Arc<Self> {
        Arc::new(Self(Mutex::new(names.iter().map(|name| name.map(container)).collect())))
    }

    fn now(&self, name: &str) {
        *self.0.lock().unwrap() = [Some(container(name))].into();
    }
}

impl Peers for Told {
    fn container_of(&self, _: SocketAddr, _: SocketAddr) -> Option<ContainerId> {
        let mut told = self.0.lock().unwrap();
        if told.len() > 1 { told.pop_front().unwrap() } else { told.front().unwrap().clone() }
    }
}

/// The real back end, and what reached it.
struct Watched {
    guest: ThisGuest,
    reached: Mutex<Vec<String>>,
    measured: Option<Measured>,
}

#[async_trait]
impl BackEnd for Watched {
    fn tee(&self) -> String {
        self.guest.tee()
    }

    fn additional_tees(&self) -> Vec<String> {
        self.guest.additional_tees()
    }

    async fn resource(&self, uri: &str, deadline: Instant) -> Result<Arc<Plaintext>, HubError> {
        self.reached.lock().unwrap().push(uri.to_owned());
        self.guest.resource(uri, deadline).await
    }

    async fn evidence(&self, claim: Claim) -> Result<Vec<u8>, HubError> {
        self.reached.lock().unwrap().push(claim.form().to_owned());
        self.guest.evidence(claim).await
    }

    async fn additional_evidence(&self, claim: Claim) -> Result<Vec<u8>, HubError> {
        self.reached.lock().unwrap().push(format!("devices {}", claim.form()));
        self.guest.additional_evidence(claim).await
    }

    async fn measure(&self, event: Event) -> Result<Measured, HubError> {
        self.reached.lock().unwrap().push(format!("{} {} {}", event.domain, event.operation, event.content));
        match self.measured {
            Some(measured) => Ok(measured),
            None => self.guest.measure(event).await,
        }
    }
}

struct Choices {
    features: Features,
    peers: Arc<dyn Peers>,
    register: Option<u64>,
    measured: Option<Measured>,
    rule: Option<Arc<dyn Rule>>,
    reader: Option<Arc<dyn Reader>>,
    head: Duration,
}

impl Choices {
    fn of(name: &str) -> Self {
        let peers = Told::new(&[Some(name)]);
        Self {
            features: Features::All,
            peers,
            register: None,
            measured: None,
            rule: None,
            reader: None,
            head: HEAD_DEADLINE,
        }
    }
}

struct Running {
    address: SocketAddr,
    back_end: Arc<Watched>,
    front: Arc<Front>,
    directory: tempfile::TempDir,
    _stop: oneshot::Sender<()>,
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().unwrap();
        Some(Self { status, head, body: bytes[end + 4..].to_vec() })
    }

    /// Status, and the code of the error.
    fn refusal(&self) -> (u16, String) {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        (self.status, body["error"].as_str().unwrap_or_default().to_owned())
    }
}

async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), text: &[u8]) -> Vec<u8> {
    // The front may end the connection before it has read everything.
    let _ = stream.write_all(text).await;
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("an end of the connection");
    bytes
}

impl Running {
    async fn new(name: &str) -> Self {
        Self::with(Choices::of(name)).await
    }

    async fn with(choices: Choices) -> Self {
        use base64::Engine as _;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let directory = tempfile::tempdir().unwrap();
        let resources = serde_json::json!({
            "default/app/token": encode("app's own"),
            "default/db/password": encode("hunter2"),
        });
        std::fs::create_dir_all(directory.path().join("etc")).unwrap();
        let file = directory.path().join("etc/aa-offline_fs_kbc-resources.json");
        std::fs::write(file, resources.to_string()).unwrap();
        let config = HubConfig::parse(CONFIG).unwrap();
        let root = TeeRoot::insecure(directory.path());
        let options = Options { insecure_sample: true };
        let attester = Arc::new(Attester::detect(&TeeRoot::system(), options).unwrap());
        let modes = Modes::of(&[InsecureMode::OfflineKbc]);
        let hub = Arc::new(Hub::new(&config, modes, &attester, None, &root).unwrap());
        let guest = ThisGuest::new(hub, attester, choices.register);
        let back_end = Arc::new(Watched { guest, reached: Mutex::default(), measured: choices.measured });
        let served: Arc<dyn BackEnd> = Arc::clone(&back_end) as _;
        let mut front = Front::new(config.innerkeep.rest, choices.features, served, choices.peers);
        front.head = choices.head;
        if let Some(rule) = choices.rule {
            front = front.with_rule(rule);
        }
        if let Some(reader) = choices.reader {
            front = front.with_reader(reader);
        }
        let front = Arc::new(front);
        let listener = Front::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(Arc::clone(&front).serve(listener, async move { drop(stopped.await) }));
        Self { address, back_end, front, directory, _stop: stop }
    }

    /// Everything that comes back for these bytes.
    async fn raw(&self, text: &[u8]) -> Vec<u8> {
        exchange(&mut TcpStream::connect(self.address).await.unwrap(), text).await
    }

    async fn ask(&self, method: &str, target: &str, body: &str) -> Answer {
        self.ask_with(method, target, &format!("Host: {}\r\n", self.address), body).await
    }

    async fn ask_with(&self, method: &str, target: &str, fields: &str, body: &str) -> Answer {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let text = format!("{method} {target} HTTP/1.1\r\n{fields}{length}\r\n{body}");
        Answer::parse(&self.raw(text.as_bytes()).await).expect("an answer")
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "").await
    }

    fn reached(&self) -> Vec<String> {
        self.back_end.reached.lock().unwrap().clone()
    }
}

/// A status and a code, as they are compared.
fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}
