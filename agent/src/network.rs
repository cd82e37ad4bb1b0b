//! The guest's network as the host wants it.
//!
//! The network is the host's: whatever it configures, it could also do outside.

pub mod dns;
