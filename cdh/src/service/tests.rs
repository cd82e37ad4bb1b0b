//! The service over a real socket, with the ttrpc client that upstream's components use.

use attestation_agent::Options;
use attestation_agent::report_data::WorkloadIdentity;
use initdata::InsecureMode;
use protocol::{api, artifact, keyprovider};
use tokio::sync::oneshot;
use ttrpc::asynchronous::Client;
use ttrpc::{Code, context};

use super::*;

const CONFIG: &str = "[kbc]\nname = \"offline_fs_kbc\"\n";
const VECTORS: &str = include_str!("../../../tests/vectors/cdh/vectors.json");

struct Running {
    directory: tempfile::TempDir,
    client: Client,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<Result<(), HubError>>,
}

fn vectors() -> serde_json::Value {
    serde_json::from_str(VECTORS).unwrap()
}

/// Resources of the vectors, as files of the image.
fn store(directory: &Path) {
    use base64::Engine as _;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let vectors = vectors();
    let jwk = vectors["sealed_secret_vault"]["verification_jwk"].to_string();
    let kek = hex::decode(vectors["ocicrypt_layer"]["kek_hex"].as_str().unwrap()).unwrap();
    let resources = serde_json::json!({
        "default/seal-key/vec": encode(jwk.as_bytes()),
        "default/db/password": encode(b"hunter2"),
        "default/image-kek/vec": encode(&kek),
    });
    std::fs::create_dir_all(directory.join("etc")).unwrap();
    std::fs::write(directory.join("etc/aa-offline_fs_kbc-resources.json"), resources.to_string()).unwrap();
}

fn service(directory: &Path, config: &str, change: impl FnOnce(Hub) -> Hub) -> HubService {
    let config = HubConfig::parse(config).unwrap();
    let root = TeeRoot::insecure(directory);
    let options = Options { insecure_sample: true };
    let attester = Arc::new(Attester::detect(&TeeRoot::system(), options).unwrap());
    let modes = Modes::of(&[InsecureMode::OfflineKbc]);
    let hub = change(Hub::new(&config, modes, &attester, None, &root).unwrap());
    HubService::new(Arc::new(hub), &config, &root)
}

impl Running {
    async fn new(config: &str, change: impl FnOnce(Hub) -> Hub) -> Self {
        let directory = tempfile::tempdir().unwrap();
        store(directory.path());
        let service = service(directory.path(), config, change);
        Self::of(directory, service).await
    }

    async fn of(directory: tempfile::TempDir, service: HubService) -> Self {
        let socket = directory.path().join("cdh.sock");
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let path = socket.clone();
        let task = tokio::spawn(async move {
            let stopped = async move { drop(stopped.await) };
            service.serve(&path, || ready.send(()).unwrap(), |_| (), stopped).await
        });
        is_ready.await.unwrap();
        let client = Client::connect(&format!("unix://{}", socket.display())).await.unwrap();
        Self { directory, client, stop: Some(stop), task }
    }

    async fn resource(&self, uri: &str) -> Result<Vec<u8>, (Code, String)> {
        let client = api::GetResourceServiceClient::new(self.client.clone());
        let request = api::GetResourceRequest { ResourcePath: uri.to_owned(), ..Default::default() };
        client.get_resource(timeout(), &request).await.map(|answer| answer.Resource).map_err(status)
    }
}

fn timeout() -> context::Context {
    context::with_duration(Duration::from_secs(60))
}

