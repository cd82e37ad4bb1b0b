//! A registry, signers, images of other tools, and a puller with its bundles.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use attestation_agent::kbs::ResourceUri;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cdh::config::HubConfig;
use cdh::hub_error::HubError;
use cdh::image::policy::Cause;
use cdh::image::pull::{ImageEvent, Measure, Pulled, Puller, PullerOptions};
use cdh::modes::Modes;
use cdh::plaintext::Plaintext;
use cdh::registry::{Digest, PushSource, Reference, Registry, RegistryOptions, Sources};
use cdh::resources::ResourceSource;
use cdh::service::Images;
use cdh::worker::{Executed, Workers};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::programs::Programs;
use tests::registry::RegistryServer;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    output.stdout
}

pub fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(120)
}

/// Debian's registry in plain http, with its files in a directory of its own.
pub struct Server {
    registry: RegistryServer,
    pub directory: TempDir,
    pub authority: String,
}

impl Server {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let registry = RegistryServer::start(directory.path());
        Self { authority: registry.authority.clone(), registry, directory }
    }

    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.authority)
    }

    pub fn skopeo(&self, layout: &Path, rest: &str) {
        self.registry.push(layout, "v1", rest);
    }

    /// Puts a manifest with its blobs there, the bytes that are given.
    pub async fn put(&self, rest: &str, manifest: &[u8], blobs: &[Vec<u8>]) {
        let mut sources = Sources::default();
        sources.insert_insecure(&self.authority).unwrap();
        let registry = Registry::new(RegistryOptions { sources, ..RegistryOptions::default() });
        let to = Reference::parse(&self.name(rest)).unwrap();
        let push = registry.push(&to, &[]).unwrap();
        for blob in blobs {
            let source = PushSource::Bytes(blob.clone().into());
            let size = u64::try_from(blob.len()).unwrap();
            push.blob(&Digest::of(blob), size, &source, &|_| (), soon()).await.unwrap();
        }
        push.manifest(manifest, MANIFEST, to.tag(), soon()).await.unwrap();
    }

    /// As `cosign sign --key` does.
    pub async fn sign(&self, rest: &str, manifest: &str, key: &Key, identity: &str) {
        let payload = payload("cosign container image signature", manifest, identity);
        let signature = STANDARD.encode(key.sign(&payload));
        let config = b"{}".to_vec();
        let mut layer = descriptor("application/vnd.dev.cosign.simplesigning.v1+json", &payload);
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
        let config_descriptor = descriptor("application/vnd.oci.image.config.v1+json", &config);
        let body = manifest_of(&config_descriptor, &[layer], &json!({}));
        let tag = format!("{rest}:{}.sig", manifest.replace(':', "-"));
        self.put(&tag, &body, &[config, payload]).await;
    }
}

pub fn payload(kind: &str, manifest: &str, identity: &str) -> Vec<u8> {
    let critical = json!({
        "identity": {"docker-reference": identity},
        "image": {"docker-manifest-digest": manifest},
        "type": kind,
    });
    json!({"critical": critical, "optional": null}).to_string().into_bytes()
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

pub fn manifest_of(config: &Value, layers: &[Value], annotations: &Value) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, "annotations": annotations})
        .to_string()
        .into_bytes()
}

/// A key pair of openssl.
pub struct Key(TempDir);

impl Key {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        run(Command::new("openssl").current_dir(directory.path()).args([
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
            "key.pem",
        ]));
        Self(directory)
    }

    pub fn public(&self) -> String {
        let arguments = ["pkey", "-in", "key.pem", "-pubout"];
        STANDARD.encode(run(Command::new("openssl").current_dir(self.0.path()).args(arguments)))
    }

    fn sign(&self, payload: &[u8]) -> Vec<u8> {
        std::fs::write(self.0.path().join("payload"), payload).unwrap();
        let arguments = ["dgst", "-sha256", "-sign", "key.pem", "payload"];
        run(Command::new("openssl").current_dir(self.0.path()).args(arguments))
    }
}

