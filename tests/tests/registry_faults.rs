//! An artifact from a registry while network, host and clock are against it: connections that break at random, SIGKILL at random moments, a
//! file that the host changes while it is read. What lands is what was sealed, or nothing does.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::io::{BufWriter, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tests::lying_files::{Lie, LyingFile};
use tests::payload::{Payload, Random};
use tests::registry::{BreakingNetwork, RegistryServer};
use tests::scene::{Artifact, Carrier, Scene, SealSpec, UnsealSpec};
use tests::sealed::SealedFile;
use tests::{DAMAGED, IO, args};

/// An artifact that is nowhere but in a registry.
struct Stage {
    scene: Scene,
    registry: RegistryServer,
    artifact: Artifact,
    sha256: String,
}

const NAME: &str = "acme/model:v1";

impl Stage {
    fn set(bytes: u64) -> Self {
        let scene = Scene::start();
        let input = scene.work.join("input/model.bin");
        let sha256 = write(&input, bytes);
        let artifact = scene.seal("model", &[&input], &SealSpec::default());
        scene.grant_usual(&artifact);
        let registry = RegistryServer::start(&scene.work.join("registry"));
        let to = registry.name(NAME);
        scene.innerkeep.run(&args!["push", "--insecure-plain-http", &artifact.reference, &to]);
        std::fs::remove_dir_all(&artifact.reference).unwrap();
        Self { scene, registry, artifact, sha256 }
    }

    fn fetched(&self) -> PathBuf {
        self.scene.work.join("fetched")
    }

    fn here(&self) -> Artifact {
        self.artifact.at(Path::new(&format!("{}:v1", self.fetched().display())))
    }

    fn pull(&self, authority: &str) -> Vec<std::ffi::OsString> {
        let (from, to) = (format!("{authority}/{NAME}"), self.here().reference);
        args!["pull", "--insecure-plain-http", from, to]
    }

    #[track_caller]
    fn assert_lands(&self) {
        let seen = self.scene.unseal(&self.here(), &UnsealSpec::default()).seen();
        assert_eq!(seen["sha256"], self.sha256.as_str(), "{seen}");
        self.scene.assert_no_plaintext(&self.artifact);
    }
}

/// Random bytes in a file; their digest.
fn write(path: &Path, bytes: u64) -> String {
    let mut file = BufWriter::with_capacity(1 << 20, std::fs::File::create(path).unwrap());
    let (mut random, mut hash) = (Random::new(bytes), Sha256::new());
    for _ in 0..bytes / 4096 {
        let piece: Vec<u8> = (0..512).flat_map(|_| random.draw().to_le_bytes()).collect();
        hash.update(&piece);
        file.write_all(&piece).unwrap();
    }
    file.flush().unwrap();
    hex::encode(hash.finalize())
}

#[test]
fn evil_network_breaks_while_an_artifact_lands() {
    let (bytes, most) = if tests::long_run() { (4 << 30, 64 << 20) } else { (64 << 20, 4 << 20) };
    let stage = Stage::set(bytes);
    let (_, seed) = Random::fresh();
    println!("seed {seed}");
    let network = BreakingNetwork::start(&stage.registry.authority, most, seed);
    let mut calls = 0;
    loop {
        calls += 1;
        let said = stage.scene.innerkeep.attempt(&stage.pull(&network.authority));
        if said.status == Some(0) {
            break;
        }
        // Too many attempts without a byte: the next call continues where this one was.
        assert!(said.code().starts_with("REGISTRY_"), "{said:?}");
        assert!(!stage.fetched().join("index.json").exists(), "a layout names only what it has");
        assert!(calls < 20, "{said:?}");
    }
    let least = bytes / u64::try_from(most).unwrap();
    assert!(network.broken() >= least, "{} connections broke, of at least {least}", network.broken());
    println!("{} connections broke, {calls} call(s)", network.broken());
    stage.assert_lands();
}

