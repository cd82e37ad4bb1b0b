//! `innerkeep unseal`: an artifact into protected memory by a chip, a key broker or a key of this guest, and a command on it.
//!
//! Order: namespaces, origin, TEE, landing preflight, session with evidence about itself (or the broker, processor, TPM), release, landing,
//! command. Nothing is asked of anybody for a core whose origin is not proven, and nothing is released before the landing has its memory.

mod disk;
mod guest;
mod landed;
mod source;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Instant;

use cdh::artifact::{KeySource, Order, Prepared, Reference};
use chip_client::abi::DataPath;
use protected_memory::confine::{PrivateNamespaces, enter_private_namespaces};
use protected_memory::harden::harden_process;
use protected_memory::landing::FileName;

use crate::args::{PathArg, UnsealArgs};
use crate::cmd::seal::Shown;
use crate::error::Failure;
use crate::output::Output;
use crate::pins;
use landed::Report;

/// Runs the command; returns the exit status of the command that it ran.
pub(crate) fn run(arguments: &UnsealArgs, output: Output) -> Result<u8, Failure> {
    if let Some(file) = &arguments.insecure_to_disk {
        harden_process()?;
        return disk::to_disk(arguments, output, file);
    }
    // First of all: no thread, no secret and no progress bar exists yet.
    let mut namespaces = enter_private_namespaces()?;
    harden_process()?;
    let (prepared, source) = prepare(arguments)?;
    let guest = guest::find(arguments)?;
    let choices = guest::choices(arguments, &guest);
    let reserved = Order::new(&prepared, &source, &guest, choices).reserve()?;
    output.insecure(&reserved.facts().names());
    let progress = output.progress("landing", prepared.total());
    let landed = reserved.land(&Shown(&progress))?;

    let start = Instant::now();
    let directory = FileName::parse("model")?;
    let mount = namespaces.attach(&landed.landing, &directory)?;
    let seconds = (landed.spent + start.elapsed()).as_secs_f64();
    let _ = progress.finish();

    let report =
        Report { prepared: &prepared, source: &source, landed: &landed, path: arguments.path, seconds };
    output.aside(&report.describe()).map_err(Failure::file("write to", "standard error"))?;
    let files: Vec<PathBuf> = landed.landing.files().map(|(name, _)| mount.file(name)).collect();
    let status = consume(&namespaces, &arguments.command, mount.path(), &files)?;
    landed.landing.release()?;
    Ok(exit_status(status))
}

/// What is known before anything is asked of machine, chip or broker.
fn prepare(arguments: &UnsealArgs) -> Result<(Prepared, KeySource), Failure> {
    let pins = pins::read(&arguments.pin)?;
    let reference = Reference::parse(&arguments.reference)?;
    let source = source::of(arguments)?;
    let mut prepared = Prepared::open(&reference, &pins)?;
    if arguments.verify_blob_digests {
        prepared.verify_blob_digests()?;
    }
    Ok((prepared, source))
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
