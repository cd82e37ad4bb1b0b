//! The processes of the demo and what they are told.

use super::guest::Guest;
use crate::shell::Workspace;
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The file to seal.
pub struct PreparedModel {
    /// Where it is.
    pub path: PathBuf,
    /// Where it comes from, for the reader.
    pub origin: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, hex.
    pub sha256: String,
}

/// A scratch directory, removed at the end unless kept.
pub struct WorkDirectory(std::cell::RefCell<Option<tempfile::TempDir>>, PathBuf);

impl WorkDirectory {
    /// A fresh directory; short, since socket paths are limited to 107 bytes.
    pub fn create(_workspace: &Workspace) -> anyhow::Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("ik-demo-").tempdir().context("make a scratch directory")?;
        let path = directory.path().to_owned();
        Ok(Self(std::cell::RefCell::new(Some(directory)), path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.1
    }

    /// Keeps it after the end.
    pub fn keep(&self) -> &Path {
        if let Some(directory) = self.0.borrow_mut().take() {
            let _ = directory.keep();
        }
        &self.1
    }
}

/// The shipped command-line program.
pub struct Innerkeep {
    program: PathBuf,
    quiet: bool,
}

/// What a run of it said.
pub struct Said {
    /// Exit status; `None`: killed by a signal.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// The last JSON object on standard error: the report, or the refusal, of `unseal`.
    pub fn report(&self) -> anyhow::Result<Value> {
        let line = self
            .stderr
            .lines()
            .rev()
            .find(|line| line.starts_with('{'))
            .with_context(|| format!("no JSON line in: {}", self.stderr))?;
        serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))
    }

    /// The stable code of the refusal.
    pub fn code(&self) -> anyhow::Result<String> {
        let report = self.report()?;
        Ok(report["error"]["code"]
            .as_str()
            .with_context(|| format!("no error code in: {report}"))?
            .to_owned())
    }
}

impl Innerkeep {
    /// The program that `cargo build --profile ci` made.
    pub fn new(workspace: &Workspace, quiet: bool) -> anyhow::Result<Self> {
        let program = workspace.ci_bin_dir().join("innerkeep");
        ensure!(program.is_file(), "{} is not built", program.display());
        Ok(Self { program, quiet })
    }

    /// Runs it to the end; progress goes to the terminal; a failure is an error. Returns its JSON result.
    pub fn run(&self, arguments: &[&OsStr]) -> anyhow::Result<Value> {
        let mut command = Command::new(&self.program);
        command.arg("--json").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(if self.quiet { Stdio::piped() } else { Stdio::inherit() });
        let output = command.output().with_context(|| format!("start {}", self.program.display()))?;
        if !output.status.success() {
            bail!(
                "innerkeep {arguments:?} ended with {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("result of innerkeep {arguments:?}"))
    }

    /// Runs it to the end and returns what it said, success or not.
    pub fn attempt(&self, arguments: &[std::ffi::OsString]) -> anyhow::Result<Said> {
        let mut command = Command::new(&self.program);
        command.arg("--json").args(arguments);
        attempt(command)
    }

    /// Runs it in a guest to the end and returns what it said, success or not.
    pub fn attempt_in(&self, guest: &Guest, arguments: &[&OsStr]) -> anyhow::Result<Said> {
        let mut command = guest.command(&self.program);
        command.arg("--json").args(arguments);
        attempt(command)
    }
}

/// Runs a command to the end and returns what it said.
pub fn attempt(mut command: Command) -> anyhow::Result<Said> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    Ok(Said {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// An emulated chip in its own process.
pub struct Chip {
    /// The vfio-user socket.
    pub socket: PathBuf,
    process: Child,
}

impl Chip {
    /// Starts one with a new silicon, and waits until it listens. It demands evidence, and believes the emulated TEE's roots.
    pub fn start(
        workspace: &Workspace,
        work: &Path,
        name: &str,
        path: &str,
        trust_roots: &Path,
    ) -> anyhow::Result<Self> {
        let program = workspace.ci_bin_dir().join("innerkeep-chip-emulator");
        let socket = work.join(format!("{name}.sock"));
        let log = std::fs::File::create(work.join(format!("{name}.log"))).context("create the chip's log")?;
        let mut process = Command::new(&program)
            .arg("--insecure-trust-roots")
            .arg(trust_roots)
            .args((path == "dma-direct").then_some("--insecure-emulated-dma"))
            .arg("--socket")
            .arg(&socket)
            .arg("--state")
            .arg(work.join(name))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let stdout = process.stdout.take().context("the chip's standard output")?;
        let (ready, wait) = mpsc::channel();
        std::thread::spawn(move || {
            let found =
                BufReader::new(stdout).lines().map_while(Result::ok).any(|line| line.contains("ready"));
            let _ = ready.send(found);
        });
        let chip = Self { socket, process };
        match wait.recv_timeout(Duration::from_secs(30)) {
            Ok(true) => Ok(chip),
            _ => bail!(
                "the chip emulator did not become ready; see {}",
                work.join(format!("{name}.log")).display()
            ),
        }
    }
}

impl Chip {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Chip {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
