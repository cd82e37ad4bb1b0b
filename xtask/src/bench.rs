//! `cargo xtask bench`: builds for speed and starts one of the measuring programs of the crate `tests`.

use crate::shell::{self, Workspace};
use anyhow::bail;
use cargo_metadata::MetadataCommand;
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use xtask::vm;

/// Measure, in a release build: results go to `target/bench/`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What to measure.
    suite: Suite,
    /// Arguments of the measuring program itself.
    #[arg(last = true)]
    rest: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Suite {
    /// The guest agent over its socket: decisions, starts, memory, size.
    Agent,
    /// Evidence, handshakes with a key broker, secrets.
    Attest,
    /// From a stored artifact to a visible file, against memcpy, age, openssl, gpg and cp.
    Landing,
    /// Segments, grants, policy digest.
    Micro,
    /// Images and artifacts from a registry, against skopeo, umoci and cryptotensors; needs root.
    Pull,
    /// Boot of a guest under QEMU, requests over vsock, landing inside.
    Vm,
}

impl Suite {
    /// The program in `tests/src/bin/` that measures it.
    fn program(self) -> &'static str {
        match self {
            Self::Agent => "bench-agent",
            Self::Attest => "bench-attest",
            Self::Landing => "bench-landing",
            Self::Micro => "bench-micro",
            Self::Pull => "bench-pull",
            Self::Vm => "bench-vm",
        }
    }
}

/// Runs the subcommand.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let program = arguments.suite.program();
    let metadata = MetadataCommand::new().manifest_path(workspace.path("Cargo.toml")).no_deps().exec()?;
    let exists = metadata
        .packages
        .iter()
        .filter(|package| package.name.as_str() == "tests")
        .flat_map(|package| &package.targets)
        .any(|target| target.is_bin() && target.name == program);
    if !exists {
        bail!("not built yet: the package `tests` has no program `{program}`");
    }
    let out = workspace.target_dir().join("bench");
    std::fs::create_dir_all(&out)?;
    shell::stage("build (release)", || {
        let mut build = workspace.cargo("build");
        build.args(["--release", "--locked"]);
        if matches!(arguments.suite, Suite::Agent) {
            build.args(["-p", "agent", "-p", "tests"]);
            build.args(["--bin", "innerkeep-agent", "--bin", program]);
        } else {
            // Each is linked as a whole: none that nobody measures.
            build.args(["-p", "cli", "-p", "chip-emulator", "-p", "key-broker-emulator", "-p", "tests"]);
            build.args(["--bin", "innerkeep", "--bin", "innerkeep-chip-emulator"]);
            build.args(["--bin", "innerkeep-key-broker", "--bin", program]);
        }
        shell::run(&mut build)
    })?;
    if matches!(arguments.suite, Suite::Agent) {
        // Apart: what is measured is built without the features that the reference needs.
        shell::stage("workload and reference (release)", || {
            let mut build = workspace.cargo("build");
            build.args(["--release", "--locked", "-p", "policy-engine", "--example", "policy-workload"]);
            shell::run(&mut build)
        })?;
    }
    if matches!(arguments.suite, Suite::Vm) {
        shell::stage("guest programs (static)", || vm::build(workspace, &[]))?;
    }
    let mut measure = workspace.command(workspace.target_dir().join("release").join(program));
    measure.arg("--out").arg(&out).args(&arguments.rest);
    shell::run(&mut measure)
}
