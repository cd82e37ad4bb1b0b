//! Over HTTP, in front of a hub of this process; only the control group of who asks is the test's word.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use cdh::rest::peers::{Containers as _, Peers};
use policy_engine::audit::Audit;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::tests::{Container as Process, PROCESS, id, in_root, root, sealed_with, state, under};
use super::*;
use crate::hub::DataHub;
use crate::hub::tests::{attest, audit, broker, listing, open};
use crate::log::tests::recorded;
use crate::rest::tests::serve_for_test;

const SECRET: &str = "hunter2-and-more";
const LISTS: &str = "[[innerkeep.rest]]\ncontainer = \"app\"\n\
                     routes = [\"/info\", \"/aa/evidence\", \"/aa/aael\", \"/cdh/resource/default/db/password\"]\n";
const PASSWORD: &str = "/cdh/resource/default/db/password";

/// Everybody who asks is in this control group.
struct In(Arc<KnownContainers>, Mutex<String>);

impl Peers for In {
    fn container_of(&self, _: SocketAddr, _: SocketAddr) -> Option<Asking> {
        let mut found = self.0.of_cgroup(&self.1.lock().unwrap());
        found.pop().filter(|_| found.is_empty())
    }
}

struct Scene {
    directory: TempDir,
    askers: Askers,
    peers: Arc<In>,
    address: SocketAddr,
    log: Arc<Mutex<Vec<u8>>>,
}

impl Scene {
    /// By a hub of files. `settings` are those of `innerkeep.toml`.
    async fn with(config: &str, settings: &str, audit: &Arc<Audit>) -> Self {
        let directory = in_root();
        let hub = listing(directory.path(), SECRET.as_bytes(), audit, config, settings);
        let settings = format!("insecure = [\"offline-kbc\"]\n{settings}");
        Self::of(directory, hub, entries(&settings)).await
    }

    async fn new() -> Self {
        let audit = audit();
        attest(&audit);
        Self::with(LISTS, "", &audit).await
    }

    async fn of(directory: TempDir, hub: DataHub, entries: Vec<Container>) -> Self {
        let (log, lines) = recorded();
        let sealed = sealed_with(directory.path().to_str().unwrap(), &log);
        let secrets = Secrets::new(hub, &sealed);
        let askers = Askers::new(&secrets, entries);
        let peers = Arc::new(In(Arc::clone(askers.known()), Mutex::default()));
        let address = serve_for_test(secrets.hub(), &askers, Arc::clone(&peers) as _).await;
        Self { directory, askers, peers, address, log: lines }
    }

    fn admit(&self, container: &str, name: Option<&str>, roots: Vec<Root>, rootfs: &Path) {
        let cgroup = CgroupPath::parse(&format!("/pod/{container}"), &id(container)).unwrap();
        self.askers.admit(&id(container), name, &cgroup, roots, rootfs, PROCESS.digest()).unwrap();
    }

    /// Made and about to run.
    async fn start(&self, container: &str, name: Option<&str>, roots: Vec<Root>) -> Process {
        self.admit(container, name, roots, Path::new("/"));
        let process = Process::start("true");
        self.askers.begin(&id(container), Some(&state()), process.id()).await;
        process
    }

    /// What a process of this control group gets: status, and body or code.
    async fn ask(&self, cgroup: &str, path: &str) -> (u16, String) {
        *self.peers.1.lock().unwrap() = cgroup.to_owned();
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let refusal: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        (status, refusal["error"].as_str().unwrap_or(body).to_owned())
    }

    fn said(&self) -> String {
        String::from_utf8(self.log.lock().unwrap().clone()).unwrap()
    }
}

fn entries(settings: &str) -> Vec<Container> {
    let mut package = initdata::Package::new(initdata::Algorithm::Sha256);
    package.insert("innerkeep.toml", settings).unwrap();
    let unverified = initdata::Unverified::from_annotation(&package.pack().unwrap().annotation()).unwrap();
    let bound = unverified.insecure_unbound().unwrap();
    bound.document().settings().rest.iter().map(|entry| entry.container.clone()).collect()
}

