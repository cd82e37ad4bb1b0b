//! `cargo xtask`: the commands that build, test, check and show Innerkeep.
//!
//! One file per subcommand. Nothing here is shipped and nothing here is trusted by the product.
#![forbid(unsafe_code)]

mod bench;
mod compat;
#[expect(
    clippy::indexing_slicing,
    reason = "JSON of our own programs: a member that is missing is null, and is judged as such"
)]
mod demo;
mod deps;
mod fuzz;
mod guards;
mod lint;
mod setup;
mod test;
mod vm_command;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use xtask::{shell, vm};

/// Developer commands of Innerkeep.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Arguments),
    Compat(compat::Arguments),
    Demo(demo::Arguments),
    /// What the demo runs on the landed file.
    #[command(hide = true)]
    DemoConsumer {
        /// The landed file.
        path: std::path::PathBuf,
    },
    Deps(deps::Arguments),
    Fuzz(fuzz::Arguments),
    Guards(guards::Arguments),
    Lint(lint::Arguments),
    Setup(setup::Arguments),
    Test(test::Arguments),
    Vm(vm_command::Arguments),
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let outcome = match command {
        // Run by `innerkeep unseal`, outside of cargo.
        Command::DemoConsumer { path } => demo::consumer::run(&path),
        command => shell::Workspace::locate().and_then(|workspace| run(&workspace, command)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            failure(&error)
        }
    }
}

/// A mirror that does not answer has a status of its own (sysexits: EX_TEMPFAIL), and so has a command in a guest.
fn failure(error: &anyhow::Error) -> ExitCode {
    if error.is::<vm::Outage>() {
        return ExitCode::from(75);
    }
    match error.downcast_ref::<vm_command::Ended>() {
        Some(ended) => ExitCode::from(ended.0),
        None => ExitCode::FAILURE,
    }
}

fn run(workspace: &shell::Workspace, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Bench(arguments) => bench::run(workspace, &arguments),
        Command::Compat(arguments) => compat::run(workspace, &arguments),
        Command::DemoConsumer { path } => demo::consumer::run(&path),
        Command::Demo(arguments) => demo::run(workspace, &arguments),
        Command::Deps(arguments) => deps::run(workspace, &arguments),
        Command::Fuzz(arguments) => fuzz::run(workspace, &arguments),
        Command::Guards(arguments) => guards::run(workspace, &arguments),
        Command::Lint(arguments) => lint::run(workspace, &arguments),
        Command::Setup(arguments) => setup::run(workspace, &arguments),
        Command::Test(arguments) => test::run(workspace, &arguments),
        Command::Vm(arguments) => vm_command::run(workspace, &arguments),
    }
}
