//! SIGKILL while an image is pulled: nothing of its plaintext is on a disk, and what is left there is verified before it counts again.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cdh::config::HubConfig;
use cdh::image::pull::{Puller, PullerOptions};
use cdh::modes::Modes;
use cdh::registry::Digest;
use serde_json::{Value, json};
use tests::payload::{Payload, Random};
use tests::scan::Needles;

use super::fixture::{Directory, Events, Image, Key, Server, cosigned, run, soon, workers};
use super::{IMAGE, as_root, encrypted};

/// Tells the victim what to do; without it, it is nobody's.
const JOB: &str = "INNERKEEP_TEST_VICTIM";

/// The victim, a process in a mount namespace of its own: pulls, mounts, says what the image has, and waits to be killed.
#[test]
#[ignore = "started by the tests of this file"]
fn victim() {
    let Ok(job) = std::env::var(JOB) else { return };
    let job: Value = serde_json::from_str(&job).unwrap();
    let text = |name: &str| job[name].as_str().unwrap().to_owned();
    as_root(async {
        let config = HubConfig::parse(&text("config")).unwrap();
        let resources = Arc::new(Directory(text("resources").into()));
        let (events, options) =
            (Arc::new(Events::default()), PullerOptions { keep_layers: true, ..PullerOptions::default() });
        let puller = Puller::new(config.image, resources, Modes::none(), events, workers(), options);
        let pulled = puller.pull(&text("image"), soon(), &()).await.unwrap();
        let bundle = pulled.mount(Path::new(&text("bundle"))).unwrap();
        let second = std::fs::read(bundle.root().join("usr/second")).unwrap();
        println!("second {}", Digest::of(&second));
        if job["stay"] == json!(true) {
            std::thread::sleep(Duration::from_secs(60));
        }
    });
}

/// A signed image with an encrypted layer, and a directory for the guests that pull it.
struct Stage {
    server: Server,
    directory: tempfile::TempDir,
    content: Payload,
    needles: Needles,
    name: String,
    bundles: std::cell::Cell<usize>,
}

