//! Running a consumer of a landing outside a container; and processes that read bytes of strangers ([`become_worker`]).
//!
//! ```text
//!  caller's namespaces
//!   └─ private namespaces (this process): user + mount for an ordinary user, mount alone for root
//!       │   a small tmpfs over an empty directory, with one directory per landing attached to it
//!       └─ consumer's namespaces: nested user + mount, no capabilities, no way to gain any
//! ```
//!
//! The consumer cannot remount: the superblock belongs to a user namespace above its own, its copies of the mounts are
//! locked, and it holds no capability even in its own namespace. It keeps the caller's user id. It does hold the
//! plaintext: what it does with it is its own business.

mod attach_point;
mod consumer;
mod error;
mod namespaces;
mod worker;

pub use attach_point::ConsumerMount;
pub use error::ConfineError;
pub use namespaces::{NamespaceKind, PrivateNamespaces, enter_private_namespaces};
pub use worker::{WorkerKind, WorkerLimits, become_worker, close_descriptors};

#[cfg(test)]
mod tests;
