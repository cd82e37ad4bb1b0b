//! Run-time integrity of file trees: what is mounted is what was verified, down to each block that is read.
//!
//! `verity` computes the fs-verity digests by which objects are known.

pub mod verity;
