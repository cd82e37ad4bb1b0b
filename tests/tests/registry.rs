//! Images that other tools made, from the registry that everybody runs: Debian's `docker-registry`, `skopeo`, `umoci`.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cdh::registry::store::{Store, StoreOptions};
use cdh::registry::{
    Credentials, Digest, Login, Platform, PushSource, Pushed, Reference, Registry, RegistryOptions,
    RegistryTrust, Sources, VerifiedManifest,
};
use cdh::worker::Executed;
use tests::args;
use tests::innerkeep::Innerkeep;
use tests::programs::{Programs, is_root};

/// bcrypt of `U*U`, a test vector of the algorithm.
const HTPASSWD: &str = "user:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n";

/// How the registry is spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plain,
    Tls,
    TlsLogin,
}

struct Server {
    child: Child,
    directory: tempfile::TempDir,
    authority: String,
    mode: Mode,
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process is ours.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A certificate for 127.0.0.1 and an authority that vouches for it.
fn certificates(directory: &Path) {
    let path = |name: &str| directory.join(name);
    std::fs::write(path("leaf.ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    let openssl = |arguments: &[&str]| {
        run(Command::new("openssl").args(arguments).current_dir(directory));
    };
    let new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha256"];
    let ca =
        ["req", "-x509", "-days", "2", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.crt"];
    openssl(&[&ca[..], &new].concat());
    let leaf = ["req", "-subj", "/CN=registry", "-keyout", "leaf.key", "-out", "leaf.csr"];
    openssl(&[&leaf[..], &new].concat());
    openssl(&[
        "x509",
        "-req",
        "-in",
        "leaf.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "leaf.ext",
        "-out",
        "leaf.crt",
    ]);
}

impl Server {
    fn start(mode: Mode) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let authority = format!("127.0.0.1:{port}");
        let root = directory.path();
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: {authority}\n  secret: test\n",
            root.join("data").display()
        );
        if mode != Mode::Plain {
            certificates(root);
            let (leaf, key) = (root.join("leaf.crt"), root.join("leaf.key"));
            write!(config, "  tls:\n    certificate: {}\n    key: {}\n", leaf.display(), key.display())
                .unwrap();
        }
        if mode == Mode::TlsLogin {
            std::fs::write(root.join("htpasswd"), HTPASSWD).unwrap();
            let path = root.join("htpasswd");
            write!(config, "auth:\n  htpasswd:\n    realm: test\n    path: {}\n", path.display()).unwrap();
        }
        std::fs::write(root.join("config.yml"), config).unwrap();
        let log = std::fs::File::create(root.join("log")).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", "config.yml"])
            .current_dir(root)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Self { child, directory, authority, mode };
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&server.authority).is_err() {
            let log = || std::fs::read_to_string(server.directory.path().join("log"));
            assert!(server.child.try_wait().unwrap().is_none() && Instant::now() < end, "{:?}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn reference(&self, rest: &str) -> Reference {
        Reference::parse(&format!("{}/{rest}", self.authority)).unwrap()
    }

    fn options(&self) -> RegistryOptions {
        let mut options = RegistryOptions::default();
        if self.mode == Mode::Plain {
            let mut sources = Sources::default();
            sources.insert_insecure(&self.authority).unwrap();
            options.sources = sources;
        } else {
            let ca = std::fs::read_to_string(self.directory.path().join("ca.crt")).unwrap();
            options.trust = Some(RegistryTrust::new(&[&ca]).unwrap());
        }
        if self.mode == Mode::TlsLogin {
            let mut credentials = Credentials::default();
            credentials.insert(&self.authority, Login::new("user", "U*U").unwrap()).unwrap();
            options.credentials = credentials;
        }
        // As root by another process, as it is in a guest; as anybody else by this one, as it is at a command line.
        options.workers = is_root().then(|| {
            let program = Programs::built().path("confidential-data-hub");
            Arc::new(Executed::of(program, Vec::new())) as _
        });
        options
    }

    fn skopeo(&self, from: &str, to: &str) {
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"]);
        if self.mode == Mode::TlsLogin {
            for (side, place) in [("src", from), ("dest", to)] {
                if place.starts_with("docker:") {
                    command.arg(format!("--{side}-creds=user:U*U"));
                }
            }
        }
        run(command.args([from, to]));
    }

    fn at(&self, rest: &str) -> String {
        format!("docker://{}/{rest}", self.authority)
    }
}

/// An image of two layers that `umoci` made, in an image layout, with the tag `v1`.
fn image(directory: &Path, content: &[u8]) -> PathBuf {
    let layout = directory.join("layout");
    let name = format!("{}:v1", layout.display());
    run(Command::new("umoci").args(["init", "--layout"]).arg(&layout));
    run(Command::new("umoci").args(["new", "--image", &name]));
    for (file, bytes) in [("first", b"a small file".as_slice()), ("second", content)] {
        let path = directory.join(file);
        std::fs::write(&path, bytes).unwrap();
        let inside = format!("/data/{file}");
        run(Command::new("umoci").args(["insert", "--rootless", "--image", &name]).arg(&path).arg(inside));
    }
    layout
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(120)
}

fn store() -> (tempfile::TempDir, Arc<Store>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(directory.path(), StoreOptions::default()).unwrap());
    (directory, store)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Digest of the manifest with this tag in a layout.
fn digest_in(layout: &Path, tag: &str) -> String {
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifests = index["manifests"].as_array().unwrap();
    let tagged = manifests.iter().find(|m| m["annotations"]["org.opencontainers.image.ref.name"] == tag);
    tagged.unwrap()["digest"].as_str().unwrap().to_owned()
}

async fn pull(registry: &Registry, reference: &Reference) -> VerifiedManifest {
    registry.pull_manifest(reference, &Platform::host(), soon()).await.unwrap()
}

/// By tag and digest, all layers, with the digests of the layout; and back through our own push.
fn round_trip(mode: Mode) {
    let server = Server::start(mode);
    let work = tempfile::tempdir().unwrap();
    let layout = image(work.path(), &noise(3 << 20));
    server.skopeo(&format!("oci:{}:v1", layout.display()), &server.at("acme/x:v1"));
    let expected = digest_in(&layout, "v1");
    block_on(async {
        let registry = Registry::new(server.options());
        let by_tag = pull(&registry, &server.reference("acme/x:v1")).await;
        assert_eq!(by_tag.digest.to_string(), expected);
        let by_digest = pull(&registry, &server.reference(&format!("acme/x@{expected}"))).await;
        assert_eq!(by_digest.bytes, by_tag.bytes);
        let (_directory, store) = store();
        let fetched = registry.fetch_blobs(&by_tag, &store, &(), soon()).await.unwrap();
        assert_eq!(fetched.received, by_tag.layer_bytes());
        for (layer, blob) in by_tag.layers().iter().zip(&fetched.layers) {
            let stored = layout.join("blobs/sha256").join(layer.digest.hex());
            assert_eq!(
                std::fs::read(stored).unwrap(),
                std::fs::read(store.root().join("blobs/sha256").join(blob.digest().hex())).unwrap()
            );
        }
        let range = 1_000..2_000;
        let last = by_tag.layers().last().unwrap();
        let part = registry.fetch_range_unverified(&by_tag, last, range, soon()).await.unwrap();
        let stored = std::fs::read(layout.join("blobs/sha256").join(last.digest.hex())).unwrap();
        assert_eq!(part, stored[1_000..2_000]);

        // Pushed by us, to another repository: what is there is mounted, the rest sent.
        let to = server.reference("other/y:v2");
        let pusher = Registry::new(RegistryOptions { workers: None, ..server.options() });
        let push = pusher.push(&to, &[server.reference("acme/x")]).unwrap();
        for (layer, blob) in by_tag.layers().iter().zip(&fetched.layers) {
            let file = PushSource::File { file: Arc::new(blob.file().try_clone().unwrap()), offset: 0 };
            let pushed = push.blob(&layer.digest, layer.size, &file, &|_| (), soon()).await.unwrap();
            assert_eq!(pushed, Pushed::Mounted);
        }
        let config = &by_tag.manifest.config;
        let bytes = PushSource::Bytes(by_tag.config.clone().into());
        let alone = pusher.push(&server.reference("alone/z"), &[]).unwrap();
        for push in [&push, &alone] {
            push.blob(&config.digest, config.size, &bytes, &|_| (), soon()).await.unwrap();
        }
        assert_eq!(
            alone.blob(&config.digest, config.size, &bytes, &|_| (), soon()).await.unwrap(),
            Pushed::Present
        );
        let file =
            PushSource::File { file: Arc::new(fetched.layers[1].file().try_clone().unwrap()), offset: 0 };
        let layer = &by_tag.layers()[1];
        assert_eq!(
            alone.blob(&layer.digest, layer.size, &file, &|_| (), soon()).await.unwrap(),
            Pushed::Sent
        );
        let media_type = &by_tag.manifest.media_type;
        push.manifest(&by_tag.bytes, media_type, to.tag(), soon()).await.unwrap();
    });
    let back = work.path().join("back");
    server.skopeo(&server.at("other/y:v2"), &format!("oci:{}:v2", back.display()));
    assert_eq!(digest_in(&back, "v2"), expected, "digests survive the round trip");
}

#[test]
fn images_of_skopeo_come_and_go_in_plain_http() {
    round_trip(Mode::Plain);
}

#[test]
fn images_of_skopeo_come_and_go_with_tls() {
    round_trip(Mode::Tls);
}

#[test]
fn images_of_skopeo_come_and_go_with_a_login() {
    round_trip(Mode::TlsLogin);
}

#[test]
fn evil_certificate_or_password_gets_nothing() {
    let server = Server::start(Mode::TlsLogin);
    let work = tempfile::tempdir().unwrap();
    let layout = image(work.path(), b"x");
    server.skopeo(&format!("oci:{}:v1", layout.display()), &server.at("acme/x:v1"));
    certificates(work.path());
    let stranger = std::fs::read_to_string(work.path().join("ca.crt")).unwrap();
    let mut wrong = Credentials::default();
    wrong.insert(&server.authority, Login::new("user", "wrong").unwrap()).unwrap();
    let mut plain = Sources::default();
    plain.insert_insecure(&server.authority).unwrap();
    block_on(async {
        for (options, code) in [
            (
                RegistryOptions {
                    trust: Some(RegistryTrust::new(&[&stranger]).unwrap()),
                    ..server.options()
                },
                "REGISTRY_TLS",
            ),
            (
                RegistryOptions { trust: Some(RegistryTrust::new(&[]).unwrap()), ..server.options() },
                "REGISTRY_TLS",
            ),
            (RegistryOptions { trust: None, ..server.options() }, "REGISTRY_CONFIG"),
            (RegistryOptions { credentials: wrong, ..server.options() }, "REGISTRY_DENIED"),
            (RegistryOptions { credentials: Credentials::default(), ..server.options() }, "REGISTRY_DENIED"),
            // It answers http on its port for https with a 400.
            (RegistryOptions { sources: plain, ..server.options() }, "REGISTRY_STATUS"),
        ] {
            let reference = server.reference("acme/x:v1");
            let error = Registry::new(options)
                .pull_manifest(&reference, &Platform::host(), soon())
                .await
                .unwrap_err();
            assert_eq!(error.code(), code, "{error}");
        }
        let registry = Registry::new(server.options());
        let absent = server.reference("acme/x:v9");
        let error = registry.pull_manifest(&absent, &Platform::host(), soon()).await.unwrap_err();
        assert_eq!(error.code(), "REGISTRY_MISSING");
    });
}

#[test]
fn a_cut_transfer_is_continued_by_another_client() {
    let server = Server::start(Mode::Plain);
    let work = tempfile::tempdir().unwrap();
    let layout = image(work.path(), &noise(24 << 20));
    server.skopeo(&format!("oci:{}:v1", layout.display()), &server.at("acme/x:v1"));
    let (directory, store) = store();
    let reference = server.reference("acme/x:v1");
    let manifest = block_on(async { pull(&Registry::new(server.options()), &reference).await });
    let big = manifest.layers().last().unwrap();
    // What a killed process leaves: a part, and not even a right one.
    let bytes = std::fs::read(layout.join("blobs/sha256").join(big.digest.hex())).unwrap();
    let part = directory.path().join(format!("partial/sha256-{}", big.digest.hex()));
    for (spoilt, received) in [(false, big.size - (10 << 20)), (true, 2 * big.size - (10 << 20))] {
        let mut begun = bytes[..10 << 20].to_vec();
        begun[7] ^= u8::from(spoilt);
        std::fs::write(&part, begun).unwrap();
        let others = manifest.layer_bytes() - big.size;
        let fetched = block_on(async {
            let registry = Registry::new(server.options());
            registry.fetch_blobs(&manifest, &store, &(), soon()).await.unwrap()
        });
        let others = if spoilt { 0 } else { others };
        assert_eq!(fetched.received, received + others);
        let blob = fetched.layers.last().unwrap();
        assert_eq!(*blob.digest(), Digest::of(&bytes));
        drop(fetched);
        std::fs::remove_file(directory.path().join("blobs/sha256").join(big.digest.hex())).unwrap();
    }
}

#[test]
fn an_index_of_skopeo_is_gone_through() {
    let server = Server::start(Mode::Plain);
    let work = tempfile::tempdir().unwrap();
    let layout = image(work.path(), b"x");
    let manifest = digest_in(&layout, "v1");
    let size = std::fs::metadata(layout.join("blobs/sha256").join(&manifest[7..])).unwrap().len();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"{kind}","digest":"{manifest}","size":{size},"platform":{{"os":"linux","architecture":"{}"}}}}]}}"#,
        Platform::host().architecture
    );
    let digest = Digest::of(index.as_bytes());
    std::fs::write(layout.join("blobs/sha256").join(digest.hex()), &index).unwrap();
    let descriptor = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{digest}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"all"}}}}]}}"#,
        index.len()
    );
    std::fs::write(layout.join("index.json"), descriptor).unwrap();
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--all", "--dest-tls-verify=false"]);
    run(command.arg(format!("oci:{}:all", layout.display())).arg(server.at("acme/x:all")));
    block_on(async {
        let pulled = pull(&Registry::new(server.options()), &server.reference("acme/x:all")).await;
        assert_eq!((pulled.index_digest, pulled.digest.to_string()), (Some(digest), manifest));
    });
}

