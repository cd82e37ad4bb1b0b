//! Attestation agent: providers, runtime measurement, KBS client, tokens, ttrpc service.
//!
//! ```text
//!  peer, chip client, KBS client ──▶ Claim ──▶ 64 bytes ──▶ Provider ──▶ Evidence ──▶ JSON | presentation
//!                                   closed set             TDX, SNP      parsed, report data compared,
//!  event ──▶ write-ahead ──▶ register ──▶ runtime log ──────────────────▶ log under the same lock
//! ```
//!
//! ```no_run
//! use attestation_agent::{Attester, Claim, Collateral, Options, TeeRoot};
//! # fn main() -> Result<(), attestation_agent::AttestationError> {
//! let attester = Attester::detect(&TeeRoot::system(), Options::default())?;
//! let evidence = attester.evidence(&Claim::ChipSession { transcript: [0; 64] })?;
//! let presented = evidence.present(&Collateral::none())?;
//! # let _ = presented;
//! # Ok(())
//! # }
//! ```
//!
//! It refuses to: have bytes attested that a caller chose, unless bound configuration lists that caller; go on without
//! a TEE; believe a configuration that nothing vouches for; take a register's value from a quote; extend a register
//! that it could not log; hand evidence out whose report data it did not compare.
//!
//! The contract is `docs/spec/attestation-v1.md`.

mod attester;
pub mod binding;
mod certificate_table;
pub mod collateral;
pub mod config;
mod configfs_tsm;
pub mod derived_key;
mod devices;
pub mod error;
mod guests;
mod ioctl;
pub mod kbs;
mod measurements;
pub mod program;
pub mod provider;
mod received;
pub mod report_data;
pub mod root;
mod run_directory;
mod runtime_log;
mod sample;
pub mod service;
mod sev_guest;
mod tdx_guest;
pub mod tee;
#[cfg(test)]
mod testing;
pub mod tpm;

pub use attester::{Attester, Bound, Extension, Options, Probe, Register};
pub use collateral::Collateral;
pub use error::{AttestationError, Class};
pub use provider::InitdataRegister;
pub use received::Evidence;
pub use report_data::{Claim, ReportData, WorkloadIdentity};
pub use root::TeeRoot;
pub use tee::Tee;
