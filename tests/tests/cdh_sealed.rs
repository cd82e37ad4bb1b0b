//! Images whose layers are sealed: `innerkeep seal --image`, Debian's `docker-registry`, a chip, a mounted root. Needs root, EROFS, overlays and
//! loop devices.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[expect(dead_code, reason = "more than this test needs")]
#[path = "cdh_pull/fixture.rs"]
mod fixture;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use attestation_agent::TeeRoot;
use cdh::artifact::{Chips, Guest as Machine, Opener, Shared};
use cdh::config::SealedImage;
use cdh::image::pull::PullerOptions;
use chip_client::address::DeviceAddress;
use chip_client::chain::TrustRoot;
use initdata::{InsecureMode, Origin, Sha256Digest, Tag};
use protected_memory::landing::{TeePolicy, TeeState};
use serde_json::{Value, json};
use tests::args;
use tests::broker::KeyBroker;
use tests::layout::Layout;
use tests::programs::as_root;
use tests::scene::{Artifact, ENVIRONMENT, FAMILY, Scene, swap_is_on};

use fixture::{Guest, Image, Key, Server, cosigned, run};

const IMAGE: &str = "acme/sealed";
const CORE: &str = "vnd.innerkeep.core.v1";

/// A registry, a chip, a sealer.
struct Stage {
    server: Server,
    scene: Scene,
}

/// An image with sealed layers, in a layout.
struct SealedLayout {
    layout: Layout,
    /// Digest of the manifest that it had before.
    manifest: String,
    sealer: Sha256Digest,
    core: Sha256Digest,
}

impl Stage {
    fn start() -> Self {
        Self { server: Server::start(), scene: Scene::start() }
    }

    /// Sealed, and granted to the chip for landing by this CPU.
    fn seal(&self, name: &str, image: &Image, counter: u64, sealer: &Path) -> SealedLayout {
        self.seal_for("key-release", name, image, counter, sealer)
    }

    fn seal_for(&self, path: &str, name: &str, image: &Image, counter: u64, sealer: &Path) -> SealedLayout {
        let from = format!("{}:v1", image.layout().display());
        let (reference, key) = (self.scene.work.join(name), self.scene.work.join(format!("{name}.key")));
        let report = self.scene.innerkeep.run(&args![
            "seal",
            "--image",
            from,
            "--output",
            format!("{}:v1", reference.display()),
            "--key-out",
            &key,
            "--family",
            FAMILY,
            "--counter",
            counter.to_string(),
            "--environment",
            ENVIRONMENT,
            "--sealer-key",
            sealer,
            "--segment-size",
            "65536"
        ]);
        let core = report["core"].as_str().unwrap().to_owned();
        let artifact =
            Artifact { reference: reference.clone(), key, core: core.clone(), report, needles: Vec::new() };
        let policy = self.scene.policy(&format!("{name}.toml"), ENVIRONMENT, path, 5);
        self.scene.grant(&artifact, &policy);
        let layout = Layout::at(&reference);
        let manifest = outer(&layout);
        let sealed: Value = layout.json(manifest["layers"].as_array().unwrap().last().unwrap());
        SealedLayout {
            manifest: artifact.report["manifest"].as_str().unwrap().to_owned(),
            sealer: digest(sealed["parameters"]["sealer"].as_str().unwrap()),
            core: digest(&core),
            layout,
        }
    }

    /// Pushes a layout to a tag; its name, and the digest of its manifest.
    fn push(&self, layout: &Layout, tag: &str) -> (String, String) {
        let name = self.server.name(&format!("{IMAGE}:{tag}"));
        let report = self.scene.innerkeep.run(&args!["push", layout.path(), &name, "--insecure-plain-http"]);
        (name, report["digest"].as_str().unwrap().to_owned())
    }