fn status(error: ttrpc::Error) -> (Code, String) {
    match error {
        ttrpc::Error::RpcStatus(status) => (status.code(), status.message().to_owned()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn secrets_and_keys_are_given_to_a_process_of_the_image() {
    let running = Running::new(CONFIG, |hub| hub).await;
    assert_eq!(running.resource("kbs:///default/db/password").await, Ok(b"hunter2".to_vec()));
    let (code, text) = running.resource("kbs:///default/db/other").await.unwrap_err();
    assert_eq!(code, Code::INTERNAL);
    assert!(text.starts_with("[CDH] [ERROR]: Get Resource failed: CDH_OFFLINE_NO_RESOURCE: "), "{text}");
    let (_, text) = running.resource("file:///etc/passwd").await.unwrap_err();
    assert!(text.contains("KBS_RESOURCE_URI_INVALID"), "{text}");

    let secrets = api::SealedSecretServiceClient::new(running.client.clone());
    let sealed = |text: &str| api::UnsealSecretInput { secret: text.into(), ..Default::default() };
    let good = vectors()["sealed_secret_vault"]["sealed"].as_str().unwrap().to_owned();
    let answer = secrets.unseal_secret(timeout(), &sealed(&format!("{good}\n"))).await.unwrap();
    assert_eq!(answer.plaintext, b"hunter2");
    let (_, text) = status(secrets.unseal_secret(timeout(), &sealed("sealed.x")).await.unwrap_err());
    assert!(text.starts_with("[CDH] [ERROR]: Unseal Secret failed: SEALED_SECRET_MALFORMED: "), "{text}");

    let layer = &vectors()["ocicrypt_layer"];
    let keys = keyprovider::KeyProviderServiceClient::new(running.client.clone());
    let ask = |json: String| keyprovider::KeyProviderKeyWrapProtocolInput {
        KeyProviderKeyWrapProtocolInput: json.into_bytes(),
        ..Default::default()
    };
    let answer = keys.un_wrap_key(timeout(), &ask(layer["unwrap_request_json"].to_string())).await.unwrap();
    let found: serde_json::Value = serde_json::from_slice(&answer.KeyProviderKeyWrapProtocolOutput).unwrap();
    assert_eq!(found, layer["unwrap_response_json"]);
    let (_, text) = status(keys.un_wrap_key(timeout(), &ask("{}".to_owned())).await.unwrap_err());
    assert!(text.starts_with("[CDH] [ERROR]: Decrypt Image (UnwrapKey) failed: CDH_KEY_REQUEST: "), "{text}");
    let unknown = keys.wrap_key(timeout(), &ask("{}".to_owned())).await.unwrap_err();
    assert_eq!(status(unknown).0, Code::UNIMPLEMENTED);
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let running = Running::new("", |hub| hub).await;
    let (code, text) = running.resource("kbs:///a/b/c").await.unwrap_err();
    assert!(code == Code::INTERNAL && text.contains("CDH_NO_BROKER"), "{text}");
    let images = api::ImagePullServiceClient::new(running.client.clone());
    let (_, text) = status(images.pull_image(timeout(), &Default::default()).await.unwrap_err());
    assert!(text.starts_with("[CDH] [ERROR]: Image Pull error: CDH_NOT_AVAILABLE: "), "{text}");
    let volumes = api::SecureMountServiceClient::new(running.client.clone());
    let (_, text) = status(volumes.secure_mount(timeout(), &Default::default()).await.unwrap_err());
    assert!(text.starts_with("[CDH] [ERROR]: Secure Mount failed: CDH_NOT_AVAILABLE: "), "{text}");
    let artifacts = artifact::ArtifactServiceClient::new(running.client.clone());
    let (_, text) = status(artifacts.land(timeout(), &Default::default()).await.unwrap_err());
    assert!(text.starts_with("[CDH] [ERROR]: Artifact failed: CDH_NOT_AVAILABLE: "), "{text}");
    let (code, _) = status(artifacts.status(timeout(), &Default::default()).await.unwrap_err());
    assert_eq!(code, Code::NOT_FOUND);
}

/// Remembers what reached it.
#[derive(Default)]
struct Seen(std::sync::Mutex<Vec<String>>);

impl Seen {
    fn add(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }
}

#[async_trait::async_trait]
impl Images for Seen {
    async fn pull(&self, image: &str, bundle: &Path, _: Instant) -> Result<String, crate::Error> {
        self.add(format!("{image} {}", bundle.display()));
        Ok("sha256:00".to_owned())
    }
}

#[async_trait::async_trait]
impl Volumes for Seen {
    async fn unmount(&self, _: &str) -> Result<(), crate::Error> {
        Ok(())
    }

    async fn mount(&self, volume: Volume, _: Instant) -> Result<(), crate::Error> {
        self.add(format!("{volume:?}"));
        Ok(())
    }
}

#[tokio::test]
async fn images_and_volumes_reach_who_makes_them() {
    let seen = Arc::new(Seen::default());
    let (images, volumes) = (Arc::clone(&seen), Arc::clone(&seen));
    let running = Running::new("", |hub| hub.with_images(images).with_volumes(volumes)).await;
    let images = api::ImagePullServiceClient::new(running.client.clone());
    let request = api::ImagePullRequest {
        image_url: "registry.example/a:1".to_owned(),
        bundle_path: "/run/kata-containers/c1".to_owned(),
        ..Default::default()
    };
    assert_eq!(images.pull_image(timeout(), &request).await.unwrap().manifest_digest, "sha256:00");
    let volumes = api::SecureMountServiceClient::new(running.client.clone());
    let request = api::SecureMountRequest {
        volume_type: "block-device".to_owned(),
        options: [("deviceId".to_owned(), "8:0".to_owned())].into(),
        mount_point: "/m".to_owned(),
        ..Default::default()
    };
    volumes.secure_mount(timeout(), &request).await.unwrap();
    let found = seen.0.lock().unwrap().clone();
    assert_eq!(found[0], "registry.example/a:1 /run/kata-containers/c1");
    assert!(
        found[1].contains("\"deviceId\": \"8:0\"") && found[1].contains("mount_point: \"/m\""),
        "{}",
        found[1]
    );
}

#[tokio::test]
async fn evil_peer_oversize_names() {
    let seen = Arc::new(Seen::default());
    let images = Arc::clone(&seen);
    let running = Running::new("", |hub| hub.with_images(images)).await;
    let images = api::ImagePullServiceClient::new(running.client.clone());
    let request = api::ImagePullRequest { image_url: "x".repeat(4097), ..Default::default() };
    let (code, text) = status(images.pull_image(timeout(), &request).await.unwrap_err());
    assert_eq!(code, Code::INVALID_ARGUMENT, "{text}");
    let secrets = api::SealedSecretServiceClient::new(running.client.clone());
    let long = api::UnsealSecretInput { secret: vec![b'x'; (1 << 20) + 1], ..Default::default() };
    let (code, text) = status(secrets.unseal_secret(timeout(), &long).await.unwrap_err());
    assert_eq!(code, Code::INVALID_ARGUMENT, "{text}");
    assert!(text.starts_with("[CDH] [ERROR]: REQUEST_BYTES: "), "{text}");
    assert!(seen.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_peer_that_is_not_permitted_gets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    store(directory.path());
    let own = rustix::process::geteuid().as_raw();
    let mut service = service(directory.path(), CONFIG, |hub| hub);
    let peer = |uid, placement| Peer { socket: "/s".to_owned(), uid, cgroup: "/".to_owned(), placement };
    use attestation_agent::service::Placement;
    assert!(service.access.permit(&peer(own, Placement::Image)).is_ok());
    // As if the hub were another user's, and this process neither that user nor root.
    service.access = Access::new(own.wrapping_add(1), Vec::new());
    let service = Arc::new(service);
    let stranger = peer(own.wrapping_add(2), Placement::Image);
    let container = peer(0, Placement::Container);
    for peer in [stranger, container] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let queue = service.queues.of(WorkloadIdentity::of("/s", peer.uid, "/"));
        tokio::spawn(serve_connection(theirs, answer::services(Arc::clone(&service), peer, queue)));
        let client = Client::new(ttrpc::asynchronous::transport::Socket::new(ours));
        let client = api::GetResourceServiceClient::new(client);
        let request = api::GetResourceRequest {
            ResourcePath: "kbs:///default/db/password".to_owned(),
            ..Default::default()
        };
        let (code, text) = status(client.get_resource(timeout(), &request).await.unwrap_err());
        assert!(code == Code::PERMISSION_DENIED && text.contains("CDH_PEER_DENIED"), "{text}");
    }
}

const CREDENTIAL: &str = "[[credentials]]\nresource_uri = \"kbs:///default/db/password\"\n\
    path = \"/run/confidential-containers/cdh/kbs/db/password\"\n";

#[tokio::test]
async fn credentials_are_written_before_anything_is_served() {
    let directory = tempfile::tempdir().unwrap();
    store(directory.path());
    let path = directory.path().join("run/confidential-containers/cdh/kbs/db/password");
    service(directory.path(), &format!("{CONFIG}{CREDENTIAL}"), |hub| hub).write_credentials().await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"hunter2");
    let missing = CREDENTIAL.replace("default/db", "default/none").replace("db/password", "other");
    let refused =
        service(directory.path(), &format!("{CONFIG}{missing}"), |hub| hub).write_credentials().await;
    assert_eq!(refused.unwrap_err().code(), "CDH_OFFLINE_NO_RESOURCE");
    assert_eq!(std::fs::read(&path).unwrap(), b"hunter2", "what was there stays");
}

#[tokio::test]
async fn evil_peer_takes_every_connection_of_the_hub() {
    use tokio::io::AsyncReadExt as _;
    let running = Running::new(CONFIG, |hub| hub).await;
    let socket = running.directory.path().join("cdh.sock");
    // The client has the first one.
    let mut held = Vec::new();
    for _ in 1..PEER_LIMITS.connections {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        let silent = tokio::time::timeout(Duration::from_millis(20), stream.read_u8()).await;
        assert!(silent.is_err(), "a connection within the bound stays open");
        held.push(stream);
    }
    let mut one_more = UnixStream::connect(&socket).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), one_more.read_u8()).await;
    assert!(ended.unwrap().is_err(), "one more is closed");
    assert_eq!(running.resource("kbs:///default/db/password").await, Ok(b"hunter2".to_vec()));
}

#[tokio::test]
async fn stopping_removes_the_socket_and_a_second_hub_is_refused() {
    let mut running = Running::new(CONFIG, |hub| hub).await;
    let socket = running.directory.path().join("cdh.sock");
    let second = service(running.directory.path(), CONFIG, |hub| hub);
    let refused = second.serve(&socket, || panic!("ready"), |_| (), std::future::pending()).await;
    assert_eq!(refused.unwrap_err().code(), "CDH_SOCKET");
    running.stop.take().unwrap().send(()).unwrap();
    (&mut running.task).await.unwrap().unwrap();
    assert!(!socket.exists());
}
