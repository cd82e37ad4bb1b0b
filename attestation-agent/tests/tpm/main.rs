//! The TPM against Debian's `swtpm`, a TPM 2.0 that nobody here wrote, and against whoever sits on the bus.

#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

mod evil_host;
mod evil_secrets;
mod liar;
mod quote;
mod registers;
mod seal;
mod swtpm;