    /// A guest at the chip, with these entries.
    fn guest(&self, policy: &Value, images: Vec<SealedImage>) -> Guest {
        let root = TrustRoot::from_trusted(&std::fs::read(&self.scene.root).unwrap()).unwrap();
        let chip = DeviceAddress::Socket(self.scene.chip.socket.clone());
        let mut insecure = BTreeSet::from([InsecureMode::NoEvidence, InsecureMode::EmulatedDma]);
        if swap_is_on() {
            insecure.insert(InsecureMode::Swap);
        }
        let opener = Opener {
            guest: Machine {
                tee: TeeState::None,
                attester: None,
                collateral: None,
                bound: None,
                root: TeeRoot::system(),
            },
            chips: Some(Chips::these(root, vec![chip])),
            broker: None,
            insecure,
            tee: TeePolicy::InsecureNoTee,
            shared: Shared::default(),
        };
        let options = PullerOptions::default();
        Guest::changed(&self.server, policy, "", false, options, |puller| {
            puller.opening(Arc::new(opener), images)
        })
    }

    fn entry(&self, origin: Origin) -> SealedImage {
        let (image, environment) = (self.server.name(IMAGE), Tag::parse(ENVIRONMENT).unwrap());
        SealedImage { image, environment, origin, manifest: None }
    }

    fn by_sealer(&self, sealed: &SealedLayout, min_counter: u64) -> SealedImage {
        let family = Tag::parse(FAMILY).unwrap();
        self.entry(Origin::Sealer { key: sealed.sealer, family, min_counter })
    }

    /// Refused, with this entry, under a policy that lets everything through.
    async fn refused(&self, name: &str, entry: SealedImage) -> &'static str {
        self.guest(&anything(), vec![entry]).refused(name).await
    }
}

fn digest(text: &str) -> Sha256Digest {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.strip_prefix("sha256:").unwrap(), &mut bytes).unwrap();
    Sha256Digest::new(bytes)
}

/// The manifest of the image in a layout.
fn outer(layout: &Layout) -> Value {
    layout.json(&layout.index()["manifests"][0])
}

fn anything() -> Value {
    json!({"default": [{"type": "insecureAcceptAnything"}], "transports": {}})
}

fn content() -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

impl SealedLayout {
    /// A copy for a thief.
    fn stolen(&self, stage: &Stage, name: &str) -> Layout {
        self.layout.copy(&stage.scene.work.join(name))
    }
}

