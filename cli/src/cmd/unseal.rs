//! `innerkeep unseal`: an artifact through a chip into protected memory, and a command on it.
//!
//! Order: namespaces, origin, landing preflight, session, release, landing, command. Nothing is asked of the chip for a core whose origin is
//! not proven, and nothing is released before the landing has its memory.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use chip_client::abi::{DataPath, InsecureFlags};
use chip_client::chain::{ChipIdentity, TrustRoot};
use chip_client::driver::{Driver, RingMemory};
use chip_client::error::ChipError;
use chip_client::session::{ExpectedChip, Open, Requirement, Session, SuiteRequirement, UnwrapRequest};
use protected_memory::PageClass;
use protected_memory::confine::{PrivateNamespaces, enter_private_namespaces};
use protected_memory::harden::harden_process;
use protected_memory::landing::{
    Complete, FileName, Filling, InsecureChoice, Landing, LandingPolicy, LandingReport, SwapPolicy,
    TeePolicy, TeeState,
};
use sealed_artifact::grant::{Grant, GrantSuite};
use sealed_artifact::signature::Signature;
use serde_json::{Value, json};

use crate::args::{PathArg, UnsealArgs};
use crate::certificates;
use crate::cmd::chip;
use crate::cmd::seal::{Shown, threads};
use crate::error::Failure;
use crate::land;
use crate::output::{Output, Progress, Report};
use crate::pins;
use crate::store::{Reference, Store};

/// Runs the command; returns the exit status of the command that it ran.
pub(crate) fn run(arguments: &UnsealArgs, output: Output) -> Result<u8, Failure> {
    if let Some(file) = &arguments.insecure_to_disk {
        harden_process()?;
        return to_disk(arguments, output, file);
    }
    // First of all: no thread, no secret and no progress bar exists yet.
    let mut namespaces = enter_private_namespaces()?;
    harden_process()?;
    let prepared = Prepared::new(arguments)?;
    let total = prepared.total();
    let opened = prepared.opened;

    let start = Instant::now();
    let policy = LandingPolicy {
        tee: if arguments.insecure_no_tee { TeePolicy::InsecureNoTee } else { TeePolicy::Require },
        swap: if arguments.insecure_swap { SwapPolicy::InsecureSwap } else { SwapPolicy::Refuse },
    };
    let mut landing = Landing::create(&land::plan(&prepared.store.core)?, policy, TeeState::None)?;
    let allocated = start.elapsed();
    let facts = Facts::new(arguments, Some(landing.report()));
    output.insecure(&facts.names());

    let mut chip = Chip::open(arguments, &prepared, facts.guest)?;
    let progress = output.progress("landing", total);
    let (filled, session) = fill(arguments, &prepared, &mut chip, &mut landing, &progress)?;

    let start = Instant::now();
    // The chip stays connected meanwhile: one that kept memory of the landing has to be seen here.
    let landed = landing.complete()?;
    drop(chip);
    if arguments.path == PathArg::DmaDirect {
        // Until now the device could still write: only what cannot change any more is hashed.
        land::verify_landed(&prepared.store, &landed)?;
    }
    let directory = FileName::parse("model")?;
    let mount = namespaces.attach(&landed, &directory)?;
    let visible = start.elapsed();
    let _ = progress.finish();

    let seconds = (opened + allocated + filled + visible).as_secs_f64();
    let report = Landed {
        prepared: &prepared,
        report: landed.report(),
        facts: &facts,
        path: arguments.path,
        seconds,
        session,
    };
    output.aside(&report.describe()).map_err(Failure::file("write to", "standard error"))?;
    let files: Vec<PathBuf> = landed.files().map(|(name, _)| mount.file(name)).collect();
    let status = consume(&namespaces, &arguments.command, mount.path(), &files)?;
    release(landed)?;
    Ok(exit_status(status))
}

fn release(landed: Landing<Complete>) -> Result<(), Failure> {
    Ok(landed.release()?)
}

/// What is known before anything is asked of machine or chip.
struct Prepared {
    store: Store,
    origin: String,
    root: TrustRoot,
    opened: Duration,
}

impl Prepared {
    fn new(arguments: &UnsealArgs) -> Result<Self, Failure> {
        let pins = pins::read(&arguments.pin)?;
        let reference = Reference::parse(&arguments.reference)?;
        let root = certificates::read_root(&arguments.chip_root)?;
        let start = Instant::now();
        let store = Store::open(&reference)?;
        // Nothing is asked of a chip for a core whose origin is not proven.
        let origin = pins::describe(&pins::verify(&store, &pins)?);
        if arguments.verify_blob_digests {
            for index in 0..store.core.payloads().len() {
                store.payload(index)?.verify_digest(|_| ())?;
            }
        }
        Ok(Self { store, origin, root, opened: start.elapsed() })
    }

    /// The sealer's signature for the chip's own floor, if it is one: beside a core that is pinned by digest anything may lie.
    fn proof(&self) -> Option<&Signature> {
        self.store.signature.as_ref().filter(|signature| signature.verify(&self.store.core).is_ok())
    }

    fn total(&self) -> u64 {
        self.store.core.parameters().payloads().iter().map(|payload| payload.layout.size()).sum()
    }