/// A layout of `umoci`'s, with a tree that has `/usr`, a small file and one of this content.
pub struct Image {
    pub directory: TempDir,
    pub manifest: Value,
    pub digest: String,
}

impl Image {
    pub fn new(content: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = directory.path().join("layout");
        let name = format!("{}:v1", layout.display());
        run(Command::new("umoci").args(["init", "--layout"]).arg(&layout));
        run(Command::new("umoci").args(["new", "--image", &name]));
        run(Command::new("umoci").args(["config", "--image", &name]).args([
            "--config.cmd",
            "/usr/second",
            "--config.workingdir",
            "/usr",
        ]));
        // Not `insert`: archives of this version of it have no end.
        let bundle = directory.path().join("unpacked");
        run(Command::new("umoci").args(["unpack", "--image", &name]).arg(&bundle));
        let tree = bundle.join("rootfs/usr");
        std::fs::create_dir(&tree).unwrap();
        for (file, bytes) in [("first", b"a small file".as_slice()), ("second", content)] {
            std::fs::write(tree.join(file), bytes).unwrap();
            run(Command::new("umoci").args(["repack", "--refresh-bundle", "--image", &name]).arg(&bundle));
        }
        let index: Value =
            serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
        let mut image = Self { directory, manifest: Value::Null, digest };
        image.manifest = serde_json::from_slice(&image.blob(&json!({"digest": image.digest}))).unwrap();
        image
    }

    pub fn layout(&self) -> PathBuf {
        self.directory.path().join("layout")
    }

    pub fn blob(&self, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        std::fs::read(self.layout().join("blobs/sha256").join(digest)).unwrap()
    }

    /// The same image with annotations: its manifest, and all blobs.
    pub fn annotated(&self, annotations: &Value) -> (Vec<u8>, Vec<Vec<u8>>) {
        let layers = self.manifest["layers"].as_array().unwrap();
        let body = manifest_of(&self.manifest["config"], layers, annotations);
        let blobs = layers.iter().chain([&self.manifest["config"]]).map(|blob| self.blob(blob));
        (body, blobs.collect())
    }
}

/// Resources as files of a directory, read each time.
pub struct Directory(pub PathBuf);

#[async_trait]
impl ResourceSource for Directory {
    async fn get(&self, uri: &ResourceUri, _: tokio::time::Instant) -> Result<Arc<Plaintext>, HubError> {
        let uri = uri.to_string();
        let path = self.0.join(uri.strip_prefix("kbs:///").unwrap());
        let mut bytes = std::fs::read(path).map_err(|_| HubError::OfflineMissing { uri })?;
        Ok(Arc::new(Plaintext::take_from(&mut bytes)?))
    }
}

/// Events, or a register that is broken.
#[derive(Default)]
pub struct Events {
    pub seen: Mutex<Vec<String>>,
    pub broken: bool,
}

#[async_trait]
impl Measure for Events {
    async fn image(&self, event: &ImageEvent) -> Result<(), Cause> {
        if self.broken {
            return Err("a register that does not move".into());
        }
        self.seen.lock().unwrap().push(event.content().to_owned());
        Ok(())
    }
}

/// A guest: its configuration, resources, events and bundles.
pub struct Guest {
    pub directory: TempDir,
    pub puller: Arc<Puller>,
    pub events: Arc<Events>,
}

pub const POLICY: &str = "kbs:///default/policy/image";

impl Guest {
    /// With this policy, and more of `[image]`.
    pub fn new(server: &Server, policy: &Value, more: &str) -> Self {
        Self::with(server, policy, more, false, PullerOptions::default())
    }

    pub fn with(server: &Server, policy: &Value, more: &str, broken: bool, options: PullerOptions) -> Self {
        Self::changed(server, policy, more, broken, options, |puller| puller)
    }

    /// With a puller that somebody changed.
    pub fn changed(
        server: &Server,
        policy: &Value,
        more: &str,
        broken: bool,
        options: PullerOptions,
        change: impl FnOnce(Puller) -> Puller,
    ) -> Self {
        Self::unpacked_by(server, policy, (more, broken), options, workers(), change)
    }

