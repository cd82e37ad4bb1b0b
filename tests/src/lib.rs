//! The harness of the end-to-end tests: the shipped programs as separate processes, driven as a user, an operator or a thief would.
//!
//! ```text
//!   Scene ── Work (scratch directory) ── input/ payloads · store/ artifacts · chips' state
//!     ├── Emulator       innerkeep-chip-emulator, one process a chip
//!     ├── Attested       with it a Platform: confidential guests, launched anew for each command
//!     ├── Innerkeep      innerkeep, one process a command ─── Said: status, streams, code
//!     └── layout, sealed the thief's tools: carriers altered with plain file operations
//!   Keyed ── a platform and guests without a chip
//!     ├── KeyBroker      innerkeep-key-broker
//!     └── Swtpm          a TPM below a guest's root
//! ```
//!
//! # What this crate refuses to do
//!
//! * skip: a program that is missing, or a machine that lacks what a test needs, is a failure with a reason;
//! * judge by time: no test asserts how long anything took;
//! * use the product's own code to alter artifacts: what a thief can do needs files, SHA-256 and JSON.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a harness has one answer to what it does not expect: to fail the test"
)]

pub mod agent_client;
pub mod attested;
pub mod broker;
pub mod chip_suite;
pub mod disk_images;
pub mod emulator;
pub mod innerkeep;
pub mod keyed;
pub mod layout;
pub mod lying_files;
pub mod payload;
pub mod programs;
pub mod protobuf;
pub mod registry;
pub mod scan;
pub mod scene;
pub mod sealed;
pub mod swtpm;
pub mod tee;
pub mod trace;
pub mod vm;
pub mod work;

/// A list of arguments from anything that is text for the operating system.
#[macro_export]
macro_rules! args {
    ($($argument:expr),* $(,)?) => {
        std::vec::Vec::<std::ffi::OsString>::from([$(std::ffi::OsString::from(std::convert::AsRef::<std::ffi::OsStr>::as_ref(&$argument))),*])
    };
}

/// Whether the tests run at full length (`cargo xtask test --long`).
pub fn long_run() -> bool {
    ["INNERKEEP_TEST_LONG", "INNERKEEP_LONG"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| value == "1"))
}

/// Exit status of a refusal by origin, policy or chip.
pub const REFUSED: i32 = 77;
/// Exit status for an artifact that is damaged, forged or malformed.
pub const DAMAGED: i32 = 65;
/// Exit status for a chip that is unreachable or misbehaves.
pub const CHIP_FAULT: i32 = 69;
/// Exit status for an unfit configuration or environment.
pub const UNFIT: i32 = 78;
/// Exit status of input and output errors.
pub const IO: i32 = 74;
/// Exit status of usage errors.
pub const USAGE: i32 = 2;
