//! A registry of the host (Debian's `docker-registry`), with images that `umoci` and `skopeo` made and a key of `openssl` signed, as cosign does.

use super::super::actors::Innerkeep;
use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use xtask::vm::{Tools, VerityRoot};

/// The host, as QEMU's network shows it to the guest.
pub const HOST: &str = "10.0.2.2";
/// The guest's card, and its address.
pub const HARDWARE: &str = "52:54:00:00:00:07";
pub const ADDRESS: &str = "10.0.2.15";
/// The repository of the images that anybody can read.
const REPOSITORY: &str = "acme/server";
/// That of the image whose layers are sealed.
const SEALED: &str = "acme/layers";
/// Packages of Debian.
const PROGRAMS: [(&str, &str); 4] = [
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
    ("openssl", "openssl"),
];
/// Until the registry listens.
const PATIENCE: Duration = Duration::from_secs(20);

/// The registry and what is in it; dropped, it ends.
pub struct Images {
    registry: Child,
    authority: String,
    /// Digest of the manifest of the signed image.
    pub digest: String,
    public: String,
    other: PathBuf,
    directory: PathBuf,
    key: PathBuf,
}

impl Drop for Images {
    fn drop(&mut self) {
        // The process is ours.
        let _ = self.registry.kill();
        let _ = self.registry.wait();
    }
}

