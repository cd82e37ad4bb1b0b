//! The only unsafe code of this crate: handlers of signals, which `rustix` does not have.

pub(crate) mod crash;
pub(crate) mod pipes;
