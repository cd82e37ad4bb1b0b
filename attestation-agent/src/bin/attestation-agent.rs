//! `attestation-agent`.

use std::process::ExitCode;

fn main() -> ExitCode {
    attestation_agent::program::main(std::env::args_os()).into()
}
