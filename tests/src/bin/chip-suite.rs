//! The driver's suite against one chip: `chip-suite --chip CHIP --chip-root PEM --store LAYOUT --plaintext FILE [--case NAME]…`.
//!
//! One JSON object a case on standard output; exit status 0 when all went well.

use chip_client::address::DeviceAddress;
use clap::Parser;
use clap::builder::{OsStringValueParser, TypedValueParser};
use protected_memory::confine::enter_private_namespaces;
use std::path::PathBuf;
use std::process::ExitCode;
use tests::chip_suite::{CASES, Material, Suite};

/// The driver's suite against one chip.
#[derive(Debug, Parser)]
struct Arguments {
    /// The chip: `pci:0000:01:00.0`, or a vfio-user socket.
    #[arg(long, value_parser = OsStringValueParser::new().try_map(|text| DeviceAddress::parse(&text)))]
    chip: DeviceAddress,
    /// Root of the chip's certificates.
    #[arg(long)]
    chip_root: PathBuf,
    /// An artifact of one payload with a grant for the chip: an OCI image layout.
    #[arg(long)]
    store: PathBuf,
    /// What was sealed.
    #[arg(long)]
    plaintext: PathBuf,
    /// Only these cases.
    #[arg(long)]
    case: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    // Landing needs a mount; no thread exists yet.
    let _namespaces = enter_private_namespaces()?;
    let material = Material::read(&arguments.chip_root, &arguments.store, &arguments.plaintext)?;
    let suite = Suite { chip: arguments.chip, material };
    for name in &arguments.case {
        anyhow::ensure!(CASES.iter().any(|case| case.name == name), "there is no case {name}");
    }
    let mut failed = false;
    for case in CASES.iter().filter(|case| case.fits(&suite.chip)) {
        if arguments.case.is_empty() || arguments.case.iter().any(|name| name == case.name) {
            let (ok, line) = case.run(&suite);
            failed |= !ok;
            println!("{line}");
        }
    }
    Ok(ExitCode::from(u8::from(failed)))
}
