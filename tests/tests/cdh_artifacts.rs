//! The data hub's `ArtifactService` over its socket: artifacts from Debian's `docker-registry` by ranges, and from a directory that the host
//! fills, opened by a chip, handed over as read-only files. Needs root: nobody else may make landings.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[expect(dead_code, reason = "more than this test needs")]
#[path = "cdh_pull/fixture.rs"]
mod fixture;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use attestation_agent::{Attester, Options, TeeRoot};
use cdh::artifact::{Chips, Guest, NamedArtifacts, Opener, Shared};
use cdh::config::HubConfig;
use cdh::modes::Modes;
use cdh::service::{Hub, HubService, Jobs};
use cdh::worker::Executed;
use chip_client::address::DeviceAddress;
use chip_client::chain::TrustRoot;
use initdata::{InsecureMode, SealedConfig};
use protected_memory::landing::{TeePolicy, TeeState};
use protected_memory::source::MappedSource;
use protocol::artifact::{
    ArtifactLandRequest, ArtifactOpenRequest, ArtifactReleaseRequest, ArtifactServiceClient, ArtifactState,
    ArtifactStatusRequest, ArtifactStatusResponse,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use tests::args;
use tests::layout::Layout;
use tests::payload::Payload;
use tests::programs::{Programs, as_root};
use tests::scene::{Artifact, ENVIRONMENT, FAMILY, Scene, SealSpec, swap_is_on};
use tokio::net::{TcpListener, TcpStream};

use fixture::Server;

/// A registry with a sealed artifact of two files, and the chip that it is granted to.
struct Stage {
    server: Server,
    scene: Scene,
    payloads: [Payload; 2],
    artifact: Artifact,
}

/// A hub that serves this process until it is dropped.
struct Served {
    client: ArtifactServiceClient,
    directory: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stage {
    fn start() -> Self {
        let (server, scene) = (Server::start(), Scene::start());
        let payloads = [Payload::random(1, 4 << 20), Payload::random(2, 100_000)];
        let inputs = [scene.input("weights.bin", &payloads[0]), scene.input("config.json", &payloads[1])];
        let artifact = scene.seal("model", &[&inputs[0], &inputs[1]], &SealSpec::default());
        let policy = scene.policy("release.toml", ENVIRONMENT, "key-release", 5);
        scene.grant(&artifact, &policy);
        Self { server, scene, payloads, artifact }
    }

    fn layout(&self) -> Layout {
        Layout::at(&self.artifact.reference)
    }

    /// Pushes a layout; what `sealed.toml` calls it.
    fn push(&self, layout: &Layout, name: &str) -> String {
        let to = self.server.name(&format!("acme/{name}:v1"));
        let from = layout.path().display().to_string();
        self.scene.innerkeep.run(&args!["push", from, &to, "--insecure-plain-http"]);
        to
    }

    /// An entry of `sealed.toml`.
    fn entry(&self, name: &str, reference: &str, min_counter: u64) -> Value {
        let sealer = self.layout().core()["parameters"]["sealer"].clone();
        json!({
            "name": name, "reference": reference, "path": format!("/models/{name}"),
            "sealer": {"key": sealer, "family": FAMILY, "min_counter": min_counter},
            "container": {"image": format!("sha256:{}", "7".repeat(64)), "policy_container": 1},
        })
    }

    /// A hub with these entries; `insecure` are registries in plain http.
    async fn serve(&self, entries: &[Value], cache: Option<PathBuf>, insecure: &str) -> Served {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("cdh.sock");
        let config = format!(
            "socket = \"unix://{}\"\n[[image.registry_config.registry]]\nlocation = \"{insecure}\"\ninsecure = true\n",
            socket.display()
        );
        let config = HubConfig::parse(&config).unwrap();
        let attester = Attester::detect(
            &TeeRoot::insecure(directory.path().join("tee")),
            Options { insecure_sample: true },
        );
        let (attester, root) = (Arc::new(attester.unwrap()), TeeRoot::insecure(directory.path()));
        let hub = Hub::new(&config, Modes::none(), &attester, None, &root).unwrap();
        let sealed = json!({"environment": ENVIRONMENT, "artifact": entries});
        let sealed: SealedConfig = serde_json::from_value(sealed).unwrap();
        let resources = Arc::clone(hub.resources()) as _;
        let workers = Arc::new(Executed::of(Programs::built().path("confidential-data-hub"), Vec::new()));
        let lander =
            NamedArtifacts::new(sealed, self.opener(cache), config.image.clone(), resources, workers);
        let files = directory.path().join("files.sock");
        let hub = hub.with_artifacts(Arc::new(Jobs::with_socket(Arc::new(lander), files, 0o600)));
        let service = HubService::new(Arc::new(hub), &config, &root);
        let (ready, wait) = tokio::sync::oneshot::channel();
        let path = socket.clone();
        let task = tokio::spawn(async move {
            let ready = || ready.send(()).unwrap();
            service.serve(&path, ready, |_| (), std::future::pending()).await.unwrap();
        });
        wait.await.unwrap();
        let address = format!("unix://{}", socket.display());
        let client = ttrpc::asynchronous::Client::connect(&address).await.unwrap();
        Served { client: ArtifactServiceClient::new(client), directory, task }
    }

    fn opener(&self, cache: Option<PathBuf>) -> Opener {
        let root = TrustRoot::from_trusted(&std::fs::read(&self.scene.root).unwrap()).unwrap();
        let chip = DeviceAddress::Socket(self.scene.chip.socket.clone());
        let mut insecure = BTreeSet::from([InsecureMode::NoEvidence, InsecureMode::EmulatedDma]);
        if swap_is_on() {
            insecure.insert(InsecureMode::Swap);
        }
        let (tee, root_of_tee) = (TeeState::None, TeeRoot::system());
        let guest = Guest { tee, attester: None, collateral: None, bound: None, root: root_of_tee };
        let chips = Some(Chips::these(root, vec![chip]));
        let shared = Shared::at(cache.map(|cache| Arc::new(cache) as _));
        Opener { guest, chips, broker: None, insecure, tee: TeePolicy::InsecureNoTee, shared }
    }
}

fn context() -> ttrpc::context::Context {
    ttrpc::context::with_timeout(60_000_000_000)
}

impl Served {
    async fn land(&self, reference: &str, family: &str) -> u64 {
        let (reference, family) = (reference.to_owned(), family.to_owned());
        let request = ArtifactLandRequest { reference, family, ..Default::default() };
        self.client.land(context(), &request).await.unwrap().job
    }

    async fn status(&self, job: u64) -> Result<ArtifactStatusResponse, String> {
        let request = ArtifactStatusRequest { job, ..Default::default() };
        self.client.status(context(), &request).await.map_err(|error| error.to_string())
    }

    /// The end of a job.
    async fn end(&self, job: u64) -> ArtifactStatusResponse {
        let start = Instant::now();
        loop {
            let status = self.status(job).await.unwrap();
            if matches!(status.state.enum_value().unwrap(), ArtifactState::LANDED | ArtifactState::FAILED) {
                return status;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "{status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The code with which a landing is refused.
    async fn refused(&self, reference: &str, family: &str) -> String {
        let job = self.land(reference, family).await;
        let status = self.end(job).await;
        assert_eq!(status.state.enum_value(), Ok(ArtifactState::FAILED), "{status:?}");
        assert!(status.files.is_empty());
        let request = ArtifactOpenRequest { job, ..Default::default() };
        let error = self.client.open(context(), &request).await.unwrap_err().to_string();
        assert!(error.contains("CDH_JOB_STATE"), "{error}");
        status.error.split_once(": ").expect("a code").0.to_owned()
    }

    /// A file of a job, by its ticket.
    async fn open(&self, job: u64, file: u32) -> File {
        let request = ArtifactOpenRequest { job, file, ..Default::default() };
        let answer = self.client.open(context(), &request).await.unwrap();
        let (socket, ticket) = (answer.socket, answer.ticket);
        tokio::task::spawn_blocking(move || hand_over(Path::new(&socket), &ticket).unwrap()).await.unwrap()
    }

    async fn release(&self, job: u64) -> Result<(), String> {
        let request = ArtifactReleaseRequest { job, ..Default::default() };
        self.client.release(context(), &request).await.map(drop).map_err(|error| error.to_string())
    }
}

fn hand_over(socket: &Path, ticket: &[u8]) -> Option<File> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(ticket).unwrap();
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut byte = [9];
    let mut parts = [IoSliceMut::new(&mut byte)];
    recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut files = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    files.next().map(File::from)
}

#[test]
fn an_artifact_is_landed_by_ranges_and_handed_over() {
    as_root(async {
        let stage = Stage::start();
        let reference = stage.push(&stage.layout(), "model");
        let entries = [stage.entry("model", &reference, 5)];
        let served = stage.serve(&entries, None, &stage.server.authority).await;
        // By its reference, and by its family alone.
        for (reference, family) in [(reference.as_str(), ""), (&reference, FAMILY), ("", FAMILY)] {
            let job = served.land(reference, family).await;
            let status = served.end(job).await;
            assert_eq!(status.error, "");
            let total = stage.payloads.iter().map(|payload| payload.bytes().len()).sum::<usize>();
            let total = u64::try_from(total).unwrap();
            assert_eq!((status.bytes_done, status.bytes_total), (total, total));
            assert!(status.bytes_per_second > 0);
            let names: Vec<_> = status.files.iter().map(|file| file.name.as_str()).collect();
            assert_eq!(names, ["weights.bin", "config.json"]);
            for (index, payload) in (0_u32..).zip(&stage.payloads) {
                let mut file = served.open(job, index).await;
                let length = file.metadata().unwrap().len();
                let mapped = MappedSource::open(&file, 0, length).unwrap().expect("pages of this machine");
                assert!(mapped.bytes() == payload.bytes(), "mapped");
                drop(mapped);
                let mut read = Vec::new();
                file.read_to_end(&mut read).unwrap();
                assert!(read == payload.bytes(), "read");
            }
            served.release(job).await.unwrap();
            assert!(served.status(job).await.unwrap_err().contains("CDH_JOB_UNKNOWN"));
        }
        // Nothing of it was stored.
        stage.scene.assert_no_plaintext(&stage.artifact);
        let held =
            std::fs::read_dir(served.directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(held.filter(|name| !name.to_str().unwrap().ends_with(".sock")).count(), 0);
    });
}

#[test]
fn an_artifact_comes_from_the_directory_of_the_host() {
    as_root(async {
        let stage = Stage::start();
        let cache = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(cache.path().join("registry.example/acme")).unwrap();
        stage.layout().copy(&cache.path().join("registry.example/acme/model"));
        let mut pinned = stage.entry("pinned", "registry.example/acme/model", 5);
        pinned.as_object_mut().unwrap().remove("sealer");
        pinned["core"] = json!(stage.artifact.core);
        let served = stage.serve(&[pinned], Some(cache.path().to_owned()), "registry.example").await;
        let job = served.land(&stage.artifact.core, "").await;
        assert_eq!(served.end(job).await.error, "");
        let mut read = Vec::new();
        served.open(job, 1).await.read_to_end(&mut read).unwrap();
        assert!(read == stage.payloads[1].bytes());
    });
}

#[test]
fn evil_peer_lands_another_family() {
    as_root(async {
        let stage = Stage::start();
        let reference = stage.push(&stage.layout(), "model");
        let entries = [stage.entry("model", &reference, 5)];
        let served = stage.serve(&entries, None, &stage.server.authority).await;
        for (reference, family) in [
            (reference.as_str(), "acme/other"),
            ("", "acme/other"),
            ("", ""),
            (&format!("{reference}x"), ""),
            (&stage.artifact.core, ""),
        ] {
            assert_eq!(served.refused(reference, family).await, "CDH_ARTIFACT_NOT_NAMED", "{reference}");
        }
    });
}

#[test]
fn evil_registry_serves_another_artifact() {
    as_root(async {
        let stage = Stage::start();
        let altered = |name: &str, alter: &dyn Fn(&Layout)| {
            let layout = stage.layout().copy(&stage.scene.work.join(name));
            alter(&layout);
            stage.push(&layout, name)
        };
        let replace = |layout: &Layout, index: usize, change: &dyn Fn(&mut Vec<u8>)| {
            layout.alter_manifest(0, |manifest| {
                let blob = manifest["layers"][index].clone();
                let mut bytes = layout.blob(&blob);
                change(&mut bytes);
                manifest["layers"][index] = layout.put(blob, &bytes);
            });
        };
        let flip = |bytes: &mut Vec<u8>| {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        };
        let shorten = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1);
        let stranger = stage.scene.seal(
            "stranger",
            &[&stage.scene.input("weights.bin", &Payload::random(3, 1000))],
            &SealSpec { signed: false, ..SealSpec::default() },
        );
        let stale = stage.push(&stage.layout(), "stale");
        let cases = [
            ("stale", stale, 8, "ROLLBACK"),
            ("stranger", stage.push(&Layout::at(&stranger.reference), "stranger"), 5, "ORIGIN_UNPROVEN"),
            ("tampered", altered("tampered", &|layout| replace(layout, 0, &flip)), 5, "SEGMENT_AUTH_FAILED"),
            ("truncated", altered("truncated", &|layout| replace(layout, 0, &shorten)), 5, "LENGTH_MISMATCH"),
            ("tags", altered("tags", &|layout| replace(layout, 2, &flip)), 5, "TAG_TABLE_MISMATCH"),
            ("missing", stage.server.name("acme/missing:v1"), 5, "REGISTRY_MISSING"),
        ];
        let entries: Vec<_> =
            cases.iter().map(|(name, reference, floor, _)| stage.entry(name, reference, *floor)).collect();
        let served = stage.serve(&entries, None, &stage.server.authority).await;
        for (name, reference, _, code) in &cases {
            assert_eq!(served.refused(reference, "").await, *code, "{name}");
        }
    });
}

#[test]
fn evil_peer_writes_to_a_file_that_was_handed_over() {
    as_root(async {
        let stage = Stage::start();
        let reference = stage.push(&stage.layout(), "model");
        let entries = [stage.entry("model", &reference, 5)];
        let served = stage.serve(&entries, None, &stage.server.authority).await;
        let job = served.land(&reference, "").await;
        assert_eq!(served.end(job).await.error, "");
        let mut file = served.open(job, 1).await;
        let size = file.metadata().unwrap().len();
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(size + 1).is_err() && file.set_len(0).is_err());
        assert!(file.set_permissions(std::fs::Permissions::from_mode(0o777)).is_err());
        let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        for options in [File::options().write(true), File::options().read(true).write(true).truncate(true)] {
            assert!(options.open(&name).is_err());
        }
        assert_eq!(file.metadata().unwrap().len(), size);
        assert_eq!(file.metadata().unwrap().mode() & 0o222, 0, "for reading alone");
        // Given up, it is wiped also for who holds it.
        served.release(job).await.unwrap();
        let mut left = Vec::new();
        let read = file.read_to_end(&mut left);
        assert!(read.is_err() || left.iter().all(|byte| *byte == 0), "wiped");
    });
}

/// Between the guest and the registry: connections that break off after some bytes.
async fn breaking(to: String, bytes: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let broken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&broken);
    tokio::spawn(async move {
        loop {
            let (inner, _) = listener.accept().await.unwrap();
            let (to, count) = (to.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                let outer = TcpStream::connect(to).await.unwrap();
                let ((mut from_guest, mut to_guest), (mut from_server, mut to_server)) =
                    (inner.into_split(), outer.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut from_guest, &mut to_server).await });
                let mut part = tokio::io::AsyncReadExt::take(&mut from_server, u64::try_from(bytes).unwrap());
                let copied = tokio::io::copy(&mut part, &mut to_guest).await.unwrap_or(0);
                if copied == u64::try_from(bytes).unwrap() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    (authority, broken)
}

#[test]
fn a_landing_goes_on_over_connections_that_break_off() {
    as_root(async {
        let stage = Stage::start();
        stage.push(&stage.layout(), "model");
        let (authority, broken) = breaking(stage.server.authority.clone(), 300_000).await;
        let reference = format!("{authority}/acme/model:v1");
        let served = stage.serve(&[stage.entry("model", &reference, 5)], None, &authority).await;
        let job = served.land(&reference, "").await;
        assert_eq!(served.end(job).await.error, "");
        assert!(broken.load(Ordering::Relaxed) > 3, "{broken:?}");
        let mut read = Vec::new();
        served.open(job, 0).await.read_to_end(&mut read).unwrap();
        assert!(read == stage.payloads[0].bytes());
    });
}

#[test]
fn evil_peer_releases_a_job_that_lands() {
    as_root(async {
        let stage = Stage::start();
        stage.push(&stage.layout(), "model");
        // A registry that answers slowly: each connection carries little, and waits.
        let (authority, broken) = breaking(stage.server.authority.clone(), 70_000).await;
        let reference = format!("{authority}/acme/model:v1");
        let served = stage.serve(&[stage.entry("model", &reference, 5)], None, &authority).await;
        let job = served.land(&reference, "").await;
        let start = Instant::now();
        while served.status(job).await.unwrap().bytes_done == 0 {
            assert!(start.elapsed() < Duration::from_secs(60));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        served.release(job).await.unwrap();
        assert!(served.status(job).await.unwrap_err().contains("CDH_JOB_UNKNOWN"));
        assert!(served.release(job).await.unwrap_err().contains("CDH_JOB_UNKNOWN"));
        // What was on its way ends: nobody asks the registry any more.
        let mut before = usize::MAX;
        while broken.load(Ordering::Relaxed) != before {
            before = broken.load(Ordering::Relaxed);
            assert!(start.elapsed() < Duration::from_secs(60), "it goes on");
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        assert!(before < 64, "{before}: it was landed whole");
    });
}