    /// With somebody else to unpack.
    pub fn unpacked_by(
        server: &Server,
        policy: &Value,
        (more, broken): (&str, bool),
        options: PullerOptions,
        workers: Arc<dyn Workers>,
        change: impl FnOnce(Puller) -> Puller,
    ) -> Self {
        Self::of(&server.authority, policy, (more, broken), options, workers, change)
    }

    /// Of a registry that is nobody's, or goes by another name.
    pub fn of(
        authority: &str,
        policy: &Value,
        (more, broken): (&str, bool),
        options: PullerOptions,
        workers: Arc<dyn Workers>,
        change: impl FnOnce(Puller) -> Puller,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for name in ["resources/default/policy", "resources/default/key", "bundle"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        let uri = if policy.is_null() {
            String::new()
        } else {
            format!("image_security_policy_uri = \"{POLICY}\"\n")
        };
        let text = format!(
            "[image]\nwork_dir = \"{}\"\n{uri}{more}\n[[image.registry_config.registry]]\n\
             location = \"{}\"\ninsecure = true\n",
            root.join("work").display(),
            authority
        );
        let config = HubConfig::parse(&text).unwrap();
        let resources = Arc::new(Directory(root.join("resources")));
        let events = Arc::new(Events { broken, ..Events::default() });
        let measure = Arc::clone(&events) as _;
        let puller = Puller::new(config.image, resources, Modes::none(), measure, workers, options);
        let guest = Self { puller: Arc::new(change(puller)), events, directory };
        guest.set_policy(policy);
        guest
    }

    pub fn set_policy(&self, policy: &Value) {
        self.set("policy/image", policy.to_string().as_bytes());
    }

    pub fn set(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.directory.path().join("resources/default").join(name), bytes).unwrap();
    }

    pub fn bundle(&self) -> PathBuf {
        self.directory.path().join("bundle")
    }

    pub async fn pull(&self, image: &str) -> Result<Pulled, cdh::Error> {
        self.puller.pull(image, soon(), &()).await
    }

    /// Refused with this code, here and through the service's door, and nothing of it is left or measured.
    pub async fn refused(&self, image: &str) -> &'static str {
        let measured = self.events.seen.lock().unwrap().len();
        let error = self.pull(image).await.expect_err("the image is refused");
        self.assert_clean();
        let again = Images::pull(&*self.puller, image, &self.bundle(), soon()).await;
        assert_eq!(again.expect_err("the image is refused").code(), error.code());
        assert_eq!(self.events.seen.lock().unwrap().len(), measured, "it is not measured");
        self.assert_clean();
        error.code()
    }

    /// No mount below this guest's directory, and nothing in the bundle.
    pub fn assert_clean(&self) {
        assert_eq!(std::fs::read_dir(self.bundle()).unwrap().count(), 0, "the bundle is empty");
        assert!(!self.is_mounted(), "nothing is mounted");
    }

    pub fn is_clean(&self) -> bool {
        std::fs::read_dir(self.bundle()).unwrap().count() == 0 && !self.is_mounted()
    }

    fn is_mounted(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.contains(self.directory.path().to_str().unwrap())
    }
}

/// Children of the program that ships.
pub fn workers() -> Arc<dyn Workers> {
    Arc::new(Executed::of(Programs::built().path("confidential-data-hub"), Vec::new()))
}

pub fn reject() -> Value {
    json!({"default": [{"type": "reject"}], "transports": {}})
}

/// Everything of the server has to be signed by this key, for any tag of its repository.
pub fn cosigned(key: &Key) -> Value {
    json!({"default": [{"type": "sigstoreSigned", "keyData": key.public(),
        "signedIdentity": {"type": "matchRepository"}}], "transports": {}})
}

pub fn pins(entries: &[(&str, cdh::composefs::pin::Pin)]) -> PullerOptions {
    let pins: BTreeMap<_, _> = entries.iter().map(|(name, pin)| ((*name).to_owned(), *pin)).collect();
    PullerOptions { pins, ..PullerOptions::default() }
}
