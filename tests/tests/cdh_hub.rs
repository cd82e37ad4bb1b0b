//! The data hub in guests on an emulated platform, against a key broker that verifies their evidence: who gets secrets, and who does not.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::args;
use tests::broker::KeyBroker;
use tests::innerkeep::run_to_end;
use tests::keyed::Keyed;
use tests::tee::{Guest, Kind, Platform};

const ALLOW: &str = "package policy\ndefault allow = true\n";
const SECRET: &[u8] = b"for the right guest";
const CREDENTIAL: &str = "[[credentials]]\nresource_uri = \"kbs:///a/b/c\"\n\
    path = \"/run/confidential-containers/cdh/kbs/secret\"\n";

/// A platform, and a broker that gives its resource to every guest that it verified.
struct Scene {
    keyed: Keyed,
    broker: KeyBroker,
}

/// A guest with a configuration of the hub.
struct Configured {
    guest: Guest,
    initdata: PathBuf,
    socket: PathBuf,
}

impl Scene {
    fn start(kind: Kind) -> Self {
        let keyed = Keyed::start(kind);
        keyed.presentation(&keyed.guest, "first");
        let policy = keyed.work.write("open.rego", ALLOW);
        let roots = keyed.platform.trust_roots();
        let arguments = args![
            "--insecure-trust-roots",
            roots,
            "--policy",
            &policy,
            "--collateral",
            &keyed.guest.collateral
        ];
        let broker = KeyBroker::start(&keyed.programs, &keyed.work, "broker", &arguments);
        broker.store("kbs:///a/b/c", SECRET);
        Self { keyed, broker }
    }

    /// The document of a hub that asks the broker; `more` is further configuration.
    fn document(&self, name: &str, more: &str) -> (String, PathBuf) {
        let socket = self.keyed.work.join(format!("{name}.sock"));
        let config = format!(
            "socket = \"unix://{}\"\n[kbc]\nname = \"cc_kbc\"\nurl = \"{}\"\n{more}",
            socket.display(),
            self.broker.url
        );
        let text =
            format!("version = \"0.1.0\"\nalgorithm = \"sha384\"\n[data]\n\"cdh.toml\" = '''\n{config}'''\n");
        (text.replace("sha384", self.algorithm()), socket)
    }

    fn algorithm(&self) -> &'static str {
        if self.keyed.platform.kind == Kind::Tdx { "sha384" } else { "sha256" }
    }

    fn guest(&self, platform: &Platform, name: &str, more: &str) -> Configured {
        let (text, socket) = self.document(name, more);
        let digest = platform.kind.initdata_digest(text.as_bytes());
        let launch = format!("initdata_digest = \"{digest}\"\n");
        let guest = platform.guest(&self.keyed.work, name, &launch, None);
        Configured { guest, initdata: self.keyed.work.write(format!("{name}.toml"), text), socket }
    }

    /// The code with which a hub does not start, and that it does not.
    #[track_caller]
    fn assert_refused(&self, guest: &Guest, initdata: Option<&Path>, socket: &Path, code: &str) {
        let mut command =
            guest.command(&self.keyed.programs, &self.keyed.work.join("tmp"), "confidential-data-hub");
        command.arg("--json").arg("--insecure-tee-root").arg(&guest.root);
        if let Some(initdata) = initdata {
            command.arg("-t").arg(initdata);
        }
        let said = run_to_end(&mut command);
        assert_ne!(said.status, Some(0), "{said:?}");
        let line = said.stderr.lines().find(|line| line.starts_with("{\"error\"")).unwrap_or_default();
        assert!(!line.is_empty(), "{said:?}");
        let error: Value = serde_json::from_str(line).unwrap();
        assert_eq!(error["error"]["code"], code, "{said:?}");
        assert!(!socket.exists(), "nothing is served");
        assert!(!said.stderr.contains("for the right guest"));
    }
}

/// A hub in its guest; dropped, it is told to end.
struct Hub {
    process: Child,
    socket: PathBuf,
}

impl Hub {
    fn start(scene: &Scene, configured: &Configured) -> Self {
        let (work, guest) = (&scene.keyed.work, &configured.guest);
        let mut command = guest.command(&scene.keyed.programs, &work.join("tmp"), "confidential-data-hub");
        command.arg("--insecure-tee-root").arg(&guest.root).arg("-t").arg(&configured.initdata);
        let log = work.join("hub.log");
        command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        let hub = Self { process: command.spawn().unwrap(), socket: configured.socket.clone() };
        let start = Instant::now();
        while UnixStream::connect(&hub.socket).is_err() {
            let said = std::fs::read_to_string(&log).unwrap();
            assert!(start.elapsed() < Duration::from_secs(60), "the hub does not listen: {said}");
            std::thread::sleep(Duration::from_millis(5));
        }
        hub
    }