/// `innerkeep push`, `pull` and `copy`: a signed artifact with its signature, and an image; digests stay.
#[test]
fn artifacts_travel_with_what_refers_to_them() {
    let server = Server::start(Mode::TlsLogin);
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name).display().to_string();
    let innerkeep = Innerkeep::new(&Programs::built(), work.path());
    std::fs::write(at("model.bin"), noise(5 << 20)).unwrap();
    innerkeep.run(&args!["key", "new", "--output", at("sealer")]);
    let sealed = innerkeep.run(&args![
        "seal",
        at("model.bin"),
        "--output",
        at("store:v1"),
        "--key-out",
        at("content.key"),
        "--family",
        "acme/ranker",
        "--counter",
        "3",
        "--environment",
        "production",
        "--sealer-key",
        at("sealer")
    ]);
    let auth = format!(r#"{{"auths":{{"{}":{{"username":"user","password":"U*U"}}}}}}"#, server.authority);
    std::fs::write(at("auth.json"), auth).unwrap();
    let ca = server.directory.path().join("ca.crt");
    let carry = |command: &str, from: &str, to: &str| {
        innerkeep.run(&args![command, from, to, "--registry-ca", &ca, "--registry-auth", at("auth.json")])
    };
    let first = format!("{}/acme/ranker:v1", server.authority);
    let second = format!("{}/other/ranker:v1", server.authority);
    let pushed = carry("push", &at("store:v1"), &first);
    assert_eq!(pushed["referrers"], 1, "the signature");
    assert_eq!(pushed["digest"], digest_in(&work.path().join("store"), "v1"));
    assert_eq!(carry("push", &at("store:v1"), &first)["bytes"], 0, "what is there is not sent again");
    let copied = carry("copy", &first, &second);
    assert_eq!(copied["digest"], pushed["digest"]);
    assert_eq!(copied["bytes"], 0, "blobs of the same registry are mounted");
    let pulled = carry("pull", &second, &at("back:v1"));
    assert_eq!((&pulled["digest"], &pulled["referrers"]), (&pushed["digest"], &pushed["referrers"]));
    // As a single file, there and back: the manifest is the same.
    let file = carry("pull", &second, &at("model.sealed"));
    assert_eq!(file["digest"], pushed["digest"]);
    let third = format!("{}/file/ranker:v1", server.authority);
    let from_file = carry("push", &at("model.sealed"), &third);
    assert_eq!((&from_file["digest"], &from_file["referrers"]), (&pushed["digest"], &pushed["referrers"]));
    // The same by `copy`, which tells a path from a name.
    let fourth = format!("{}/copied/ranker:v1", server.authority);
    assert_eq!(carry("copy", &at("model.sealed"), &fourth)["digest"], pushed["digest"]);
    assert_eq!(carry("copy", &fourth, &at("copied:v1"))["digest"], pushed["digest"]);
    let here = innerkeep.run(&args!["copy", at("copied:v1"), at("copied.sealed")]);
    assert_eq!(here["core"], sealed["core"]);
    assert_eq!(std::fs::read(at("copied.sealed")).unwrap(), std::fs::read(at("model.sealed")).unwrap());
    let said = innerkeep.attempt(&args!["copy", at("copied:v1"), at("copied.sealed")]);
    assert!(!said.code().is_empty(), "a file that is there is not written over");
    let verified = innerkeep.run(&args![
        "verify",
        at("back:v1"),
        "--sealer-key",
        at("sealer.pub"),
        "--family",
        "acme/ranker",
        "--min-counter",
        "3",
        "--verify-blob-digests"
    ]);
    assert_eq!(verified["core"], sealed["core"]);
    // And by the tool of others.
    server.skopeo(&server.at("other/ranker:v1"), &format!("oci:{}:v1", at("skopeo")));
    assert_eq!(pushed["digest"], digest_in(&work.path().join("skopeo"), "v1"));
    server.skopeo(&format!("oci:{}:v1", at("skopeo")), &server.at("third/ranker:v1"));
    let third = format!("{}/third/ranker@{}", server.authority, pushed["digest"].as_str().unwrap());
    carry("pull", &third, &at("third:v1"));
    let said = innerkeep.attempt(&args!["pull", &first, at("never:v1"), "--registry-ca", &ca]);
    assert_eq!(said.code(), "REGISTRY_DENIED");
    assert!(!work.path().join("never").exists());
    let said = innerkeep.attempt(&args!["pull", &first, at("never:v1")]);
    assert_eq!(said.code(), "REGISTRY_CONFIG");
}

