//! The ttrpc service of the attestation agent: who asks, what they may, and the answers of the protocol.

mod access;

pub use access::RawPermission;