#[test]
fn evil_host_kills_while_an_artifact_comes_from_a_registry() {
    let kills = if tests::long_run() { 500 } else { 16 };
    let stage = Stage::set(16 << 20);
    let pull = stage.pull(&stage.registry.authority);
    let unseal = || stage.scene.unseal_arguments(&stage.here(), &UnsealSpec::default()).0;
    let timed = |arguments: &[std::ffi::OsString]| {
        let start = Instant::now();
        stage.scene.innerkeep.run(arguments);
        u64::try_from(start.elapsed().as_micros()).unwrap()
    };
    let mut usual = [timed(&pull), 0];
    let start = Instant::now();
    stage.assert_lands();
    usual[1] = u64::try_from(start.elapsed().as_micros()).unwrap();
    let (mut random, seed) = Random::fresh();
    println!("seed {seed}, usually {usual:?} µs");
    let (mut killed, mut through, mut halves) = ([0, 0], 0, 0);
    // Chance may find none at work: on, then, within reason.
    while killed[0] + killed[1] < kills || (halves == 0 && killed[0] + killed[1] < 10 * kills) {
        let landing = killed[1] < killed[0];
        if landing {
            stage.scene.innerkeep.run(&pull);
        } else if random.below(3) > 0 {
            let _ = std::fs::remove_dir_all(stage.fetched());
        }
        let mut command: Command = stage.scene.innerkeep.command();
        command.args(if landing { unseal() } else { pull.clone() });
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut victim = command.spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.draw() % usual[usize::from(landing)]));
        victim.kill().unwrap();
        if victim.wait().unwrap().signal() == Some(9) {
            killed[usize::from(landing)] += 1;
        } else {
            through += 1;
            assert!(through < 10 * kills, "no victim dies at work");
        }
        stage.scene.assert_no_plaintext(&stage.artifact);
        // What has the name of an artifact is one; what has not is nothing.
        if stage.fetched().join("index.json").exists() {
            stage.assert_lands();
        } else {
            halves += 1;
            let unsealed = stage.scene.unseal(&stage.here(), &UnsealSpec::default());
            assert!(!unsealed.consumer_ran() && unsealed.said.status != Some(0), "{:?}", unsealed.said);
        }
    }
    println!("killed {killed:?}, through {through}, half {halves}");
    assert!(halves > 0, "no kill found a pull that was not over");
    stage.scene.innerkeep.run(&pull);
    stage.assert_lands();
}

/// An artifact as one file, which the host shares with the guest.
struct Shared {
    scene: Scene,
    payload: Payload,
    artifact: Artifact,
    file: SealedFile,
}

impl Shared {
    fn set() -> Self {
        let scene = Scene::start();
        let payload = Payload::random(77, 4 << 20);
        let spec = SealSpec { carrier: Carrier::File, ..SealSpec::default() };
        let artifact = scene.sealed("model.sealed", &payload, &spec);
        let file = SealedFile::read(&artifact.reference);
        Self { scene, payload, artifact, file }
    }

    /// The artifact as the host shows it. `apart` is where, which no search of the disk reads.
    fn shown(&self, name: &str, lie: Lie) -> (LyingFile, Artifact, tempfile::TempDir) {
        let apart = tempfile::tempdir().unwrap();
        let shown = LyingFile::mount(apart.path(), &format!("{name}.sealed"), self.file.bytes.clone(), lie);
        let artifact = self.artifact.at(&shown.path);
        (shown, artifact, apart)
    }
}

const PATHS: [&str; 3] = ["key-release", "dma-sealed", "dma-direct"];

/// The host waits until a tag was compared, and changes what the tag was about: whoever looks twice sees something else.
#[test]
fn evil_host_flips_after_tag() {
    let shared = Shared::set();
    for path in PATHS {
        let (shown, artifact, _apart) = shared.shown("again", Lie::Again);
        let unsealed = shared.scene.unseal(&artifact, &UnsealSpec::by(path));
        // Read once, it is what was sealed.
        assert_eq!(unsealed.seen()["sha256"], shared.payload.sha256(), "{path}");
        shared.scene.assert_no_plaintext(&artifact);
        assert!(shown.asked.reads() > 10 && shown.asked.again() == 0, "{path}: {:?}", shown.asked);
    }
    // A lie the first time is seen.
    let payload = shared.file.region("payloads/0");
    let (shown, artifact, _apart) = shared.shown("flipped", Lie::Flipped(payload.start + 1_000_000));
    shared.scene.assert_refused(&artifact, &UnsealSpec::default(), DAMAGED, "SEGMENT_AUTH_FAILED");
    assert!(shown.asked.lied() > 0);
}

/// The host states a size and gives less: an error like any other, no signal that kills whoever reads.
#[test]
fn evil_host_truncates_mapped_source() {
    let shared = Shared::set();
    let payload = shared.file.region("payloads/0");
    for at in [payload.start, payload.start + 2_000_000, payload.end - 1] {
        for path in PATHS {
            let (shown, artifact, _apart) = shared.shown("ends", Lie::EndsAt(at));
            shared.scene.assert_refused(&artifact, &UnsealSpec::by(path), IO, "FILE");
            assert!(shown.asked.lied() > 0, "{path}: {:?}", shown.asked);
        }
    }
    // Its own file, mapped, may be cut by the guest itself alone: who reads it may die of that, and nothing is seen by anybody.
    let copy = shared.scene.work.join("cut.sealed");
    let artifact = shared.artifact.at(&copy);
    let (mut died, mut landed) = (0, 0);
    for round in 0..8_u64 {
        std::fs::write(&copy, &shared.file.bytes).unwrap();
        let (arguments, marker) = shared.scene.unseal_arguments(&artifact, &UnsealSpec::default());
        let mut command = shared.scene.innerkeep.command();
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut reader = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(5 * round));
        std::fs::File::options().write(true).open(&copy).unwrap().set_len(8192).unwrap();
        let status = reader.wait().unwrap();
        if status.success() {
            landed += 1;
        } else {
            died += 1;
            assert!(!marker.exists(), "the consumer ran");
        }
    }
    println!("{landed} landed before the cut, {died} did not");
    assert!(died > 0);
    shared.scene.assert_no_plaintext(&artifact);
}