#[test]
fn a_sealed_image_runs_as_the_plain_one() {
    as_root(async {
        let (stage, content) = (Stage::start(), content());
        let (server, image) = (&stage.server, Image::new(&content));
        server.skopeo(&image.layout(), "acme/plain:v1");
        let sealed = stage.seal("sealed", &image, 7, &stage.scene.sealer);
        assert_eq!(sealed.manifest, image.digest);
        let (name, pushed) = stage.push(&sealed.layout, "v1");
        let key = Key::new();
        server.sign(IMAGE, &pushed, &key, &server.name(IMAGE)).await;
        let entry = SealedImage { manifest: Some(digest(&image.digest)), ..stage.by_sealer(&sealed, 5) };
        let guest = stage.guest(&cosigned(&key), vec![entry]);
        let pulled = guest.pull(&name).await.unwrap();
        assert_eq!(pulled.manifest_digest().to_string(), image.digest);
        assert_eq!(pulled.sealed_digest().unwrap().to_string(), pushed);
        assert!(pulled.accepted().is_signed());
        let event = format!(r#"{{"image":"{name}", "digest":"{}"}}"#, image.digest);
        assert_eq!(*guest.events.seen.lock().unwrap(), [event]);
        let plain = stage.guest(&anything(), Vec::new());
        let plain = plain.pull(&server.name("acme/plain:v1")).await.unwrap();
        assert_eq!(pulled.image_digest(), plain.image_digest());
        assert_eq!(pulled.config(), plain.config());
        let bundle = pulled.mount(&guest.bundle()).unwrap();
        assert!(std::fs::read(bundle.root().join("usr/second")).unwrap() == content);
        drop(bundle);
        guest.assert_clean();

        // What is stored anywhere is ciphertext.
        let needle = &content[content.len() / 2..][..64];
        for place in [
            guest.directory.path().join("work"),
            server.directory.path().join("data/docker/registry/v2/repositories").join(IMAGE),
        ] {
            for file in files_below(&place) {
                assert!(!std::fs::read(&file).unwrap().windows(64).any(|window| window == needle));
            }
        }
        // By digest of the core, without a manifest; and once more, for nothing of it is kept.
        let guest = stage.guest(&cosigned(&key), vec![stage.entry(Origin::Core(sealed.core))]);
        for _ in 0..2 {
            assert_eq!(guest.pull(&name).await.unwrap().manifest_digest().to_string(), image.digest);
        }
        // Decrypted by the chip straight into the landing.
        let direct = stage.seal_for("dma-direct", "direct", &image, 7, &stage.scene.sealer);
        let (direct, _) = stage.push(&direct.layout, "direct");
        let guest = stage.guest(&anything(), vec![stage.by_sealer(&sealed, 5)]);
        assert_eq!(guest.pull(&direct).await.unwrap().manifest_digest().to_string(), image.digest);
        // A generic tool carries it: blobs and manifest stay what they are. Grants go by our own commands.
        let copy = server.name("other/sealed:v1");
        let skopeo = |from: &str, to: &str| {
            let mut command = std::process::Command::new("skopeo");
            command.args(["--insecure-policy", "copy", "--preserve-digests"]);
            run(command.args(["--src-tls-verify=false", "--dest-tls-verify=false", from, to]))
        };
        skopeo(&format!("docker://{name}"), &format!("docker://{copy}"));
        let back = stage.scene.work.join("back");
        stage.scene.innerkeep.run(&args![
            "pull",
            copy,
            format!("{}:v1", back.display()),
            "--insecure-plain-http"
        ]);
        assert_eq!(Layout::at(&back).index()["manifests"][0]["digest"], json!(pushed));
    });
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return files };
    for entry in entries.map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

#[test]
fn evil_sealed_image_of_another_origin() {
    as_root(async {
        let stage = Stage::start();
        let image = Image::new(b"short");
        let sealed = stage.seal("sealed", &image, 7, &stage.scene.sealer);
        let (name, _) = stage.push(&sealed.layout, "v1");
        // Nobody named it; or without anybody who opens.
        assert_eq!(stage.guest(&anything(), Vec::new()).refused(&name).await, "ORIGIN_UNPROVEN");
        assert_eq!(Guest::new(&stage.server, &anything(), "").refused(&name).await, "CDH_NOT_AVAILABLE");
        // Stale; another core; another environment.
        assert_eq!(stage.refused(&name, stage.by_sealer(&sealed, 8)).await, "ROLLBACK");
        let other = stage.entry(Origin::Core(Sha256Digest::new([7; 32])));
        assert_eq!(stage.refused(&name, other).await, "ORIGIN_UNPROVEN");
        let environment = Tag::parse("production").unwrap();
        let elsewhere = SealedImage { environment, ..stage.by_sealer(&sealed, 5) };
        assert_eq!(stage.refused(&name, elsewhere).await, "SEALED_ENVIRONMENT");
        // A stranger's, who granted it to the chip: anybody can.
        let stranger = stage.scene.work.join("stranger.pem");
        stage.scene.innerkeep.run(&args!["key", "new", "--output", &stranger]);
        let foreign = stage.seal("foreign", &Image::new(b"of a stranger"), 9, &stranger);
        let (foreign, _) = stage.push(&foreign.layout, "foreign");
        assert_eq!(stage.refused(&foreign, stage.by_sealer(&sealed, 5)).await, "ORIGIN_UNPROVEN");
        // For none of them a layer was fetched.
        let guest = stage.guest(&anything(), vec![stage.by_sealer(&sealed, 8)]);
        assert_eq!(guest.refused(&name).await, "ROLLBACK");
        assert!(!guest.directory.path().join("work").exists());
        let guest = stage.guest(&anything(), vec![stage.by_sealer(&sealed, 7)]);
        guest.pull(&name).await.unwrap();
    });
}

#[test]
fn evil_registry_alters_a_sealed_image() {
    as_root(async {
        let stage = Stage::start();
        let image = Image::new(&content());
        let sealed = stage.seal("sealed", &image, 7, &stage.scene.sealer);
        let twin = stage.seal("twin", &image, 7, &stage.scene.sealer);
        let last = outer(&sealed.layout)["layers"].as_array().unwrap().len() - 1;
        let (layers, tags) = (last / 2 - 1, last / 2);
        let bytes = |layout: &Layout, index: usize| layout.blob(&outer(layout)["layers"][index]);
        let flipped = |mut bytes: Vec<u8>| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        };
        let shorter = |mut bytes: Vec<u8>| {
            bytes.pop();
            bytes
        };
        let plain = image.blob(image.manifest["layers"].as_array().unwrap().last().unwrap());
        let replaced: Vec<(&str, usize, Vec<u8>, &str)> = vec![
            ("tampered", layers - 1, flipped(bytes(&sealed.layout, layers - 1)), "SEGMENT_AUTH_FAILED"),
            ("truncated", layers - 1, shorter(bytes(&sealed.layout, layers - 1)), "LENGTH_MISMATCH"),
            ("swapped", layers - 1, bytes(&twin.layout, layers - 1), "SEGMENT_AUTH_FAILED"),
            ("exchanged", 0, bytes(&sealed.layout, layers - 1), "LENGTH_MISMATCH"),
            ("manifest", layers, bytes(&twin.layout, layers), "SEGMENT_AUTH_FAILED"),
            ("tags", tags, flipped(bytes(&sealed.layout, tags)), "TAG_TABLE_MISMATCH"),
            ("plain", layers - 1, plain, "SEGMENT_AUTH_FAILED"),
            ("twin", last, bytes(&twin.layout, last), "SIGNATURE_INVALID"),
        ];
        // By the chip's DMA the chip says it.
        let direct = stage.seal_for("dma-direct", "direct", &image, 7, &stage.scene.sealer);
        let tampered = flipped(bytes(&direct.layout, layers - 1));
        direct.layout.alter_manifest(0, |manifest| {
            let layer = manifest["layers"][layers - 1].clone();
            manifest["layers"][layers - 1] = direct.layout.put(layer, &tampered);
        });
        let (name, _) = stage.push(&direct.layout, "direct");
        assert_eq!(stage.refused(&name, stage.by_sealer(&sealed, 5)).await, "CHIP_SEGMENT_AUTH");
        for (name, index, bytes, code) in replaced {
            let stolen = sealed.stolen(&stage, name);
            stolen.alter_manifest(0, |manifest| {
                manifest["layers"][index] = stolen.put(manifest["layers"][index].clone(), &bytes);
            });
            let (name, _) = stage.push(&stolen, name);
            assert_eq!(stage.refused(&name, stage.by_sealer(&sealed, 5)).await, code, "{name}");
        }
    });
}

