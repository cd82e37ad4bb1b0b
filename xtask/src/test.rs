//! `cargo xtask test`: everything that can fail without a chip on the table.
//!
//! The test runner comes last and its summary is the last thing printed, so that whoever reads the end of a log
//! reads the runner's own words.

mod compat;
mod unprivileged;

use crate::guards;
use crate::shell::{self, Workspace};
use anyhow::{Context, bail};
use cargo_metadata::{Message, Target};
use clap::Args;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use xtask::vm::{self, Tools};

/// Build once, then run all tests.
///
/// Stages: build; QEMU, kernel and programs of test guests; doc tests; tests/compat (second readers of the formats, in Python); landing and demo tests again
/// as an unprivileged user (when started as root); last the workspace's tests, with cargo-nextest where it is
/// installed.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Everything at full length: what is otherwise sampled (kills, guards) runs in full. Takes hours.
    #[arg(long)]
    long: bool,
    /// Run only the workspace tests whose name contains this, and no other stage.
    filter: Option<String>,
}

/// A program made of a crate's tests.
#[derive(Debug)]
struct TestProgram {
    target: Target,
    executable: PathBuf,
    package_dir: PathBuf,
}

/// The variable that tells tests to run at full length.
const LONG: &str = "INNERKEEP_TEST_LONG";

/// Runs the subcommand. A failed stage does not keep the later ones from running.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let programs = shell::stage("build (profile ci)", || build(workspace))?;
    // Test guests: what is missing is a failure here, and not a test that skips itself.
    shell::stage("QEMU and kernel", || Tools::obtain(&|text| eprintln!("{text}")))?;
    shell::stage("guest programs (static)", || vm::build(workspace, &[]))?;
    let mut failed = Vec::new();
    let mut attempt = |name: &'static str, work: &mut dyn FnMut() -> anyhow::Result<()>| {
        if let Err(error) = shell::stage(name, work) {
            eprintln!("{error:#}");
            failed.push(name);
        }
    };
    if arguments.filter.is_none() {
        attempt("doc tests", &mut || doc_tests(workspace));
        attempt("compat (Python)", &mut || compat::run(workspace, arguments.long));
        attempt("without root", &mut || unprivileged::run(workspace, &programs));
        if arguments.long {
            attempt("guards, all", &mut || guards::run(workspace, &guards::Arguments::all()));
        }
    }
    eprintln!("==> workspace tests");
    let status = workspace_tests(workspace, arguments)?;
    // Where all is well nothing is printed after the runner's summary.
    if !failed.is_empty() {
        bail!("failed before the workspace tests: {}", failed.join(", "));
    }
    if !status.success() {
        std::process::exit(status.code().unwrap_or(1));
    }
    Ok(())
}

/// Builds programs and tests in one go, so that tests find the programs beside them.
fn build(workspace: &Workspace) -> anyhow::Result<Vec<TestProgram>> {
    let mut cargo = workspace.cargo("build");
    cargo.args(["--profile", "ci", "--workspace", "--bins", "--tests", "--locked"]);
    cargo.arg("--message-format=json-render-diagnostics").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = cargo.spawn().with_context(|| format!("start {}", shell::shown(&cargo)))?;
    let stdout = child.stdout.take().context("cargo's standard output is not piped")?;
    let mut programs = Vec::new();
    for message in Message::parse_stream(BufReader::new(stdout)) {
        let Message::CompilerArtifact(artifact) = message? else { continue };
        if let (true, Some(executable)) = (artifact.profile.test, artifact.executable) {
            let package_dir = artifact.manifest_path.parent().context("a manifest without a directory")?;
            programs.push(TestProgram {
                target: artifact.target,
                executable: executable.into(),
                package_dir: package_dir.into(),
            });
        }
    }
    let status = child.wait()?;
    anyhow::ensure!(status.success(), "{} ended with {status}", shell::shown(&cargo));
    Ok(programs)
}

fn doc_tests(workspace: &Workspace) -> anyhow::Result<()> {
    let mut cargo = workspace.cargo("test");
    cargo.args(["--profile", "ci", "--workspace", "--doc", "--locked", "--quiet"]);
    shell::run(&mut cargo)
}

fn workspace_tests(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<ExitStatus> {
    let mut cargo = if shell::has_cargo_subcommand("nextest") {
        let mut cargo = workspace.cargo("nextest");
        cargo.args(["run", "--cargo-profile", "ci", "--workspace", "--locked"]);
        cargo.args(["--status-level", "slow", "--final-status-level", "slow"]);
        if arguments.long {
            cargo.args(["--profile", "long"]);
        }
        cargo
    } else {
        let mut cargo = workspace.cargo("test");
        cargo.args(["--profile", "ci", "--workspace", "--tests", "--locked"]);
        cargo.args(["--no-fail-fast"]);
        cargo
    };
    cargo.args(&arguments.filter);
    if arguments.long {
        cargo.env(LONG, "1");
    }
    cargo.stdin(Stdio::null()).status().with_context(|| format!("start {}", shell::shown(&cargo)))
}
