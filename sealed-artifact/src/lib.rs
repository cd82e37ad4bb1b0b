//! Sealed artifacts, version 1.
#![forbid(unsafe_code)]

mod completion;
pub mod core;
pub mod digest;
pub mod error;
pub mod grant;
mod json;
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
mod segment;
pub mod signature;
pub mod tags;

#[cfg(test)]
mod carrier;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod vectors;

pub use error::{ArtifactError, Class};
