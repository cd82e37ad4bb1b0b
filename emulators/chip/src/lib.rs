//! The sealing chip of `docs/spec/chip-interface-v1.md`, emulated: a vfio-user server for laptops and tests.
//!
//! ```text
//!   client ──socket──▶ vfio_user ──registers──▶ controller ──entries──▶ firmware
//!      ▲                   │                        │  ▲                  │ session · release · unseal
//!      └── eventfds ───────┼── interrupts ──────────┘  │                  │ identity ◀── puf
//!          files ──────────┴──▶ dma ◀── scatter lists ─┴──────────────────┘
//! ```
//!
//! It shares numbers and wire structs with the driver (`chip_client::abi`, `chip_client::vfio_user::wire`) and nothing else, so that
//! a mistake in one is seen by the other. Evidence of guests is verified and judged by the crate that brokers use too (`evidence`).
//! It protects nothing: the "silicon" is a file.
#![deny(unsafe_code)]

mod appraise;
pub mod cli;
mod controller;
mod dma;
mod faults;
mod firmware;
mod identity;
mod log;
pub mod puf;
mod release;
pub mod serve;
mod session;
mod sys;
#[cfg(test)]
mod testing;
mod unseal;
mod vfio_user;

pub use faults::{Faults, PlanError};
pub use firmware::Modes;
