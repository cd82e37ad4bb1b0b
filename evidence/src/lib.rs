//! Evidence of confidential guests: TDX quotes, TD reports, SEV-SNP reports, event logs.
//!
//! ```text
//!  bytes ──▶ abi::*::parse ──▶ structure          sizes, reserved bytes, nothing behind the end
//!  bytes + collateral + root + now ──▶ verify::* ──▶ VerifiedTdx | VerifiedSnp      cryptography only
//!  Verified* + rules ──▶ validate::* ──▶ Judgement ──▶ require()                    policy only
//!  log + verified registers ──▶ verify::replay ──▶ entries that the registers vouch for
//!
//!  presented bytes ──▶ Presentation ──▶ verify_presentation ──▶ VerifiedEvidence ──▶ judge(policy document) ──▶ Judgement
//! ```
//!
//! ```
//! use evidence::abi::snp::SnpReport;
//! use evidence::verify::roots::SnpRoots;
//! # fn main() -> Result<(), evidence::EvidenceError> {
//! let roots = SnpRoots::amd()?;
//! let refused = SnpReport::parse(b"no report");
//! assert_eq!(refused.map_err(|error| error.code()), Err("EVIDENCE_MALFORMED"));
//! # let _ = roots;
//! # Ok(())
//! # }
//! ```
//!
//! It refuses to: ask a clock, a file or the network for anything; believe a root that comes with the evidence; put
//! signatures and rules about the guest into one call; take bytes behind a structure; leave a rule out because
//! nothing was said about it. Emulated roots are believed only by constructors whose name says `danger`, and every
//! result says which set of roots was believed. The normative text is `docs/spec/evidence.md`.
#![forbid(unsafe_code)]

pub mod abi;
mod bytes;
pub mod error;
#[cfg(test)]
mod fixture;
#[cfg(any(test, feature = "test-util"))]
pub mod mint;
pub mod validate;
pub mod verify;

pub use bytes::Octets;
pub use error::{Class, EvidenceError};