impl Stage {
    async fn set() -> Self {
        let content = Payload::random(0x1111, 12 << 20);
        let (server, image, key) = (Server::start(), Image::new(content.bytes()), Key::new());
        let kek = [3; 32];
        let (manifest, blobs) = encrypted(&image, &kek, &[1; 16]);
        server.put(&format!("{IMAGE}:v1"), &manifest, &blobs).await;
        server.sign(IMAGE, &Digest::of(&manifest).to_string(), &key, &server.name(IMAGE)).await;
        let directory = tempfile::tempdir().unwrap();
        let policy = cosigned(&key).to_string();
        for (name, bytes) in [("policy/image", policy.as_bytes()), ("key/layer", kek.as_slice())] {
            let path = directory.path().join("resources/default").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        // Random bytes pass through the compression of a layer as they are, so that its plaintext has them, too.
        let windows = content.windows(&mut Random::new(5), 3000);
        let name = server.name(&format!("{IMAGE}:v1"));
        let needles = Needles::new(windows);
        Self { server, directory, content, needles, name, bundles: std::cell::Cell::new(0) }
    }

    fn victim(&self, stay: bool) -> Command {
        self.bundles.set(self.bundles.get() + 1);
        let root = self.directory.path();
        let bundle = root.join(format!("bundle-{}", self.bundles.get()));
        std::fs::create_dir(&bundle).unwrap();
        let config = format!(
            "[image]\nwork_dir = \"{}\"\nimage_security_policy_uri = \"kbs:///default/policy/image\"\n\
             [[image.registry_config.registry]]\nlocation = \"{}\"\ninsecure = true\n",
            root.join("work").display(),
            self.server.authority
        );
        let job = json!({"config": config, "resources": root.join("resources"), "image": self.name,
            "bundle": bundle, "stay": stay});
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--"]).arg(std::env::current_exe().unwrap());
        command.args(["killed::victim", "--exact", "--ignored", "--nocapture"]).env(JOB, job.to_string());
        command
    }

    /// Whatever has a name in the store is what its name says, and no plaintext is anywhere.
    fn look(&self) -> usize {
        let (hits, _) = self.needles.below(self.directory.path());
        assert!(hits.is_empty(), "plaintext in {hits:?}");
        let mut named = 0;
        for blob in std::fs::read_dir(self.directory.path().join("work/blobs/sha256")).into_iter().flatten() {
            let path = blob.unwrap().path();
            let found = Digest::of(&std::fs::read(&path).unwrap());
            assert_eq!(found.hex(), path.file_name().unwrap().to_str().unwrap(), "{}", path.display());
            named += 1;
        }
        named
    }

    /// A guest that begins anew with what is left mounts the right image.
    fn assert_restarts(&self) {
        let said = String::from_utf8(run(&mut self.victim(false))).unwrap();
        let expected = format!("second {}", Digest::of(self.content.bytes()));
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn evil_host_kills_the_pull_of_an_encrypted_image() {
    as_root(async {
        let kills = if tests::long_run() { 300 } else { 12 };
        let stage = Stage::set().await;
        // What is searched is found: the plaintext where it does belong.
        let control = stage.directory.path().join("control");
        std::fs::write(&control, &stage.content.bytes()[..1 << 20]).unwrap();
        assert_eq!(stage.needles.below(stage.directory.path()).0.len(), 1);
        std::fs::remove_file(control).unwrap();
        let start = Instant::now();
        stage.assert_restarts();
        let usual = u64::try_from(start.elapsed().as_micros()).unwrap();
        let (mut random, seed) = Random::fresh();
        println!("seed {seed}, a pull takes {usual} µs");
        let (mut killed, mut partial, mut longest) = (0, 0, usual * 3 / 2);
        // The first pull may have been a slow one: where a kill comes too late, the next one comes earlier.
        while killed < kills || (partial == 0 && killed < 20 * kills) {
            if random.below(3) > 0 {
                let removed = std::fs::remove_dir_all(stage.directory.path().join("work"));
                // A kill may have come before there was anything.
                assert!(removed.is_ok() || removed.unwrap_err().kind() == std::io::ErrorKind::NotFound);
            }
            let mut command = stage.victim(true);
            let mut victim = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_micros(random.draw() % longest));
            assert!(victim.try_wait().unwrap().is_none(), "the victim ended by itself");
            victim.kill().unwrap();
            assert_eq!(victim.wait().unwrap().signal(), Some(9));
            killed += 1;
            let named = stage.look();
            let is_over = named >= 2;
            partial += usize::from(!is_over);
            if is_over {
                longest = (longest * 7 / 8).max(2_000);
            }
            if random.below(4) == 0 {
                stage.assert_restarts();
            }
        }
        stage.assert_restarts();
        stage.look();
        assert!(partial > 0, "no kill found a pull that was not over");
    });
}

/// What a killed pull left is not believed: somebody altered it meanwhile.
#[test]
fn evil_host_alters_what_a_killed_pull_left() {
    as_root(async {
        let stage = Stage::set().await;
        stage.assert_restarts();
        let work = stage.directory.path().join("work");
        let (blobs, partial) = (work.join("blobs/sha256"), work.join("partial"));
        for cut in [false, true] {
            let names: Vec<_> =
                std::fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert!(!names.is_empty());
            for name in names {
                let whole = blobs.join(&name);
                let mut bytes = std::fs::read(&whole).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                if cut {
                    bytes.truncate(middle + 1);
                    std::fs::remove_file(whole).unwrap();
                    let part = partial.join(format!("sha256-{}", name.to_str().unwrap()));
                    std::fs::write(part, bytes).unwrap();
                } else {
                    std::fs::write(whole, bytes).unwrap();
                }
            }
            stage.assert_restarts();
            stage.look();
        }
    });
}
