//! What fuzz targets share: a cap on memory, and fixed objects that hostile bytes are held against.
//!
//! ```text
//!  bytes ─▶ bounded(bytes, parser) ─▶ no panic · heap stays below a multiple of the input
//!                    └─▶ accepted ─▶ encodes to the same bytes · opens, verifies, satisfies nothing that it must not
//! ```
//!
//! Each target checks properties, not only the absence of crashes; see the first lines of each.

#![forbid(unsafe_op_in_unsafe_fn)]

pub mod fixed;
mod heap;
pub mod platform;
pub mod stream;
pub mod tpm;

pub use heap::{bounded, bounded_beside};

/// Strict JSON in other clothes: what it says, written canonically, so that mutated bytes get past the check of canonical form.
///
/// Good enough for ASCII member names, which are all that the formats have.
pub fn canonical(bytes: &[u8]) -> Option<Vec<u8>> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let text = serde_json::to_vec(&value).ok()?;
    (text != bytes).then_some(text)
}