    /// The grant for this chip: of its epoch, the post-quantum one if there are two.
    fn grant_for(&self, chip: &ChipIdentity) -> Result<&Grant, Failure> {
        let fitting = |grant: &&Grant| {
            grant.recipient().as_bytes() == chip.id().as_bytes()
                && grant.key_epoch().value() == chip.key_epoch()
                && grant.require_object(&self.store.core).is_ok()
        };
        self.store
            .grants
            .iter()
            .map(|stored| &stored.grant)
            .filter(fitting)
            .max_by_key(|grant| grant.suite() == GrantSuite::XWing)
            .ok_or_else(|| Failure::NoGrantForChip {
                chip: chip.id().to_string(),
                found: self.store.grants.len(),
            })
    }
}

/// The insecure modes that are in effect.
struct Facts {
    guest: InsecureFlags,
}

impl Facts {
    fn new(arguments: &UnsealArgs, landing: Option<&LandingReport>) -> Self {
        let mut guest = InsecureFlags::NONE;
        for choice in landing.map(|report| report.insecure.as_slice()).unwrap_or_default() {
            guest = guest.union(match choice {
                InsecureChoice::NoTee => InsecureFlags::NO_TEE,
                _ => InsecureFlags::SWAP,
            });
        }
        if landing.is_none() {
            guest = guest.union(InsecureFlags::NO_TEE).union(InsecureFlags::SWAP);
        }
        if arguments.insecure_no_evidence {
            guest = guest.union(InsecureFlags::NO_EVIDENCE);
        }
        if arguments.insecure_emulated_dma {
            guest = guest.union(InsecureFlags::EMULATED_DMA);
        }
        Self { guest }
    }

    fn names(&self) -> Vec<&'static str> {
        InsecureFlags::NAMED
            .iter()
            .filter(|(flag, _)| self.guest.contains(*flag))
            .map(|(_, name)| *name)
            .collect()
    }
}

/// A chip that is up, and who it is.
struct Chip {
    driver: Driver,
    identity: ChipIdentity,
    guest: InsecureFlags,
}

impl Chip {
    fn open(arguments: &UnsealArgs, prepared: &Prepared, guest: InsecureFlags) -> Result<Self, Failure> {
        let rings =
            if arguments.path == PathArg::DmaDirect { RingMemory::Private } else { chip::SHARED_RINGS };
        let mut driver = chip::open(&arguments.chip, rings)?;
        let identity = ChipIdentity::verify(&prepared.root, &driver.chain()?).map_err(ChipError::from)?;
        Ok(Self { driver, identity, guest })
    }

    fn session(&mut self, arguments: &UnsealArgs, prepared: &Prepared) -> Result<Session<'_, Open>, Failure> {
        let mut accepted = InsecureFlags::NONE;
        if arguments.insecure_no_evidence {
            accepted = accepted.union(InsecureFlags::NO_EVIDENCE).union(InsecureFlags::EMULATED_CHIP);
        }
        if arguments.insecure_emulated_dma {
            accepted = accepted.union(InsecureFlags::EMULATED_DMA);
        }
        let requirement = Requirement {
            root: &prepared.root,
            chip: ExpectedChip::Exactly(self.identity.id()),
            path: data_path(arguments.path),
            suite: if arguments.allow_classical {
                SuiteRequirement::AtLeastClassical
            } else {
                SuiteRequirement::Hybrid
            },
            guest_insecure: self.guest,
            accepted_insecure: accepted,
        };
        Ok(Session::open(&mut self.driver, &requirement)?)
    }
}

/// Asks the chip and fills the landing: time spent on landing, and on the session.
fn fill(
    arguments: &UnsealArgs,
    prepared: &Prepared,
    chip: &mut Chip,
    landing: &mut Landing<Filling>,
    progress: &Progress,
) -> Result<(Duration, Duration), Failure> {
    let store = &prepared.store;
    let start = Instant::now();
    let grant = prepared.grant_for(&chip.identity)?;
    let request = UnwrapRequest::new(&store.core, grant, prepared.proof());
    let session = chip.session(arguments, prepared)?;
    // Attestation is not part of this build: the session says so in its transcript, and the chip decides.
    let mut session = session.present(grant.preimage(), |_| Ok(Vec::new()))?;
    if arguments.path != PathArg::KeyRelease {
        let handle = session.unwrap_grant(&request)?;
        let asked = start.elapsed();
        let start = Instant::now();
        land::fill_by_dma(store, &mut session, handle, arguments.path, landing, progress)?;
        session.close()?;
        return Ok((start.elapsed(), asked));
    }
    let key = session.release_key(&request)?;
    session.close()?;
    let asked = start.elapsed();
    let start = Instant::now();
    let openers = land::openers(store, &key)?;
    land::fill(store, &openers, landing, threads(arguments.threads), &Shown(progress))?;
    Ok((start.elapsed(), asked))
}

fn data_path(path: PathArg) -> DataPath {
    match path {
        PathArg::KeyRelease => DataPath::KeyRelease,
        PathArg::DmaSealed => DataPath::DmaSealed,
        PathArg::DmaDirect => DataPath::DmaDirect,
    }
}

