//! Client of the sealing chip: its wire format, its driver, its session and its unseal jobs.

pub mod abi;
pub mod backing;
pub mod chain;
pub mod driver;
pub mod error;
pub mod iova;
pub mod ring;
pub mod session;
pub mod unseal;
pub mod vfio_user;

pub use error::{ChipError, Class};
