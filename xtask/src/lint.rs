//! `cargo xtask lint`: formatting, clippy, docs, and the rules of this project that no other tool knows.

mod file_size;
mod leaks;
mod named_tests;
mod supply;
mod unsafe_islands;

use crate::shell::{self, Workspace};
use crate::{compat, deps, guards};
use anyhow::bail;
use clap::Args;

/// Check the sources: rustfmt, clippy, rustdoc, dependency table, file sizes, unsafe islands, guards, leaks, compatibility, licences.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only the rules that need no compilation.
    #[arg(long)]
    quick: bool,
}

/// Runs the subcommand: every rule, then one verdict.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    type Rule = fn(&Workspace) -> anyhow::Result<()>;
    let quick: [(&str, Rule); 9] = [
        ("rustfmt", rustfmt),
        ("deps", |workspace| deps::run(workspace, &deps::Arguments {})),
        ("file sizes", file_size::lint),
        ("unsafe islands", unsafe_islands::lint),
        ("leaks", leaks::lint),
        ("guard comments", guards::lint),
        ("named tests", named_tests::lint),
        ("compatibility", compat::lint),
        ("supply chain", supply::lint),
    ];
    let slow: [(&str, Rule); 2] = [("clippy", clippy), ("rustdoc", rustdoc)];
    let slow = if arguments.quick { &[][..] } else { &slow[..] };
    let mut broken = Vec::new();
    for (name, rule) in quick.iter().chain(slow) {
        if let Err(error) = shell::stage(name, || rule(workspace)) {
            eprintln!("{error:#}");
            broken.push(*name);
        }
    }
    if !broken.is_empty() {
        bail!("broken: {}", broken.join(", "));
    }
    println!("lint: all rules hold");
    Ok(())
}

fn rustfmt(workspace: &Workspace) -> anyhow::Result<()> {
    shell::run(workspace.cargo("fmt").args(["--all", "--check"]))
}

fn clippy(workspace: &Workspace) -> anyhow::Result<()> {
    let mut cargo = workspace.cargo("clippy");
    cargo.args([
        "--workspace",
        "--all-targets",
        "--profile",
        "ci",
        "--locked",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]);
    shell::run(&mut cargo)
}

fn rustdoc(workspace: &Workspace) -> anyhow::Result<()> {
    let mut cargo = workspace.cargo("doc");
    cargo.args(["--workspace", "--no-deps", "--profile", "ci", "--locked", "--quiet"]);
    shell::run(cargo.env("RUSTDOCFLAGS", "-Dwarnings"))
}
