use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use attestation_agent::Options;
use cdh::image::policy::Cause;
use cdh::registry::Reference;
use cdh::worker::{Process, Trade, Workers};
use policy_engine::audit::Facts;
use serde_json::{Value, json};

use super::*;
use crate::audit::tests::base64;

const VECTORS: &str = include_str!("../../../tests/vectors/cdh/vectors.json");
const OFFLINE: &str = "[kbc]\nname = \"offline_fs_kbc\"\n";
const PERMITTED: &str = "insecure = [\"offline-kbc\"]\n";

fn vector(name: &str) -> Value {
    serde_json::from_str::<Value>(VECTORS).unwrap()["sealed_secret_vault"][name].clone()
}

/// A sealed secret whose verification key and whose secret a hub of [`offline`] has.
pub(crate) fn sealed_text() -> String {
    vector("sealed").as_str().unwrap().to_owned()
}

fn document(config: Option<&str>, settings: &str) -> Initdata {
    let mut package = initdata::Package::new(initdata::Algorithm::Sha384);
    package.insert("innerkeep.toml", settings).unwrap();
    if let Some(config) = config {
        package.insert("cdh.toml", config).unwrap();
    }
    let unverified = initdata::Unverified::from_annotation(&package.pack().unwrap().annotation()).unwrap();
    unverified.insecure_unbound().unwrap()
}

fn sample() -> Arc<Attester> {
    Arc::new(Attester::detect(&TeeRoot::system(), Options { insecure_sample: true }).unwrap())
}

pub(crate) fn audit() -> Arc<Audit> {
    Arc::new(Audit::start(Facts::default(), None).unwrap())
}

pub(crate) fn attest(audit: &Audit) {
    audit.evidence(b"{}".to_vec()).unwrap();
}

/// Starts nothing.
fn workers() -> Arc<dyn Workers> {
    struct Nobody;
    #[async_trait::async_trait]
    impl Workers for Nobody {
        async fn start(&self, _: Trade, _: std::os::fd::OwnedFd) -> Result<Box<dyn Process>, Cause> {
            Err("nobody works here".into())
        }
    }
    Arc::new(Nobody)
}

pub(crate) fn open(
    config: &str,
    settings: &str,
    audit: &Arc<Audit>,
    root: &Path,
) -> Result<DataHub, HubError> {
    let initdata = document(Some(config), settings);
    let dated = Dated::new(|_| ());
    DataHub::open_at(
        Some(&initdata),
        Some(&sample()),
        dated,
        audit,
        &Shared::default(),
        &TeeRoot::insecure(root),
        workers(),
    )
}

/// A hub whose source is a file below `directory`: it opens [`sealed_text`] as `secret`.
pub(crate) fn offline(directory: &Path, secret: &[u8], is_attested: bool) -> DataHub {
    let audit = audit();
    if is_attested {
        attest(&audit);
    }
    offline_with(directory, secret, &audit)
}

fn offline_with(directory: &Path, secret: &[u8], audit: &Arc<Audit>) -> DataHub {
    listing(directory, secret, audit, "", "")
}

/// The same, with more in `cdh.toml` and in `innerkeep.toml`.
pub(crate) fn listing(
    directory: &Path,
    secret: &[u8],
    audit: &Arc<Audit>,
    config: &str,
    settings: &str,
) -> DataHub {
    let jwk = vector("verification_jwk").to_string();
    let resources =
        json!({ "default/seal-key/vec": base64(jwk.as_bytes()), "default/db/password": base64(secret) });
    std::fs::create_dir_all(directory.join("etc")).unwrap();
    let path = directory.join("etc/aa-offline_fs_kbc-resources.json");
    std::fs::write(path, resources.to_string()).unwrap();
    open(&format!("{OFFLINE}{config}"), &format!("{PERMITTED}{settings}"), audit, directory).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(300)
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

#[tokio::test]
async fn without_a_configuration_or_a_platform_there_is_no_hub() {
    let audit = audit();
    let open = |initdata: Option<&Initdata>, attester: Option<&Arc<Attester>>| {
        DataHub::open(initdata, attester, Dated::new(|_| ()), &audit, &Shared::default(), workers())
    };
    let code = |hub: DataHub| hub.require().unwrap_err().code();
    let (without, with) =
        (document(None, ""), document(Some("[kbc]\nname = \"cc_kbc\"\nurl = \"http://127.0.0.1:9\"\n"), ""));
    assert_eq!(code(open(None, Some(&sample())).unwrap()), "CDH_ABSENT");
    assert_eq!(code(open(Some(&without), Some(&sample())).unwrap()), "CDH_ABSENT");
    let hub = open(Some(&with), None).unwrap();
    assert!(hub.broker_place().is_none());
    assert_eq!(code(hub), "CDH_ABSENT");
    open(Some(&with), Some(&sample())).unwrap().require().unwrap();
}

#[tokio::test]
async fn evil_host_configuration_of_the_hub_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let code =
        |config: &str, settings: &str| open(config, settings, &audit(), directory.path()).unwrap_err().code();
    assert_eq!(code("no_such_key = 1\n", ""), "CDH_CONFIG_INVALID");
    // Insecure modes count by bound configuration alone.
    assert_eq!(code(OFFLINE, ""), "CDH_INSECURE_UNBOUND");
    assert_eq!(code("skip_sealed_secret_verification = true\n", PERMITTED), "CDH_INSECURE_UNBOUND");
    // It is said although nobody could use it.
    let initdata = document(Some("no_such_key = 1\n"), "");
    let refused =
        DataHub::open(Some(&initdata), None, Dated::new(|_| ()), &audit(), &Shared::default(), workers());
    assert_eq!(refused.unwrap_err().code(), "CDH_CONFIG_INVALID");
}

