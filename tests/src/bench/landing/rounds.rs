//! Runs the cases in turn, round after round, each in a process of its own.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::plan::{Arguments, Case, Kind, TOOL_SIZE, shown_size};
use super::store::{self, Made, Stored};
use super::tools::{self, Chip, ToolJob, Tools};
use super::worker::{self, Job, Measured, Work};
use crate::statistics::Samples;

const SHMEM_ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// What this program asks of itself.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    Land(Job),
    Tool(ToolJob),
}

/// Answers what the parent asked; to be called first thing in `main`.
pub(crate) fn answer(text: &str) -> anyhow::Result<String> {
    Ok(match serde_json::from_str(text)? {
        Ask::Land(job) => serde_json::to_string(&worker::run(&job)?)?,
        Ask::Tool(job) => serde_json::to_string(&tools::run(&job)?)?,
    })
}

fn ask<T: DeserializeOwned>(ask: &Ask) -> anyhow::Result<T> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--out", ".", "--worker", &serde_json::to_string(ask)?])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        bail!("the measuring process ended with {}", output.status);
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// One case and what was measured.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: Case,
    /// Seconds, one a round.
    pub(crate) seconds: Samples,
    /// The round with the median time, where a worker said more.
    pub(crate) detail: Option<Measured>,
    /// The memory that was watched in a run of its own.
    pub(crate) memory: Option<Measured>,
}

/// Everything that was measured, and what was left out.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    pub(crate) skipped: Vec<(String, String)>,
}

/// The artifacts by size and whether they have a payload digest, with the digest of the core.
type Stores = HashMap<(u64, bool), (Made, String)>;

/// Makes artifacts, measures, removes artifacts.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Results> {
    let base = arguments.store_dir.clone().unwrap_or_else(|| arguments.out.clone());
    fs::create_dir_all(&base)?;
    let scratch = tempfile::Builder::new().prefix("stores-").tempdir_in(&base)?;
    let mut results = Results::default();
    let chip = start_chip(arguments, scratch.path(), &mut results);
    let base_pages = arguments.base_pages && fs::read_to_string(SHMEM_ENABLED).is_ok();
    if !base_pages {
        let reason =
            "ask for them with --base-pages (root): it changes shmem_enabled of the whole machine meanwhile";
        results.skipped.push(("destination of 4 KiB pages".to_owned(), reason.to_owned()));
    }
    // One size after the other: the page cache holds one set of artifacts at a time.
    for &size in &arguments.sizes {
        let here = Arguments { sizes: vec![size], ..clone_of(arguments) };
        let mut chip_now = chip.as_ref();
        let stores = make_stores(&here, scratch.path())?;
        if let Some(chip) = chip_now
            && let Some((made, core)) = stores.get(&(size, false))
            && let Err(error) = chip.grant(made, core)
        {
            results
                .skipped
                .push((format!("rows through the chip at {}", shown_size(size)), format!("{error:#}")));
            chip_now = None;
        }
        let mut cases = Case::of(&here, chip_now.is_some(), base_pages);
        let mut tools = None;
        if size == TOOL_SIZE {
            let most = here.threads.iter().max().copied().context("no number of threads")?;
            if chip_now.is_some() {
                cases.push(Case { kind: Kind::Command, size, threads: most });
            }
            if !here.no_tools {
                eprintln!("preparing files for other programs, {}", shown_size(size));
                let prepared = Tools::prepare(&scratch.path().join("tools"), size)?;
                for (name, reason) in &prepared.skipped {
                    results.skipped.push(((*name).to_owned(), reason.clone()));
                }
                let one = std::num::NonZeroUsize::MIN;
                cases.extend(prepared.jobs.iter().map(|(name, _)| Case {
                    kind: Kind::Tool { name },
                    size,
                    threads: one,
                }));
                tools = Some(prepared);
            }
        }
        let bench = Bench { stores: &stores, chip: chip_now, tools: tools.as_ref() };
        bench.rounds(&cases, arguments.rounds, &mut results)?;
        for (made, _) in stores.values() {
            fs::remove_dir_all(&made.path)?;
        }
        let _ = fs::remove_dir_all(scratch.path().join("tools"));
    }
    Ok(results)
}

fn clone_of(arguments: &Arguments) -> Arguments {
    Arguments {
        out: arguments.out.clone(),
        sizes: arguments.sizes.clone(),
        threads: arguments.threads.clone(),
        rounds: arguments.rounds,
        no_digest: arguments.no_digest,
        no_tools: arguments.no_tools,
        no_chip: arguments.no_chip,
        base_pages: arguments.base_pages,
        store_dir: arguments.store_dir.clone(),
        worker: None,
    }
}

fn start_chip(arguments: &Arguments, scratch: &Path, results: &mut Results) -> Option<Chip> {
    if arguments.no_chip {
        results.skipped.push(("rows through the emulated chip".to_owned(), "--no-chip".to_owned()));
        return None;
    }
    let chip = Chip::start(&scratch.join("chip"));
    chip.map_err(|error| {
        results.skipped.push(("rows through the emulated chip".to_owned(), format!("{error:#}")))
    })
    .ok()
}