impl Images {
    /// Starts the registry and puts a signed image there.
    pub fn prepare(tools: &Tools, work: &Path) -> anyhow::Result<Self> {
        for (program, package) in PROGRAMS {
            let found =
                Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            ensure!(found.is_ok(), "{program} is not there (package {package})");
        }
        let directory = work.join("registry");
        std::fs::create_dir_all(&directory).context("make the registry's directory")?;
        let (registry, authority) = start(&directory)?;
        let empty = (String::new(), String::new(), PathBuf::new());
        let (digest, public, other) = empty;
        let (key, at) = (directory.join("key.pem"), directory.clone());
        let mut images = Self { registry, authority, digest, public, other, directory: at, key: key.clone() };
        images.wait()?;
        let (layout, digest) = image(tools, &directory, "signed")?;
        (images.other, _) = image(tools, &directory, "other")?;
        images.digest = digest;
        images.put(&layout, REPOSITORY, "v1")?;
        let (tampered, tampered_digest) = image(tools, &directory, "tampered")?;
        images.put(&tampered, REPOSITORY, "tampered")?;
        images.put(&images.other, REPOSITORY, "unsigned")?;
        run(Command::new("openssl")
            .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
            .arg(&key))?;
        images.public =
            STANDARD.encode(run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&key))?);
        images.sign(REPOSITORY, &images.digest)?;
        images.sign(REPOSITORY, &tampered_digest)?;
        images.tamper(&tampered, &tampered_digest)?;
        Ok(images)
    }

    /// Turns a bit of the last layer where the registry stores it.
    fn tamper(&self, layout: &Path, digest: &str) -> anyhow::Result<()> {
        let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
        let manifest =
            std::fs::read(layout.join("blobs/sha256").join(hex(digest))).context("read a manifest")?;
        let manifest: Value = serde_json::from_slice(&manifest).context("the manifest of an image")?;
        let layers = manifest["layers"].as_array().context("layers")?;
        let layer = layers.last().and_then(|layer| layer["digest"].as_str()).map(hex).context("a layer")?;
        let blobs = self.directory.join("data/docker/registry/v2/blobs/sha256");
        let blob = blobs.join(layer.get(..2).unwrap_or_default()).join(&layer).join("data");
        let mut bytes = std::fs::read(&blob).context("read a stored layer")?;
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 1;
        }
        std::fs::write(&blob, bytes).context("change a stored layer")
    }

    /// The same repository, another tag.
    pub fn tagged(&self, tag: &str) -> String {
        format!("{}:{tag}", self.repository())
    }

    /// The name by which the guest asks for the image.
    pub fn name(&self) -> String {
        self.tagged("v1")
    }

    /// The image whose layers are sealed, as the guest asks for it.
    pub fn sealed(&self) -> String {
        format!("{}/{SEALED}:v1", self.seen())
    }

    /// Another image, to be sealed: nobody has it in the registry.
    pub fn to_seal(&self, tools: &Tools) -> anyhow::Result<String> {
        let (layout, _) = image(tools, &self.directory, "layers")?;
        Ok(format!("{}:v1", layout.display()))
    }

    /// Pushes the image with sealed layers, its grants among them, and signs it.
    pub fn push_sealed(&self, innerkeep: &Innerkeep, layout: &Path) -> anyhow::Result<()> {
        let to = format!("{}/{SEALED}:v1", self.authority);
        let arguments: [&OsStr; 4] =
            ["push".as_ref(), layout.as_os_str(), to.as_ref(), "--insecure-plain-http".as_ref()];
        let pushed = innerkeep.run(&arguments)?;
        self.sign(SEALED, pushed["digest"].as_str().context("what was pushed")?)
    }

    /// `cdh.toml`: whose images the guest pulls, and from where.
    pub fn config(&self) -> String {
        let policy = json!({"default": [{"type": "sigstoreSigned", "keyData": self.public,
            "signedIdentity": {"type": "matchRepository"}}], "transports": {}});
        format!(
            "[image]\nimage_security_policy = '{policy}'\n\n[[image.registry_config.registry]]\nlocation = \"{}\"\ninsecure = true\n",
            self.seen()
        )
    }

    /// Another image under the same tag, which nobody signed.
    pub fn move_tag(&self) -> anyhow::Result<()> {
        self.put(&self.other, REPOSITORY, "v1")
    }

    fn seen(&self) -> String {
        format!("{HOST}:{}", self.authority.rsplit(':').next().unwrap_or_default())
    }

    fn repository(&self) -> String {
        format!("{}/{REPOSITORY}", self.seen())
    }

    fn put(&self, layout: &Path, repository: &str, tag: &str) -> anyhow::Result<()> {
        let from = format!("oci:{}:v1", layout.display());
        let to = format!("docker://{}/{repository}:{tag}", self.authority);
        let mut skopeo = Command::new("skopeo");
        run(skopeo.args(["--insecure-policy", "copy", "--dest-tls-verify=false", &from, &to])).map(drop)
    }

    /// As `cosign sign --key` does: an image beside the image, whose layer is what was signed.
    fn sign(&self, repository: &str, digest: &str) -> anyhow::Result<()> {
        let (directory, key) = (&self.directory, &self.key);
        let payload = json!({"critical": {
            "identity": {"docker-reference": format!("{}/{repository}", self.seen())},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        }, "optional": null})
        .to_string();
        let file = directory.join("payload");
        std::fs::write(&file, &payload).context("write what is signed")?;
        let signature = run(Command::new("openssl").args(["dgst", "-sha256", "-sign"]).arg(key).arg(&file))?;
        let layout = directory.join(format!("{}.signature.oci", digest.trim_start_matches("sha256:")));
        let blobs = layout.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).context("make a layout")?;
        let blob = |kind: &str, bytes: &[u8]| -> anyhow::Result<Value> {
            let digest = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            std::fs::write(blobs.join(&digest), bytes).context("write a blob")?;
            Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()}))
        };
        let config = blob("application/vnd.oci.image.config.v1+json", b"{}")?;
        let mut layer = blob("application/vnd.dev.cosign.simplesigning.v1+json", payload.as_bytes())?;
        let annotations = json!({"dev.cosignproject.cosign/signature": STANDARD.encode(signature)});
        if let Some(layer) = layer.as_object_mut() {
            layer.insert("annotations".to_owned(), annotations);
        }
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
        let mut manifest = blob(kind, manifest.to_string().as_bytes())?;
        if let Some(manifest) = manifest.as_object_mut() {
            let name = json!({"org.opencontainers.image.ref.name": "v1"});
            manifest.insert("annotations".to_owned(), name);
        }
        let index = json!({"schemaVersion": 2, "manifests": [manifest]}).to_string();
        std::fs::write(layout.join("index.json"), index).context("write an index")?;
        std::fs::write(layout.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}")
            .context("write a layout")?;
        self.put(&layout, repository, &format!("{}.sig", digest.replace(':', "-")))
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(&self.authority).is_err() {
            ensure!(
                self.registry.try_wait()?.is_none() && Instant::now() < end,
                "the registry does not listen"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

fn start(directory: &Path) -> anyhow::Result<(Child, String)> {
    let authority = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.to_string();
    let config = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {authority}\n  secret: demo\n",
        directory.join("data").display()
    );
    std::fs::write(directory.join("config.yml"), config).context("write the registry's configuration")?;
    let log = std::fs::File::create(directory.join("log")).context("make the registry's log")?;
    let mut registry = Command::new("docker-registry");
    registry.args(["serve", "config.yml"]).current_dir(directory).env_clear().stdin(Stdio::null());
    let registry = registry.stdout(log.try_clone()?).stderr(log).spawn().context("start docker-registry")?;
    Ok((registry, authority))
}

/// An image with busybox and a mark; its layout and the digest of its manifest.
fn image(tools: &Tools, directory: &Path, name: &str) -> anyhow::Result<(PathBuf, String)> {
    let (layout, bundle) = (directory.join(format!("{name}.oci")), directory.join(format!("{name}.tree")));
    let tagged = format!("{}:v1", layout.display());
    let umoci =
        |words: &[&str], last: Option<&Path>| run(Command::new("umoci").args(words).args(last)).map(drop);
    umoci(&["init", "--layout"], Some(&layout))?;
    umoci(&["new", "--image", &tagged], None)?;
    umoci(&["unpack", "--image", &tagged], Some(&bundle))?;
    let root = bundle.join("rootfs");
    VerityRoot::populate(tools, &root, &[super::pod::PLACE, "/usr"])?;
    std::fs::write(root.join("mark"), name).context("mark an image")?;
    umoci(&["repack", "--image", &tagged], Some(&bundle))?;
    let index = std::fs::read(layout.join("index.json")).context("read an index")?;
    let index: Value = serde_json::from_slice(&index).context("the index of an image")?;
    let digest = index.pointer("/manifests/0/digest").and_then(Value::as_str).context("a digest")?;
    Ok((layout, digest.to_owned()))
}

fn run(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}
