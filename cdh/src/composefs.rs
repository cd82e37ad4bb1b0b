//! Run-time integrity of file trees: what is mounted is what was verified, down to each block that is read.
//!
//! ```text
//!  Tree ──erofs::write──▶ image ── its digest is pinned, or says what was unpacked
//!    │                      │
//!    │ contents             ▼        EROFS, from the file that was measured
//!    └──▶ objects ──▶ Verified ──▶ overlay, verity=require ──▶ probe ──▶ Mounted
//!          by digest                                                       └──▶ Writable: a tmpfs of the guest's above it
//! ```
//!
//! [`verity`] computes the digests by which objects are known, [`erofs`] makes a tree into the image whose digest stands for all of it, and
//! [`mount`] lets nobody read anything else. A read of a block that is not what the digest says is an error, never data.

pub mod erofs;
mod error;
pub mod fuzzing;
pub mod mount;
pub mod pin;
pub mod verity;

pub use error::ComposefsError;
