//! From a registry to a mounted root, and to a landed file: ours, and what users have today, in turns.
//!
//! ```text
//!  image ──skopeo──▶ docker-registry on loopback ──┬─▶ ours: a process that pulls, verifies, unpacks, mounts
//!  (made here)                                     └─▶ skopeo copy, umoci unpack
//!  model ──innerkeep seal, push──▶ the same registry ──┬─▶ ours: innerkeep pull, innerkeep unseal
//!  (made here)                                         └─▶ skopeo copy: the ciphertext alone
//!        └─cryptotensors──▶ a local file ──▶ cryptotensors: load_file
//! ```
//!
//! Each measurement is a process of its own, timed from start to end, in an empty directory of a tmpfs. The registry shares the machine. Before each,
//! as much memory as it needs is written to and given back ([`warm`]): whoever comes first pays nothing that the next one does not.

mod image;
mod measured;
mod model;
mod peers;
mod report;
mod worker;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use clap::Parser;
use tests::programs::is_root;
use tests::registry::RegistryServer;

use measured::{Measured, run as run_measured, warm};
use model::Sealed;
use peers::CryptoTensors;
use report::{Report, Rounds};
use worker::{Job, Steps};

use crate::statistics::Samples;

/// Time pulls of images and artifacts.
#[derive(Debug, Parser)]
#[command(name = "bench-pull")]
pub(crate) struct Arguments {
    /// Directory for results.
    #[arg(long)]
    out: PathBuf,
    /// MiB of files in the image; 0 leaves it out.
    #[arg(long, default_value_t = 1024)]
    image_mib: u64,
    /// MiB of tensors in the artifact, by 64; 0 leaves it out.
    #[arg(long, default_value_t = 4096)]
    artifact_mib: u64,
    /// Rounds in which ours and the peers take turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where what is made is put, on a disk [default: a directory for temporary files].
    #[arg(long)]
    store_dir: Option<PathBuf>,
    /// A tmpfs for what is pulled.
    #[arg(long, default_value = "/dev/shm")]
    room: PathBuf,
    /// Leave out cryptotensors, which is installed by pip.
    #[arg(long)]
    no_cryptotensors: bool,
    /// One pull, as JSON: what the program starts itself with.
    #[arg(long, hide = true)]
    worker: Option<String>,
}

/// What is promised: times of the peer over ours, and memory of ours.
const IMAGE_RATIO: f64 = 1.0;
const ARTIFACT_RATIO: f64 = 1.0;
const LOAD_RATIO: f64 = 1.0;
const IMAGE_MEMORY: u64 = 64 << 20;
const ARTIFACT_MEMORY: u64 = 32 << 20;

/// Runs everything, prints the table and writes `pull.json`.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(job) = &arguments.worker {
        let job: Job = serde_json::from_str(job)?;
        println!("{}", serde_json::to_string(&worker::run(&job)?)?);
        return Ok(());
    }
    ensure!(is_root(), "images are mounted: this needs root");
    fs::create_dir_all(&arguments.out)?;
    let stored = match &arguments.store_dir {
        Some(directory) => tempfile::tempdir_in(directory)?,
        None => tempfile::tempdir()?,
    };
    let registry = RegistryServer::start(&stored.path().join("registry"));
    let bench = Bench { arguments, stored: stored.path(), registry };
    let mut report = Report::new();
    if arguments.image_mib > 0 {
        bench.image(&mut report)?;
    }
    if arguments.artifact_mib > 0 {
        bench.artifact(&mut report)?;
    }
    report.write(&arguments.out)
}

struct Bench<'a> {
    arguments: &'a Arguments,
    stored: &'a Path,
    registry: RegistryServer,
}

