//! Client of the sealing chip: its wire format, its driver, its session and its unseal jobs.

#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

pub mod abi;
pub mod vfio_user;
