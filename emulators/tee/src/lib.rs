//! A confidential guest's TEE, emulated below a directory: what the kernel of a TDX or SEV-SNP guest shows in `/sys`.
//!
//! ```text
//!   launch.toml ──▶ tee ──quote, report──▶ entries ──▶ files ──FUSE──▶ ROOT/sys/kernel/config/tsm/report/…
//!                  ▲ │                                   │             ROOT/sys/devices/virtual/misc/tdx_guest/measurements/…
//!    state ──keys──┘ └── registers, event log ───────────┘             ROOT/sys/firmware/acpi/tables/data/CCEL
//!      └── trust-roots.json, collateral-*.json         derived ──────▶ ROOT/dev/sev-guest.sock
//! ```
//!
//! ```
//! use tee_emulator::launch::Launch;
//! # fn main() -> anyhow::Result<()> {
//! let launch = Launch::parse("tee = \"snp\"\n[snp]\ngeneration = \"turin\"\nreport_version = 5\n")?;
//! assert_eq!(launch.snp.report_version, 5);
//! assert!(Launch::parse("tee = \"sgx\"\n").is_err());
//! # Ok(())
//! # }
//! ```
//!
//! Inside a virtual machine that exists for tests, `guest` puts the same files where a kernel shows them, and makes the nodes
//! of the guest drivers by CUSE: an unchanged program then sees a TEE. Only who verifies its evidence can tell.
//!
//! It protects nothing: its keys are in a file, and whoever starts it says what is measured. It refuses to serve the
//! root directory `/` itself, and to be believed by anybody who was not given its roots.
#![forbid(unsafe_code)]

mod boot;
pub mod cli;
mod cuse;
mod derived;
mod drivers;
mod entries;
pub mod faults;
mod files;
mod guest;
pub mod launch;
mod log;
mod run;
mod serve;
pub mod state;
pub mod tee;
#[cfg(test)]
mod testing;
