//! Run-time integrity of file trees: what is mounted is what was verified, down to each block that is read.
//!
//! `verity` computes the fs-verity digests by which objects are known, and `erofs` makes a tree into the image whose digest stands for
//! all of it.

pub mod erofs;
mod error;
pub mod verity;

pub use error::ComposefsError;