#[test]
fn evil_registry_alters_the_manifest_of_a_sealed_image() {
    as_root(async {
        let stage = Stage::start();
        let image = Image::new(b"short");
        let sealed = stage.seal("sealed", &image, 7, &stage.scene.sealer);
        type Alter = fn(&Layout, &mut Value);
        let altered: [(&str, Alter, &str); 6] = [
            // One layer says that it is not sealed.
            (
                "unsealed",
                |_, manifest| {
                    let inner = manifest["layers"][0]["mediaType"].as_str().unwrap().replace("+sealed", "");
                    manifest["layers"][0]["mediaType"] = json!(inner);
                },
                "MALFORMED",
            ),
            // The core is not named, and so nothing here is an image.
            (
                "unnamed",
                |_, manifest| {
                    manifest["annotations"].as_object_mut().unwrap().remove(CORE);
                },
                "REGISTRY_MANIFEST",
            ),
            (
                "other-core",
                |_, manifest| manifest["annotations"][CORE] = json!(format!("sha256:{}", "7".repeat(64))),
                "MALFORMED",
            ),
            // A layer less, and one too many.
            (
                "fewer",
                |_, manifest| {
                    manifest["layers"].as_array_mut().unwrap().remove(0);
                },
                "REGISTRY_MANIFEST",
            ),
            (
                "fewer-pairs",
                |layout, manifest| {
                    let layers = manifest["layers"].as_array_mut().unwrap();
                    let tags = (layers.len() - 1) / 2;
                    layers.remove(tags);
                    layers.remove(0);
                    let mut config = layout.json(&manifest["config"]);
                    config["rootfs"]["diff_ids"].as_array_mut().unwrap().remove(0);
                    manifest["config"] =
                        layout.put(manifest["config"].clone(), config.to_string().as_bytes());
                },
                "MALFORMED",
            ),
            // Another command than the sealer's.
            (
                "config",
                |layout, manifest| {
                    let mut config = layout.json(&manifest["config"]);
                    config["config"]["Cmd"] = json!(["/bin/evil"]);
                    manifest["config"] =
                        layout.put(manifest["config"].clone(), config.to_string().as_bytes());
                },
                "PULL_UNSEALED",
            ),
        ];
        for (name, alter, code) in altered {
            let stolen = sealed.stolen(&stage, name);
            stolen.alter_manifest(0, |manifest| alter(&stolen, manifest));
            let (name, _) = stage.push(&stolen, name);
            assert_eq!(stage.refused(&name, stage.by_sealer(&sealed, 5)).await, code, "{name}");
        }
        // Bound configuration names another image.
        let (name, _) = stage.push(&sealed.layout, "v1");
        let manifest = Some(Sha256Digest::new([7; 32]));
        let pinned = SealedImage { manifest, ..stage.by_sealer(&sealed, 5) };
        assert_eq!(stage.refused(&name, pinned).await, "PULL_UNSEALED");
    });
}