/// Killed at many moments: what has a name is whole, the layout names only what it has, and the last pull continues.
#[test]
fn a_killed_pull_leaves_nothing_half() {
    let server = Server::start(Mode::Plain);
    let work = tempfile::tempdir().unwrap();
    let layout = image(work.path(), &noise(32 << 20));
    server.skopeo(&format!("oci:{}:v1", layout.display()), &server.at("acme/x:v1"));
    let innerkeep = Innerkeep::new(&Programs::built(), work.path());
    let from = format!("{}/acme/x:v1", server.authority);
    let back = work.path().join("back");
    let arguments = ["pull", &from, &format!("{}:v1", back.display()), "--insecure-plain-http"];
    let (mut killed, mut parts) = (0, 0);
    for turn in 0..25_u64 {
        let mut child =
            innerkeep.command().args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(5 + turn * 11));
        let ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        killed += usize::from(!ended);
        parts += std::fs::read_dir(back.join("partial")).map_or(0, Iterator::count);
        for entry in std::fs::read_dir(back.join("blobs/sha256")).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = format!("sha256:{}", path.file_name().unwrap().to_str().unwrap());
            // Small manifests are written beside their name, and renamed.
            assert_eq!(Digest::of(&std::fs::read(&path).unwrap()).to_string(), name);
        }
        if back.join("index.json").exists() {
            // Named, so whole: the last pull has nothing to fetch.
            assert_eq!(digest_in(&back, "v1"), digest_in(&layout, "v1"));
            break;
        }
        assert!(!ended, "it ended without an index");
    }
    assert!(killed > 0 && parts > 0, "{killed} killed, {parts} parts");
    let said =
        innerkeep.attempt(&args!["pull", &from, format!("{}:v1", back.display()), "--insecure-plain-http"]);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    assert_eq!(digest_in(&back, "v1"), digest_in(&layout, "v1"));
    assert!(!back.join("partial").exists());
}
