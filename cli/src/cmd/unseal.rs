//! `innerkeep unseal`: an artifact into protected memory by a chip, a key broker or a key of this guest, and a command on it.
//!
//! Order: namespaces, origin, TEE, landing preflight, session with evidence about itself (or the broker, processor, TPM), release, landing,
//! command. Nothing is asked of anybody for a core whose origin is not proven, and nothing is released before the landing has its memory.

mod disk;
mod guest;
mod landed;
mod own;
mod session;
mod source;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use chip_client::abi::DataPath;
use chip_client::chain::ChipIdentity;
use chip_client::session::UnwrapRequest;
use protected_memory::confine::{PrivateNamespaces, enter_private_namespaces};
use protected_memory::harden::harden_process;
use protected_memory::landing::{Complete, FileName, Filling, Landing};
use sealed_artifact::grant::{Grant, GrantSuite};
use sealed_artifact::keys::ContentKey;
use sealed_artifact::signature::Signature;

use crate::args::{PathArg, UnsealArgs};
use crate::cmd::seal::{Shown, threads};
use crate::error::Failure;
use crate::land;
use crate::output::{Output, Progress};
use crate::pins;
use crate::store::{Reference, Store};
use guest::{Facts, Guest};
use landed::Landed;
use session::Chip;
use source::Source;

/// Runs the command; returns the exit status of the command that it ran.
pub(crate) fn run(arguments: &UnsealArgs, output: Output) -> Result<u8, Failure> {
    if let Some(file) = &arguments.insecure_to_disk {
        harden_process()?;
        return disk::to_disk(arguments, output, file);
    }
    // First of all: no thread, no secret and no progress bar exists yet.
    let mut namespaces = enter_private_namespaces()?;
    harden_process()?;
    let prepared = Prepared::new(arguments)?;
    let total = prepared.total();
    let opened = prepared.opened;

    let guest = Guest::find(arguments)?;
    let tee = guest.tee();

    let start = Instant::now();
    let plan = land::plan(&prepared.store.core)?;
    let mut landing = Landing::create(&plan, guest.landing_policy(arguments), tee)?;
    let allocated = start.elapsed();
    let facts = Facts::new(arguments, &guest, Some(landing.report()));
    output.insecure(&facts.names());

    let mut chip = Chip::open(arguments, &prepared, facts.guest)?;
    let progress = output.progress("landing", total);
    let (filled, session) = match &mut chip {
        Some(chip) => fill(arguments, &prepared, &guest, chip, &mut landing, &progress)?,
        None => fill_by_key(arguments, &prepared, guest, &mut landing, &progress)?,
    };

    let start = Instant::now();
    // The chip stays connected meanwhile: one that kept memory of the landing has to be seen here.
    let landed = landing.complete()?;
    let notifications = chip.as_ref().map(Chip::notifications);
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
        notifications,
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

/// What is known before anything is asked of machine, chip or broker.
struct Prepared {
    store: Store,
    origin: String,
    source: Source,
    opened: Duration,
}

impl Prepared {
    fn new(arguments: &UnsealArgs) -> Result<Self, Failure> {
        let pins = pins::read(&arguments.pin)?;
        let reference = Reference::parse(&arguments.reference)?;
        let source = Source::of(arguments)?;
        let start = Instant::now();
        let store = Store::open(&reference)?;
        // Nothing is asked of anybody for a core whose origin is not proven.
        let origin = pins::describe(&pins::verify(&store, &pins)?);
        if arguments.verify_blob_digests {
            for index in 0..store.core.payloads().len() {
                store.payload(index)?.verify_digest(|_| ())?;
            }
        }
        Ok(Self { store, origin, source, opened: start.elapsed() })
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

/// Asks the chip and fills the landing: time spent on landing, and on the session.
fn fill(
    arguments: &UnsealArgs,
    prepared: &Prepared,
    guest: &Guest,
    chip: &mut Chip<'_>,
    landing: &mut Landing<Filling>,
    progress: &Progress,
) -> Result<(Duration, Duration), Failure> {
    let store = &prepared.store;
    let start = Instant::now();
    let grant = prepared.grant_for(&chip.identity)?;
    let request = UnwrapRequest::new(&store.core, grant, prepared.proof());
    let mut session = chip.session(arguments, guest, grant)?;
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
    Ok((decrypt(arguments, store, &key, landing, progress)?, asked))
}

/// Gets the key from broker, processor or TPM and fills the landing: time spent on landing, and on the key.
fn fill_by_key(
    arguments: &UnsealArgs,
    prepared: &Prepared,
    guest: Guest,
    landing: &mut Landing<Filling>,
    progress: &Progress,
) -> Result<(Duration, Duration), Failure> {
    let start = Instant::now();
    let key = own::content_key(arguments, prepared, guest)?;
    let asked = start.elapsed();
    Ok((decrypt(arguments, &prepared.store, &key, landing, progress)?, asked))
}

fn decrypt(
    arguments: &UnsealArgs,
    store: &Store,
    key: &ContentKey,
    landing: &mut Landing<Filling>,
    progress: &Progress,
) -> Result<Duration, Failure> {
    let start = Instant::now();
    let openers = land::openers(store, key)?;
    land::fill(store, &openers, landing, threads(arguments.threads), &Shown(progress))?;
    Ok(start.elapsed())
}

fn data_path(path: PathArg) -> DataPath {
    match path {
        PathArg::KeyRelease => DataPath::KeyRelease,
        PathArg::DmaSealed => DataPath::DmaSealed,
        PathArg::DmaDirect => DataPath::DmaDirect,
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
