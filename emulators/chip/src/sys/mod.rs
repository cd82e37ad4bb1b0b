//! The only module with `unsafe`: mapping files that a client passed, and blocking signals.
// UNSAFETY: mmap of received descriptors and the copies through those mappings have no safe form; nor has sigprocmask.
#![expect(unsafe_code, reason = "mmap of received descriptors, copies through them, signal mask")]

mod mapping;
mod signals;

pub(crate) use mapping::FileMapping;
pub(crate) use signals::Signals;
