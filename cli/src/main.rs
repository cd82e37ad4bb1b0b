//! `innerkeep`: the command line of build pipelines, operators and guests.
//!
//! One file per command under `cmd`. Carriers (OCI image layout, `.sealed` file) and the way of plaintext into protected memory are the
//! library `cdh`'s. A result goes to standard output, failures and the report of `unseal` to standard error.
#![forbid(unsafe_code)]

mod args;
mod broker;
mod certificates;
mod cmd;
mod content_key;
mod error;
mod insecure;
mod output;
mod own_keys;
mod pins;
mod platform;

use std::process::ExitCode;

use cdh::artifact::store;
use cdh::files;
use clap::Parser;

use crate::args::{Cli, Command};
use crate::error::Failure;
use crate::output::Output;

fn main() -> ExitCode {
    let Cli { command, json, quiet } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(output::usage(&error)),
    };
    let output = Output { json, quiet };
    match run(&command, output) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit_status())
        }
    }
}

fn run(command: &Command, output: Output) -> Result<u8, Failure> {
    protected_memory::harden::forbid_core_dumps()?;
    // Namespaces next: no thread and no secret exists yet.
    if let Command::Unseal(arguments) = command {
        return cmd::unseal::run(arguments, output);
    }
    protected_memory::harden::harden_process()?;
    let report = match command {
        Command::Attest(arguments) => cmd::attest::run(arguments, output)?,
        Command::Audit(command) => match cmd::audit::run(command, output)? {
            Some(report) => report,
            None => return Ok(0),
        },
        Command::Chip(command) => cmd::chip::run(command)?,
        Command::Copy(arguments) => cmd::registry::copy(arguments, output)?,
        Command::Grant(command) => cmd::grant::run(command, output)?,
        Command::Initdata(command) => match cmd::initdata::run(command, output)? {
            Some(report) => report,
            None => return Ok(0),
        },
        Command::Inspect(arguments) => cmd::inspect::run(arguments)?,
        Command::Kbs(command) => match cmd::kbs::run(command, output)? {
            Some(report) => report,
            None => return Ok(0),
        },
        Command::Key(command) => cmd::key::run(command)?,
        Command::Policy(command) => cmd::policy::run(command, output)?,
        Command::Pull(arguments) => cmd::registry::pull(arguments, output)?,
        Command::Push(arguments) => cmd::registry::push(arguments, output)?,
        Command::Seal(arguments) => cmd::seal::run(arguments, output)?,
        Command::Secret(arguments) => cmd::secret::run(arguments)?,
        Command::Unseal(_) => return Ok(error::SOFTWARE),
        Command::Verify(arguments) => cmd::verify::run(arguments, output)?,
    };
    output.result(&report).map_err(Failure::file("write to", "standard output"))?;
    Ok(0)
}
