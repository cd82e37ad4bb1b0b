//! The only unsafe code of this crate: handlers of signals, ioctls and a switch of the allocator, which `rustix` does not have, and what it and `tokio` mark
//! unsafe as a whole.

pub(crate) mod allocator;
pub(crate) mod bpf;
pub(crate) mod clone;
pub(crate) mod crash;
pub(crate) mod entropy;
pub(crate) mod execute;
pub(crate) mod mount_attributes;
pub(crate) mod mount_namespace;
pub(crate) mod namespaces;
pub(crate) mod pipes;
pub(crate) mod readiness;
pub(crate) mod seccomp;
pub(crate) mod swap;