impl Bench<'_> {
    /// An empty directory for one measurement.
    fn room(&self) -> anyhow::Result<tempfile::TempDir> {
        Ok(tempfile::Builder::new().prefix("innerkeep-bench-").tempdir_in(&self.arguments.room)?)
    }

    fn image(&self, report: &mut Report) -> anyhow::Result<()> {
        let layout = self.stored.join("image");
        let made = image::make(&layout, self.arguments.image_mib << 20)?;
        println!(
            "image: {} files of {} bytes in {} layers, {} bytes compressed\n",
            made.files, made.bytes, made.layers, made.compressed
        );
        self.registry.push(&layout, "v1", "acme/image:v1");
        let name = self.registry.name("acme/image:v1");
        let (mut ours, mut theirs) = (Rounds::default(), Rounds::default());
        let mut parts = [Rounds::default(), Rounds::default()];
        let mut steps = [Samples::default(), Samples::default(), Samples::default()];
        // One more round first: nothing is warm, and what came out is looked at.
        for round in 0..=self.arguments.rounds {
            let room = self.room()?;
            let job = Job {
                authority: self.registry.authority.clone(),
                image: name.clone(),
                room: room.path().to_owned(),
                samples: if round == 0 { made.samples.clone() } else { Vec::new() },
                look: round == 0,
            };
            warm(made.bytes);
            let measured = Self::pull(&job)?;
            let found: Steps = serde_json::from_str(&measured.stdout)?;
            drop(room);
            let room = self.room()?;
            let samples = (round == 0).then_some(made.samples.as_slice());
            warm(made.bytes);
            let (copied, unpacked) = peers::image(&name, room.path(), samples)?;
            if round > 0 {
                ours.add(&measured);
                for (samples, seconds) in steps.iter_mut().zip([found.fetched, found.unpacked, found.mounted])
                {
                    samples.0.push(seconds);
                }
                for (rounds, part) in parts.iter_mut().zip([&copied, &unpacked]) {
                    rounds.add(part);
                }
                theirs.add(&copied.then(unpacked));
            }
        }
        let [copied, unpacked] = &parts;
        report.row("image: pulled, verified, unpacked, mounted", made.bytes, &ours);
        let [fetched, at, mounted] = steps.map(|samples| samples.median());
        let text = format!("layers here at {fetched:.2} s, unpacked at {at:.2} s, mounted at {mounted:.2} s");
        report.note("  its steps", &text);
        report.row("image: skopeo copy, umoci unpack", made.bytes, &theirs);
        report.row("  skopeo copy", made.bytes, copied);
        report.row("  umoci unpack", made.bytes, unpacked);
        report.promise("image: skopeo and umoci over ours", IMAGE_RATIO, &ours, &theirs);
        report.memory("image: memory beside the image itself", IMAGE_MEMORY, &ours);
        Ok(())
    }

    fn pull(job: &Job) -> anyhow::Result<Measured> {
        let program = std::env::current_exe()?;
        run_measured(Command::new(program).args(["--out", "/", "--worker"]).arg(serde_json::to_string(job)?))
    }

    fn artifact(&self, report: &mut Report) -> anyhow::Result<()> {
        let bytes = self.arguments.artifact_mib << 20;
        let file = self.stored.join("model.safetensors");
        let head = model::write(&file, bytes)?;
        let sealed = Sealed::push(&file, &self.registry)?;
        let peer = if self.arguments.no_cryptotensors {
            Err(anyhow::anyhow!("left out"))
        } else {
            CryptoTensors::prepare(&self.arguments.out, self.stored, &file, bytes, &head)
        };
        fs::remove_file(&file).context("the model")?;
        let (mut ours, mut theirs, mut loads) = (Rounds::default(), Rounds::default(), Rounds::default());
        let mut parts = [Rounds::default(), Rounds::default()];
        let mut inside = Samples::default();
        for round in 0..=self.arguments.rounds {
            let room = self.room()?;
            warm(bytes);
            let fetched = sealed.fetch(room.path())?;
            warm(bytes);
            let landed = sealed.land(room.path())?;
            drop(room);
            let room = self.room()?;
            warm(bytes);
            let copied = sealed.skopeo(room.path())?;
            drop(room);
            if round > 0 {
                for (rounds, part) in parts.iter_mut().zip([&fetched, &landed]) {
                    rounds.add(part);
                }
                ours.add(&fetched.then(landed));
                theirs.add(&copied);
            }
            if let Ok(peer) = &peer {
                // As what was fetched is: in memory.
                std::io::copy(&mut fs::File::open(peer.file())?, &mut std::io::sink())?;
                warm(bytes);
                let (measured, seconds) = peer.load()?;
                if round > 0 {
                    loads.add(&measured);
                    inside.0.push(seconds);
                }
            }
        }
        let [fetched, landed] = &parts;
        report.row("artifact: fetched, verified, landed", bytes, &ours);
        report.row("  innerkeep pull", bytes, fetched);
        report.row("  innerkeep unseal", bytes, landed);
        report.row("artifact: skopeo copy, ciphertext alone", bytes, &theirs);
        report.promise("artifact: skopeo over innerkeep pull", ARTIFACT_RATIO, fetched, &theirs);
        report.memory("artifact: memory beside the landed file", ARTIFACT_MEMORY, &ours);
        match peer {
            Ok(_) => {
                report.row("model: cryptotensors loads it from a local file", bytes, &loads);
                report.note("  load_file alone", &format!("{:.2} s", inside.median()));
                report.promise("model: cryptotensors over innerkeep unseal", LOAD_RATIO, landed, &loads);
            }
            Err(error) => report.absent("model: cryptotensors", &format!("{error:#}")),
        }
        Ok(())
    }
}