#[test]
fn evil_registry_withholds_the_grants_of_a_sealed_image() {
    as_root(async {
        let stage = Stage::start();
        let image = Image::new(b"short");
        let sealed = stage.seal("sealed", &image, 7, &stage.scene.sealer);
        let twin = stage.seal("twin", &image, 7, &stage.scene.sealer);
        let stolen = sealed.stolen(&stage, "withheld");
        stolen.drop_manifests(tests::layout::GRANT);
        let (name, _) = stage.push(&stolen, "withheld");
        assert_eq!(stage.refused(&name, stage.by_sealer(&sealed, 5)).await, "NO_GRANT_FOR_CHIP");
        // Those of another one, as if they were this one's.
        let mut index = stolen.index();
        let subject = index["manifests"][0].clone();
        for descriptor in twin.layout.descriptors(tests::layout::GRANT) {
            let mut manifest = twin.layout.json(&descriptor);
            stolen.put(json!({}), &twin.layout.blob(&manifest["layers"][0]));
            for member in ["digest", "size"] {
                manifest["subject"][member] = subject[member].clone();
            }
            let descriptor = stolen.put(descriptor, &tests::layout::canonical(&manifest));
            index["manifests"].as_array_mut().unwrap().push(descriptor);
        }
        stolen.write_index(&index);
        let (name, _) = stage.push(&stolen, "foreign");
        assert_eq!(stage.refused(&name, stage.by_sealer(&sealed, 5)).await, "NO_GRANT_FOR_CHIP");
        // Without the signature only the digest of the core is a pin.
        let unsigned = sealed.stolen(&stage, "unsigned");
        unsigned.drop_manifests(tests::layout::SIGNATURE);
        // A manifest of its own: the registry keeps what referred to the others.
        unsigned.alter_manifest(0, |manifest| manifest["annotations"]["of"] = json!("another"));
        let (name, _) = stage.push(&unsigned, "unsigned");
        assert_eq!(stage.refused(&name, stage.by_sealer(&sealed, 5)).await, "ORIGIN_UNPROVEN");
        let guest = stage.guest(&anything(), vec![stage.entry(Origin::Core(sealed.core))]);
        guest.pull(&name).await.unwrap();
    });
}

/// A hub as a process, without a platform; dropped, it ends.
struct Program(std::process::Child);