fn make_stores(arguments: &Arguments, scratch: &Path) -> anyhow::Result<Stores> {
    let mut stores = Stores::new();
    let digests: &[bool] = if arguments.no_digest { &[false] } else { &[false, true] };
    for &size in &arguments.sizes {
        for &digest in digests {
            eprintln!("sealing {}{}", shown_size(size), if digest { " with payload digest" } else { "" });
            let path: PathBuf = scratch.join(format!("{size}-{digest}"));
            let made = store::make(&path, size, digest)?;
            let core = Stored::open(&made.path)?.core.digest().to_string();
            stores.insert((size, digest), (made, core));
        }
    }
    Ok(stores)
}

struct Bench<'a> {
    stores: &'a Stores,
    chip: Option<&'a Chip>,
    tools: Option<&'a Tools>,
}

impl Bench<'_> {
    fn rounds(&self, cases: &[Case], rounds: usize, results: &mut Results) -> anyhow::Result<()> {
        let mut measured: Vec<Vec<(f64, Option<Measured>)>> = cases.iter().map(|_| Vec::new()).collect();
        let mut broken: HashMap<String, String> = HashMap::new();
        for round in 0..rounds {
            eprintln!("round {} of {rounds}", round + 1);
            // Another case begins each round.
            let order = (0..cases.len()).cycle().skip(round).take(cases.len());
            for index in order {
                let (Some(case), Some(samples)) = (cases.get(index), measured.get_mut(index)) else {
                    continue;
                };
                if broken.contains_key(&case.name()) {
                    continue;
                }
                match self.measure(case, false) {
                    Ok(sample) => samples.push(sample),
                    Err(error) => {
                        eprintln!("{}: {error:#}", case.name());
                        broken.insert(case.name(), format!("{error:#}"));
                    }
                }
            }
        }
        for (case, samples) in cases.iter().zip(measured) {
            if let Some(reason) = broken.get(&case.name()) {
                results
                    .skipped
                    .push((format!("{} at {}", case.name(), shown_size(case.size)), reason.clone()));
                continue;
            }
            let memory = match case.kind {
                Kind::Work { work: Work::KeyRelease | Work::Copy, base_pages: false, .. } => {
                    self.measure(case, true)?.1
                }
                _ => None,
            };
            let seconds = Samples(samples.iter().map(|(seconds, _)| *seconds).collect());
            let median = seconds.median();
            let detail = samples
                .into_iter()
                .min_by(|(a, _), (b, _)| (a - median).abs().total_cmp(&(b - median).abs()))
                .and_then(|(_, detail)| detail);
            results.rows.push(Row { case: *case, seconds, detail, memory });
        }
        Ok(())
    }

    fn measure(&self, case: &Case, watch_memory: bool) -> anyhow::Result<(f64, Option<Measured>)> {
        let store = |digest| self.stores.get(&(case.size, digest)).context("no artifact");
        let job = |work, digest| -> anyhow::Result<Ask> {
            let (made, _) = store(digest)?;
            Ok(Ask::Land(Job {
                work,
                store: made.path.clone(),
                key: made.key.clone(),
                size: made.size,
                threads: case.threads,
                watch_memory,
            }))
        };
        match case.kind {
            Kind::Work { work, digest, base_pages } => {
                let _denied = base_pages.then(HugePagesDenied::enter).transpose()?;
                let measured: Measured = ask(&job(work, digest)?)?;
                if measured.huge_pages == base_pages {
                    bail!("the kernel gave {} pages", if measured.huge_pages { "huge" } else { "4 KiB" });
                }
                Ok((measured.seconds, Some(measured)))
            }
            Kind::Chip { path } => Ok((self.unseal(case, path, &job(Work::Warm, false)?)?.0, None)),
            Kind::Command => Ok((self.unseal(case, "key-release", &job(Work::Warm, false)?)?.1, None)),
            Kind::Tool { name } => {
                let tools = self.tools.context("no tools")?;
                let (_, job) = tools.jobs.iter().find(|(found, _)| *found == name).context("no such tool")?;
                Ok((ask(&Ask::Tool(job.clone()))?, None))
            }
        }
    }

    fn unseal(&self, case: &Case, path: &str, warm: &Ask) -> anyhow::Result<(f64, f64)> {
        let _: Measured = ask(warm)?;
        let chip = self.chip.context("no chip")?;
        let (made, core) = self.stores.get(&(case.size, false)).context("no artifact")?;
        chip.unseal(made, core, path, case.threads.get())
    }
}

/// No huge pages for tmpfs in the whole machine while this lives.
struct HugePagesDenied {
    before: String,
}

impl HugePagesDenied {
    fn enter() -> anyhow::Result<Self> {
        let text = fs::read_to_string(SHMEM_ENABLED)?;
        let before = text.split(['[', ']']).nth(1).context("shmem_enabled names no choice")?.to_owned();
        fs::write(SHMEM_ENABLED, "deny").context("shmem_enabled needs root")?;
        Ok(Self { before })
    }
}

impl Drop for HugePagesDenied {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SHMEM_ENABLED, &self.before) {
            eprintln!("{SHMEM_ENABLED} could not be set to {} again: {error}", self.before);
        }
    }
}
