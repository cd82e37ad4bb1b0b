//! `confidential-data-hub`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cdh::program::main(std::env::args_os()).into()
}