impl Drop for Program {
    fn drop(&mut self) {
        // The process is ours.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Stage {
    /// Grants to a broker, which gets the key, under a policy with this rule about the manifest.
    fn grant_to_broker(&self, broker: &KeyBroker, artifact: &Path, key: &Path, manifest: &str) {
        let name = artifact.file_name().unwrap().to_str().unwrap();
        let rtmr: String = (0..4).map(|index| format!("rtmr{index} = \"any\"\n")).collect();
        let policy = format!(
            "environment = \"any\"\nfamily = \"any\"\nlink_mode = \"any\"\nmin_counter = 0\n\
             [evidence]\ncertificate_chain = \"any\"\ndebug = \"any\"\ninitdata = \"any\"\nunsigned_manifest = {manifest}\n\
             [evidence.tdx]\nmin_pck_crl_number = 0\nmin_root_crl_number = 0\nmin_tcb_evaluation = 0\n\
             min_tee_tcb_svn = \"{}\"\nmrtd = \"any\"\n{rtmr}",
            "00".repeat(16)
        );
        let policy = self.scene.work.write(format!("{name}.policy"), policy);
        let kek = self.scene.work.join(format!("{name}.kek"));
        let report = self.scene.innerkeep.run(&args![
            "grant",
            "add",
            artifact,
            "--key",
            key,
            "--to",
            "kbs:broker.example",
            "--policy",
            &policy,
            "--kek-out",
            &kek,
            "--allow-weak-policy"
        ]);
        broker.store(report["resource"].as_str().unwrap(), &std::fs::read(kek).unwrap());
    }

    /// The program with bound configuration that names a sealed image and an artifact; the socket that it serves.
    async fn program(&self, broker: &KeyBroker, cdh: &str, sealed: &str) -> (Program, PathBuf) {
        let work = &self.scene.work;
        let socket = work.join("cdh.sock");
        let insecure = if swap_is_on() { "\"innerkeep.toml\" = 'insecure = [\"swap\"]'\n" } else { "" };
        let initdata = format!(
            "version = \"0.1.0\"\nalgorithm = \"sha384\"\n[data]\n\"cdh.toml\" = '''\nsocket = \"unix://{}\"\n\
             [kbc]\nname = \"cc_kbc\"\nurl = \"{}\"\n[innerkeep]\nbroker = \"broker.example\"\n{cdh}\n'''\n\
             \"sealed.toml\" = '''\n{sealed}\n'''\n{insecure}",
            socket.display(),
            broker.url
        );
        let initdata = work.write("initdata.toml", initdata);
        let mut command = self.scene.programs.command("confidential-data-hub", &work.join("tmp"));
        command.args(["--insecure-sample", "--insecure-unbound-config", "-t"]).arg(initdata);
        let log = work.join("hub.log");
        command.stdin(std::process::Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        let program = Program(command.spawn().unwrap());
        let start = std::time::Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            let said = std::fs::read_to_string(&log).unwrap();
            assert!(start.elapsed().as_secs() < 60, "the hub does not listen: {said}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        (program, socket)
    }
}

#[test]
fn the_program_opens_images_and_artifacts_by_a_broker() {
    use protocol::{api, artifact};
    as_root(async {
        let stage = Stage::start();
        let (server, work) = (&stage.server, &stage.scene.work);
        let open = work.write("open.rego", "package policy\ndefault allow = true\n");
        let arguments = args!["--insecure-allow-sample", "--policy", &open];
        let broker = KeyBroker::start(&stage.scene.programs, work, "broker", &arguments);
        let image = Image::new(b"for the program");
        let exactly =
            |digest: &str| format!("{{ exactly = \"{}\" }}", digest.strip_prefix("sha256:").unwrap());
        let (good, denied) = (
            stage.seal("good", &image, 7, &stage.scene.sealer),
            stage.seal("denied", &image, 7, &stage.scene.sealer),
        );
        for (sealed, name, manifest) in [
            (&good, "good", exactly(&image.digest)),
            (&denied, "denied", exactly(&format!("sha256:{}", "7".repeat(64)))),
        ] {
            stage.grant_to_broker(
                &broker,
                sealed.layout.path(),
                &work.join(format!("{name}.key")),
                &manifest,
            );
        }
        let payload = tests::payload::Payload::random(5, 300_000);
        let model = stage.scene.seal(
            "model",
            &[&stage.scene.input("model.bin", &payload)],
            &tests::scene::SealSpec::default(),
        );
        stage.grant_to_broker(&broker, &model.reference, &model.key, "\"any\"");
        let (good, _) = stage.push(&good.layout, "good");
        let (bad, _) = stage.push(&denied.layout, "denied");
        let (reference, _) = stage.push(&Layout::at(&model.reference), "model");
        let password = stage.scene.input("password", &tests::payload::Payload::random(6, 33));
        let secret = stage.scene.seal("password", &[&password], &tests::scene::SealSpec::default());
        let text = |artifact: &Artifact| {
            let said = stage.scene.innerkeep.run(&args!["secret", &artifact.reference]);
            said["text"].as_str().unwrap().as_bytes().to_vec()
        };
        stage.scene.innerkeep.attempt(&args!["secret", &secret.reference]).assert_refused(2, "USAGE");
        stage.grant_to_broker(&broker, &secret.reference, &secret.key, "\"any\"");
        // Several files are no secret, whoever sealed them.
        let other = stage.scene.input("other", &tests::payload::Payload::random(7, 33));
        let two = stage.scene.seal("two", &[&password, &other], &tests::scene::SealSpec::default());
        stage.scene.innerkeep.attempt(&args!["secret", &two.reference]).assert_refused(2, "USAGE");
        let sealer = format!(
            "sealer = {{ key = \"sha256:{}\", family = \"{FAMILY}\", min_counter = 5 }}",
            hex::encode(denied.sealer.as_bytes())
        );
        let cdh = format!(
            "[[innerkeep.sealed_images]]\nimage = \"{}\"\nenvironment = \"{ENVIRONMENT}\"\n{sealer}\n\
             [[innerkeep.sealed_secrets]]\nenvironment = \"{ENVIRONMENT}\"\n{sealer}\n[image]\n\
             work_dir = \"{}\"\nimage_security_policy = '{}'\n[[image.registry_config.registry]]\nlocation = \"{}\"\ninsecure = true\n",
            server.name(IMAGE),
            work.join("work").display(),
            anything(),
            server.authority
        );
        // The document is a text in three quotes: one quote inside is none of them.
        let sealed = format!(
            "environment = \"{ENVIRONMENT}\"\n[[artifact]]\nname = \"model\"\nreference = \"{reference}\"\npath = \"/m\"\n{sealer}\n\
             container = {{ image = \"sha256:{}\", policy_container = 1 }}\n",
            "7".repeat(64)
        );
        let (_program, socket) = stage.program(&broker, &cdh, &sealed).await;
        let address = format!("unix://{}", socket.display());
        let client = ttrpc::asynchronous::Client::connect(&address).await.unwrap();
        let context = || ttrpc::context::with_timeout(60_000_000_000);

        let images = api::ImagePullServiceClient::new(client.clone());
        let bundle = work.directory("bundle");
        let pull = |image: &str| api::ImagePullRequest {
            image_url: image.to_owned(),
            bundle_path: bundle.to_str().unwrap().to_owned(),
            ..Default::default()
        };
        let refused = images.pull_image(context(), &pull(&bad)).await.unwrap_err().to_string();
        assert!(refused.contains("POLICY_DENIED"), "{refused}");
        assert_eq!(std::fs::read_dir(&bundle).unwrap().count(), 0);
        let answer = images.pull_image(context(), &pull(&good)).await.unwrap();
        assert_eq!(answer.manifest_digest, image.digest);
        let root = bundle.join("rootfs");
        assert_eq!(std::fs::read(root.join("usr/second")).unwrap(), b"for the program");
        cdh::composefs::mount::detach(&root).unwrap();

        let secrets = api::SealedSecretServiceClient::new(client.clone());
        let unseal = |secret: Vec<u8>| api::UnsealSecretInput { secret, ..Default::default() };
        let mut sealed = text(&secret);
        let opened = secrets.unseal_secret(context(), &unseal(sealed.clone())).await.unwrap();
        assert_eq!(opened.plaintext, std::fs::read(&password).unwrap());
        // A bit of its ciphertext, which begins behind the slots of the file.
        let place = "sealed.innerkeep-v1.".len() + 8192 * 8 / 6 + 1;
        sealed[place] = if sealed[place] == b'A' { b'B' } else { b'A' };
        let refused = secrets.unseal_secret(context(), &unseal(sealed)).await.unwrap_err().to_string();
        assert!(refused.contains("SEGMENT_AUTH_FAILED"), "{refused}");

        let artifacts = artifact::ArtifactServiceClient::new(client);
        let request = artifact::ArtifactLandRequest { reference, ..Default::default() };
        let job = artifacts.land(context(), &request).await.unwrap().job;
        let start = std::time::Instant::now();
        loop {
            let request = artifact::ArtifactStatusRequest { job, ..Default::default() };
            let status = artifacts.status(context(), &request).await.unwrap();
            assert_eq!(status.error, "");
            if status.files.first().is_some_and(|file| file.name == "model.bin") {
                break;
            }
            assert!(start.elapsed().as_secs() < 60, "{status:?}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let request = artifact::ArtifactOpenRequest { job, ..Default::default() };
        let ticket = artifacts.open(context(), &request).await.unwrap();
        assert_eq!(ticket.socket, socket.with_extension("files.sock").to_str().unwrap());
        assert_eq!(ticket.ticket.len(), 32);
    });
}