/// What is said about a landing.
struct Landed<'a> {
    prepared: &'a Prepared,
    report: &'a LandingReport,
    facts: &'a Facts,
    path: PathArg,
    seconds: f64,
    session: Duration,
}

impl Landed<'_> {
    fn describe(&self) -> Report {
        let bytes = self.prepared.total();
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let rate = bytes as f64 / 1e9 / self.seconds.max(1e-9);
        let pages = match self.report.page_class {
            PageClass::Huge2M => "huge-2m",
            _ => "base-4k",
        };
        let core = self.prepared.store.core.digest().to_string();
        let files: Vec<Value> = self
            .prepared
            .store
            .core
            .parameters()
            .payloads()
            .iter()
            .map(|payload| json!({ "name": payload.name.as_str(), "size": payload.layout.size() }))
            .collect();
        let path = data_path(self.path).name();
        Report {
            text: format!(
                "landed  {bytes} bytes in {:.3} s ({rate:.2} GB/s) by {path}, {pages} pages; session {:.3} s; origin: {}",
                self.seconds,
                self.session.as_secs_f64(),
                self.prepared.origin
            ),
            json: json!({
                "bytes": bytes, "seconds": self.seconds, "gb_per_s": rate, "session_seconds": self.session.as_secs_f64(), "path": path,
                "pages": pages, "noswap": self.report.noswap, "insecure": self.facts.names(), "core": core, "origin": self.prepared.origin,
                "files": files, "payload_digests": self.prepared.store.core.has_payload_digests(),
            }),
        }
    }
}

/// Runs the command without capabilities, on the landed files.
fn consume(
    namespaces: &PrivateNamespaces,
    words: &[String],
    directory: &Path,
    files: &[PathBuf],
) -> Result<ExitStatus, Failure> {
    let Some((program, words)) = words.split_first() else {
        return Err(Failure::Usage { argument: "COMMAND", expected: "a command", found: String::new() });
    };
    let first = files.first().map(PathBuf::as_path).unwrap_or(directory).display().to_string();
    let mut command = Command::new(program);
    command.args(words.iter().map(|word| word.replace("{}", &first)));
    if !words.iter().any(|word| word.contains("{}")) {
        command.arg(&first);
    }
    command.env("INNERKEEP_FILE", &first).env("INNERKEEP_DIR", directory);
    Ok(namespaces.run(command)?)
}

/// The status that a shell would see.
fn exit_status(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let number = status.code().or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(1)
}

/// `--insecure-to-disk`: the first payload, as a plain file that did not exist.
fn to_disk(arguments: &UnsealArgs, output: Output, path: &Path) -> Result<u8, Failure> {
    use std::os::unix::fs::OpenOptionsExt;
    if !arguments.insecure_no_tee {
        return Err(Failure::Usage {
            argument: "--insecure-to-disk",
            expected: "--insecure-no-tee beside it: a file on disk is outside of any TEE",
            found: "none".to_owned(),
        });
    }
    if arguments.path != PathArg::KeyRelease {
        return Err(Failure::Usage {
            argument: "--insecure-to-disk",
            expected: "--path key-release",
            found: data_path(arguments.path).name().to_owned(),
        });
    }
    let prepared = Prepared::new(arguments)?;
    let facts = Facts::new(arguments, None);
    let mut names = facts.names();
    names.push("to-disk");
    output.insecure(&names);
    let payloads = prepared.store.core.payloads().len();
    if payloads != 1 {
        return Err(Failure::Usage {
            argument: "--insecure-to-disk",
            expected: "an artifact with one payload",
            found: payloads.to_string(),
        });
    }
    let mut chip = Chip::open(arguments, &prepared, facts.guest)?;
    let grant = prepared.grant_for(&chip.identity)?;
    let request = UnwrapRequest::new(&prepared.store.core, grant, prepared.proof());
    let mut session = chip.session(arguments, &prepared)?.present(grant.preimage(), |_| Ok(Vec::new()))?;
    let key = session.release_key(&request)?;
    session.close()?;
    drop(chip);
    let openers = land::openers(&prepared.store, &key)?;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(Failure::file("write plaintext to", path))?;
    let progress = output.progress("writing", prepared.total());
    for (index, opener) in openers.iter().enumerate() {
        let written = land::write_to(
            &prepared.store,
            opener,
            index,
            (&file, path),
            threads(arguments.threads),
            &Shown(&progress),
        );
        if let Err(failure) = written {
            // Nothing partial stays visible.
            let _ = std::fs::remove_file(path);
            return Err(failure);
        }
    }
    let timing = progress.finish();
    let report = Report {
        text: format!(
            "written  {} bytes to {} in {:.3} s, INSECURE: a plain file on disk",
            timing.bytes,
            path.display(),
            timing.seconds
        ),
        json: json!({ "bytes": timing.bytes, "seconds": timing.seconds, "gb_per_s": timing.gb_per_s(), "file": path, "insecure": names, "path": "key-release" }),
    };
    output.aside(&report).map_err(Failure::file("write to", "standard error"))?;
    Ok(0)
}