fn given() -> (u16, String) {
    (200, SECRET.to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_container_that_is_named_reads_what_is_listed_for_its_name() {
    let scene = Scene::new().await;
    let _process = scene.start("con", Some("app"), vec![root()]).await;
    assert_eq!(scene.ask("/pod/con", PASSWORD).await, given());
    assert_eq!(scene.ask("/pod/con/worker", PASSWORD).await, given());
    assert_eq!(scene.ask("/pod/con", "/aa/evidence?runtime_data=x").await.0, 200);
    let said = scene.said();
    assert_eq!(said.matches("asks the REST front").count(), 1, "{said}");
    assert!(!said.contains("hunter2") && !format!("{:?}", scene.askers).contains("hunter2"));
}

#[tokio::test]
async fn evil_container_that_is_not_listed_asks() {
    let scene = Scene::new().await;
    let _other = scene.start("con", Some("other"), vec![root()]).await;
    for path in [PASSWORD, "/info", "/aa/evidence?runtime_data=x"] {
        assert_eq!(scene.ask("/pod/con", path).await, refused(403, "REST_NOT_LISTED"), "{path}");
    }
    let _app = scene.start("app", Some("app"), vec![root()]).await;
    let another = "/cdh/resource/default/seal-key/vec";
    assert_eq!(scene.ask("/pod/app", another).await, refused(403, "REST_NOT_LISTED"));
}

/// A process of the guest, one of a container without a name, one of a container whose program does not run yet.
#[tokio::test]
async fn evil_process_that_is_no_container_asks() {
    let scene = Scene::new().await;
    let _nameless = scene.start("nameless", None, vec![root()]).await;
    let _fooled = scene.start("fooled", Some("rest:0"), vec![root()]).await;
    scene.admit("made", Some("app"), vec![root()], Path::new("/"));
    for cgroup in ["/", "/pod", "/innerkeep/0", "/pod/nameless", "/pod/fooled", "/pod/made", "/pod/none"] {
        for path in [PASSWORD, "/info"] {
            assert_eq!(scene.ask(cgroup, path).await, refused(403, "REST_PEER_UNKNOWN"), "{cgroup} {path}");
        }
    }
}

/// Its name is the host's word: whoever has it, the root has to be one that this guest verified, under the process, and one that is named.
#[tokio::test]
async fn evil_host_container_of_its_own_root_asks_for_a_secret() {
    let (directory, listener, audit) = (in_root(), TcpListener::bind(("127.0.0.1", 0)).unwrap(), audit());
    listener.set_nonblocking(true).unwrap();
    attest(&audit);
    let hub = open(&format!("{}{LISTS}", broker(&listener)), "", &audit, directory.path()).unwrap();
    let scene = Scene::of(directory, hub, Vec::new()).await;
    let image = Root::Image(Sha256Digest::new([2; 32]));
    let _host = scene.start("no-root", Some("app"), Vec::new()).await;
    let _image = scene.start("con", Some("app"), vec![image]).await;
    let other = in_root();
    scene.admit("moved", Some("app"), vec![root()], other.path());
    let process = Process::start("true");
    scene.askers.begin(&id("moved"), Some(&state()), process.id()).await;
    for (container, code) in
        [("no-root", "SEALED_VALUE_ROOT"), ("con", "SEALED_VALUE_NOT_NAMED"), ("moved", "SEALED_ROOT")]
    {
        for path in [PASSWORD, "/aa/evidence?runtime_data=x"] {
            let answer = scene.ask(&format!("/pod/{container}"), path).await;
            assert_eq!(answer, refused(403, code), "{container} {path}");
        }
        assert_eq!(scene.ask(&format!("/pod/{container}"), "/info").await.0, 200);
        assert!(scene.said().contains(code), "{}", scene.said());
    }
    let asked = || listener.accept().map(drop).map_err(|error| error.kind());
    assert_eq!(asked(), Err(ErrorKind::WouldBlock), "the broker was asked");
    // The one that may, asks it.
    let _named = scene.start("never-admitted", Some("app"), vec![root()]).await;
    let (asking, ()) = tokio::join!(
        tokio::time::timeout(std::time::Duration::from_secs(3), scene.ask("/pod/never-admitted", PASSWORD)),
        async {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            assert_eq!(asked(), Ok(()));
        }
    );
    drop((asking, &scene.directory));
}

#[tokio::test]
async fn evil_host_files_over_the_root_of_a_container_that_asks() {
    let scene = Scene::new().await;
    let path = scene.directory.path().to_str().unwrap();
    std::fs::create_dir(format!("{path}/bin")).unwrap();
    let process = Process::start(&format!("mount --bind {path} {path}/bin"));
    // Named by its process alone: nobody judged its mounts.
    scene.admit("first", Some("app"), vec![root()], Path::new("/"));
    scene.askers.begin(&id("first"), None, process.id()).await;
    assert_eq!(scene.ask("/pod/first", PASSWORD).await, refused(403, "SEALED_HOST_FILES"));
}

/// Who has the id next is another one, whatever is said of it.
#[tokio::test]
async fn evil_host_takes_the_id_of_a_container_that_asked() {
    let scene = Scene::new().await;
    let process = scene.start("con", Some("app"), vec![root()]).await;
    assert_eq!(scene.ask("/pod/con", PASSWORD).await, given());
    scene.askers.release(&id("con"));
    assert_eq!(scene.ask("/pod/con", PASSWORD).await, refused(403, "REST_PEER_UNKNOWN"));
    scene.admit("con", Some("app"), Vec::new(), Path::new("/"));
    assert_eq!(
        scene.ask("/pod/con", PASSWORD).await,
        refused(403, "REST_PEER_UNKNOWN"),
        "it does not run yet"
    );
    scene.askers.begin(&id("con"), Some(&state()), process.id()).await;
    assert_eq!(scene.ask("/pod/con", PASSWORD).await, refused(403, "SEALED_VALUE_ROOT"));
    // One that was removed while it began is nobody.
    scene.askers.release(&id("con"));
    scene.askers.begin(&id("con"), Some(&state()), process.id()).await;
    assert_eq!(scene.ask("/pod/con", PASSWORD).await, refused(403, "REST_PEER_UNKNOWN"));
    // A program that was not executed.
    let _again = scene.start("con", Some("app"), vec![root()]).await;
    scene.askers.withdraw(&id("con"));
    assert_eq!(scene.ask("/pod/con", PASSWORD).await, refused(403, "REST_PEER_UNKNOWN"));
}

#[tokio::test]
async fn evil_host_container_asks_before_the_audit_is_attested() {
    let audit = audit();
    let scene = Scene::with(LISTS, "", &audit).await;
    let _process = scene.start("con", Some("app"), vec![root()]).await;
    for path in [PASSWORD, "/aa/evidence?runtime_data=x"] {
        assert_eq!(scene.ask("/pod/con", path).await, refused(503, "REST_NOT_ATTESTED"), "{path}");
    }
    attest(&audit);
    assert_eq!(scene.ask("/pod/con", PASSWORD).await, given());
}

/// By what was verified of it, and under a name that the host cannot give.
#[tokio::test]
async fn a_container_that_an_entry_means_is_known_by_the_entry() {
    let hash = format!("sha256:{}", "01".repeat(32));
    let settings = format!(
        "[[rest]]\ncontainer = {{ image = \"{hash}\", policy_container = 7 }}\nroutes = [\"aa-evidence\"]\n\
         [[rest]]\ncontainer = {{ image = \"{hash}\", policy_container = 2 }}\nroutes = [\"cdh-resource\"]\n\
         resources = [\"kbs:///default/db/password\"]\n"
    );
    let audit = audit();
    attest(&audit);
    let scene = Scene::with(LISTS, &settings, &audit).await;
    let image = || vec![Root::Image(Sha256Digest::new([1; 32]))];
    // Its own name, another one's, none: it is the second entry's.
    for (container, name) in [("con", Some("other")), ("con", Some("app")), ("con", None)] {
        let _process = scene.start(container, name, image()).await;
        assert_eq!(scene.ask("/pod/con", PASSWORD).await, given(), "{name:?}");
        let evidence = scene.ask("/pod/con", "/aa/evidence?runtime_data=x").await;
        assert_eq!(evidence, refused(403, "REST_NOT_LISTED"), "{name:?}");
        scene.askers.release(&id("con"));
    }
    // The index of another policy, and another image at the same index.
    scene.admit("con", None, image(), Path::new("/"));
    let process = Process::start("true");
    scene.askers.begin(&id("con"), Some(&under("package other\n")), process.id()).await;
    assert_eq!(scene.ask("/pod/con", PASSWORD).await, refused(403, "REST_PEER_UNKNOWN"));
    let _other = scene.start("con", None, vec![Root::Image(Sha256Digest::new([3; 32]))]).await;
    assert_eq!(scene.ask("/pod/con", PASSWORD).await, refused(403, "REST_PEER_UNKNOWN"));
}
