//! `cargo xtask vm`: a guest kernel of one's own.

mod run;

use crate::demo;
use crate::shell::{self, Workspace};
use clap::{Args, Subcommand};
use std::fmt;
use xtask::vm::{self, Tools};

/// Boot a guest under QEMU, without hardware virtualisation, and run something inside.
///
/// The first use fetches QEMU and a kernel from Debian's archive into a cache (about 77 MB; the machine's own packages are not touched) and
/// compiles one back end. Exit status 75: no mirror answered.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the programs that run in guests, static.
    Build {
        /// Only these [default: all].
        names: Vec<String>,
    },
    /// Fetch QEMU, kernel and back ends, and say which versions there are.
    Fetch {
        /// Also when there are some: take the newest.
        #[arg(long)]
        refresh: bool,
    },
    Demo(demo::vm::Arguments),
    Run(run::Arguments),
}

/// The status of a command in a guest, handed on.
#[derive(Debug)]
pub struct Ended(pub u8);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command in the guest ended with status {}", self.0)
    }
}

impl std::error::Error for Ended {}

/// Runs the subcommand.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Build { names } => {
            shell::stage("guest programs (static)", || vm::build(workspace, names))?;
            Ok(())
        }
        Command::Fetch { refresh } => {
            let tools = if *refresh { Tools::refresh(&say)? } else { Tools::obtain(&say)? };
            println!("{}", tools.describe());
            Ok(())
        }
        Command::Demo(arguments) => demo::vm::run(workspace, arguments),
        Command::Run(arguments) => run::run(workspace, arguments),
    }
}

fn say(text: &str) {
    eprintln!("{text}");
}