pub(crate) fn broker(listener: &TcpListener) -> String {
    let port = listener.local_addr().unwrap().port();
    format!("[kbc]\nname = \"cc_kbc\"\nurl = \"http://127.0.0.1:{port}\"\n[innerkeep]\nbroker = \"prod\"\n")
}

#[tokio::test]
async fn evil_host_secret_before_the_audit_is_attested() {
    let directory = tempfile::tempdir().unwrap();
    let (listener, audit) = (TcpListener::bind(("127.0.0.1", 0)).unwrap(), audit());
    listener.set_nonblocking(true).unwrap();
    let hub = open(&broker(&listener), "", &audit, directory.path()).unwrap();
    let text = sealed_text();
    for is_late in [false, true] {
        let error = hub.unseal(text.as_bytes(), soon(), || is_late).await.unwrap_err();
        assert_eq!(error.code(), "CDH_NOT_ATTESTED");
    }
    let asked = || listener.accept().map(drop).map_err(|error| error.kind());
    assert_eq!(asked(), Err(ErrorKind::WouldBlock), "the broker was asked");
    attest(&audit);
    hub.unseal(text.as_bytes(), soon(), || false).await.unwrap_err();
    assert_eq!(asked(), Ok(()), "the broker is asked from then on");
}

#[tokio::test(flavor = "multi_thread")]
async fn evil_broker_denies() {
    let directory = tempfile::tempdir().unwrap();
    let (listener, audit) = (TcpListener::bind(("127.0.0.1", 0)).unwrap(), audit());
    attest(&audit);
    let hub = open(&broker(&listener), "", &audit, directory.path()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 4096]);
            let no = r#"{"type":"https://github.com/confidential-containers/kbs/errors/AttestationError","detail":"no"}"#;
            let head = "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: ";
            let _ = write!(stream, "{head}{}\r\n\r\n{no}", no.len());
        }
    });
    let error = hub.unseal(sealed_text().as_bytes(), later(), || false).await.unwrap_err();
    assert_eq!(error.code(), "KBS_REFUSED_ATTESTATION", "{error}");
}

#[tokio::test]
async fn a_secret_comes_when_the_audit_is_attested() {
    let directory = tempfile::tempdir().unwrap();
    let audit = audit();
    let hub = offline_with(directory.path(), b"hunter2", &audit);
    let (own, text) = (hub.clone(), sealed_text());
    let waiting = tokio::spawn(async move { own.unseal(text.as_bytes(), later(), || false).await });
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert!(!waiting.is_finished());
    attest(&audit);
    let secret = waiting.await.unwrap().unwrap();
    assert_eq!(secret.expose(), b"hunter2");
    assert!(!format!("{hub:?}{secret:?}").contains("hunter2"));
    let altered = sealed_text().replace("NE2", "NE3").replace("IMmp7A", "IMmp7Q");
    let error = hub.unseal(altered.as_bytes(), later(), || false).await.unwrap_err();
    assert!(error.code().starts_with("SEALED_SECRET_"), "{}", error.code());
}

#[tokio::test]
async fn the_broker_of_bound_configuration_is_a_place_of_keys() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let named = open(&broker(&listener), "", &audit(), directory.path()).unwrap();
    let Some(BrokerPlace { recipient, access }) = named.broker_place() else { panic!("no source") };
    assert_eq!(recipient.name.as_str(), "prod");
    // It has a runtime of its own, for threads that land.
    tokio::task::spawn_blocking(move || access.connect(sample()).map(drop)).await.unwrap().unwrap();
    // A grant does not say what the guest's broker is called.
    let unnamed = broker(&listener).replace("broker = \"prod\"\n", "");
    assert!(open(&unnamed, "", &audit(), directory.path()).unwrap().broker_place().is_none());
}

#[tokio::test]
async fn evil_host_registry_before_the_audit_is_attested() {
    let directory = tempfile::tempdir().unwrap();
    let (listener, audit) = (TcpListener::bind(("127.0.0.1", 0)).unwrap(), audit());
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let config = format!(
        "[image]\nregistry_config = \"\"\"\n[[registry]]\nlocation = \"{address}\"\ninsecure = true\n\"\"\"\n"
    );
    let hub = open(&config, "", &audit, directory.path()).unwrap();
    let from = Reference::parse(&format!("{address}/acme/ranker:v1")).unwrap();
    assert_eq!(hub.registry(soon()).await.unwrap_err().code(), "CDH_NOT_ATTESTED");
    let asked = || listener.accept().map(drop).map_err(|error| error.kind());
    let error = hub.pull(&format!("{address}/acme/ranker:v1"), soon()).await.unwrap_err();
    assert_eq!(error.code(), "CDH_NOT_ATTESTED");
    assert_eq!(asked(), Err(ErrorKind::WouldBlock), "the registry was asked");
    attest(&audit);
    let registry = hub.registry(soon()).await.unwrap().unwrap();
    let error = registry.pull_artifact(&from, soon()).await.unwrap_err();
    // From then on it would be, by a process of its own, which nobody starts here.
    assert_eq!(error.code(), "REGISTRY_FETCHER", "{error}");
    assert_eq!(asked(), Err(ErrorKind::WouldBlock), "this process asked the registry");
    // It is asked for what the policy of images may accept, and there is none.
    let error = hub.pull(&format!("{address}/acme/ranker:v1"), soon()).await.unwrap_err();
    assert_eq!(error.code(), "IMAGE_POLICY_MISSING");
    let absent = DataHub::absent("none").registry(soon()).await.unwrap_err();
    assert_eq!(absent.code(), "CDH_ABSENT");
}
