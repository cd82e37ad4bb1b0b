//! `confidential-data-hub`.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(status) = cdh::worker::main() {
        return u8::try_from(status).unwrap_or(1).into();
    }
    cdh::program::main(std::env::args_os()).into()
}
