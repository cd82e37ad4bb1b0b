//! Sealed artifacts, version 1: one core, ciphertext in segments, tag tables, grants, a sealer's signature.
//!
//! The normative text is `docs/spec/sealed-artifact-v1.md`; its vectors are `tests/vectors/artifact`.
//!
//! ```text
//!  seal:   SealRequest ─► Sealer ─► PayloadSealer (each segment once, any thread) ─► Sealed { core, tag tables, content key }
//!                                                                                        │
//!  beside: Signature::sign(core)          Grant::seal(core, content key, recipient, policy)
//!                                                                                        │
//!  open:   Core::parse ─► verify_origin ─► Grant::open ─► Core::unlock ─► Unlocked::opener ─► PayloadOpener ─► Progress::finish
//!                         (pins, floors)   (policy first)  (commitments)   (tag table)         (segments)      (complete?)
//! ```
//!
//! What this crate refuses to do: it takes no key and no id for sealing, it encrypts no segment twice, it makes no
//! opener before commitments and tag table are verified, it releases no segment before its tag verified, and it does
//! no input or output of its own: it works on slices and on the caller's closures.
//!
//! ```
//! use std::num::NonZeroUsize;
//!
//! use sealed_artifact::core::Core;
//! use sealed_artifact::names::{Counter, EnvironmentTag, Family, MediaType, PayloadIndex, PayloadName, SegmentSize};
//! use sealed_artifact::parallel::{open_slices, seal_slices};
//! use sealed_artifact::seal::{SealInput, SealRequest, Sealer};
//! use sealed_artifact::signature::{Floors, Pin, verify_origin};
//!
//! # fn main() -> Result<(), sealed_artifact::ArtifactError> {
//! let weights = vec![7; 100_000];
//! let threads = NonZeroUsize::MIN;
//! let sealer = Sealer::new(&SealRequest {
//!     counter: Counter::new(1),
//!     environment: EnvironmentTag::parse("production")?,
//!     family: Family::parse("acme/ranker")?,
//!     inputs: vec![SealInput {
//!         media_type: MediaType::parse("application/octet-stream")?,
//!         name: PayloadName::parse("model.safetensors")?,
//!         size: 100_000,
//!     }],
//!     payload_digests: true,
//!     sealer: None,
//!     segment_size: SegmentSize::MINIMUM,
//! })?;
//! let mut ciphertext = vec![0; 100_000];
//! for payload in sealer.payloads() {
//!     seal_slices(payload, threads, &weights, &mut ciphertext, &())?;
//! }
//! let sealed = sealer.finish()?;
//!
//! let core = Core::parse(sealed.core.bytes())?;
//! verify_origin(&core, None, &[Pin::Core(sealed.core.digest())], &Floors::new())?;
//! let unlocked = core.unlock(&sealed.content_key)?;
//! let tag_table = sealed.tag_tables.first().map(|table| table.bytes()).unwrap_or_default();
//! let opener = unlocked.opener(PayloadIndex::new(0), tag_table)?;
//! let mut landed = vec![0; 100_000];
//! open_slices(&opener, threads, &ciphertext, &mut landed, &())?;
//! assert_eq!(landed, weights);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod completion;
pub mod core;
pub mod digest;
pub mod error;
pub mod grant;
mod json;
pub mod kbs;
pub mod keys;
pub mod layout;
pub mod names;
pub mod oci;
pub mod open;
pub mod parallel;
pub mod parameters;
pub mod policy;
mod recipient;
pub mod seal;
pub mod sealed_file;
mod sealer_key;
mod secret;
mod segment;
pub mod signature;
pub mod snp;
pub mod tags;
pub mod tpm;

#[cfg(test)]
mod carrier;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod vectors;

pub use error::{ArtifactError, Class};