    /// One call over ttrpc, written from the protocol: frame of 10 bytes, then messages in protobuf. The whole answer.
    fn call(&self, service: &str, method: &str, payload: &[u8]) -> Vec<u8> {
        let mut request = field(1, service.as_bytes());
        request.extend(field(2, method.as_bytes()));
        request.extend(field(3, payload));
        let mut frame = u32::try_from(request.len()).unwrap().to_be_bytes().to_vec();
        frame.extend([0, 0, 0, 1, 1, 0]);
        frame.extend(request);
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(&frame).unwrap();
        let mut head = [0; 10];
        stream.read_exact(&mut head).unwrap();
        let [a, b, c, d, ..] = head;
        let mut answer = vec![0; usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap()];
        stream.read_exact(&mut answer).unwrap();
        answer
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let process = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}

/// A field of protobuf with bytes; fewer than 16,384.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut length = bytes.len();
    let mut field = vec![number << 3 | 2];
    while length >= 0x80 {
        field.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    field.push(u8::try_from(length).unwrap());
    field.extend(bytes);
    field
}

fn contains(answer: &[u8], text: &str) -> bool {
    answer.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A program in other namespaces than the hub, as this test is: whatever its user, and whatever it asks for.
#[test]
fn evil_container_asks_the_hub_over_its_socket() {
    for kind in Kind::ALL {
        let scene = Scene::start(kind);
        let configured = scene.guest(&scene.keyed.platform, "hub", "");
        let hub = Hub::start(&scene, &configured);
        let before = scene.broker.log();
        let calls: [(&str, &str, &[u8]); 6] = [
            ("api.GetResourceService", "GetResource", b"kbs:///a/b/c"),
            ("api.SealedSecretService", "UnsealSecret", b"sealed.a.b.c"),
            ("keyprovider.KeyProviderService", "UnWrapKey", b"{}"),
            ("api.ImagePullService", "PullImage", b"registry.example/a:1"),
            ("api.SecureMountService", "SecureMount", b"block-device"),
            ("innerkeep.ArtifactService", "Land", b"registry.example/a:1"),
        ];
        for (service, method, argument) in calls {
            let answer = hub.call(service, method, &field(1, argument));
            let shown = String::from_utf8_lossy(&answer).into_owned();
            assert!(contains(&answer, "CDH_PEER_DENIED"), "{method}: {shown}");
            assert!(!contains(&answer, "for the right guest"), "{method}: {shown}");
        }
        assert_eq!(scene.broker.log(), before, "the broker was asked");
    }
}

#[test]
fn evil_host_withholds_or_swaps_the_hubs_initdata() {
    for kind in Kind::ALL {
        let scene = Scene::start(kind);
        let Configured { guest, socket, .. } = scene.guest(&scene.keyed.platform, "hub", CREDENTIAL);
        scene.assert_refused(&guest, None, &socket, "ATTEST_INITDATA_WITHHELD");
        let (other, _) = scene.document("hub", "skip_sealed_secret_verification = true\n");
        let other = scene.keyed.work.write("other.toml", other);
        scene.assert_refused(&guest, Some(&other), &socket, "ATTEST_INITDATA_MISMATCH");
        assert!(!guest.root.join("run/confidential-containers").exists(), "no credential was written");
    }
}

#[test]
fn evil_host_runs_the_hub_on_a_platform_that_the_broker_does_not_know() {
    for kind in Kind::ALL {
        let scene = Scene::start(kind);
        let good = scene.guest(&scene.keyed.platform, "good", CREDENTIAL);
        drop(Hub::start(&scene, &good));
        let credential = "run/confidential-containers/cdh/kbs/secret";
        assert_eq!(std::fs::read(good.guest.root.join(credential)).unwrap(), SECRET);
        let (programs, work) = (&scene.keyed.programs, &scene.keyed.work);
        let foreign = match kind {
            // Only the RSA keys of SNP are those of all such platforms.
            Kind::Tdx => Platform::with_keys_of_vectors(programs, work, "foreign", kind),
            Kind::Snp => Platform::create(programs, work, "foreign", kind),
        };
        let Configured { guest, initdata, socket } = scene.guest(&foreign, "stranger", CREDENTIAL);
        scene.assert_refused(&guest, Some(&initdata), &socket, "KBS_REFUSED_ATTESTATION");
        assert!(!guest.root.join(credential).exists());
    }
}
