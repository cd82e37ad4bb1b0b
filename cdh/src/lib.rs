//! The confidential data hub: what a guest gets from outside and lets nobody else see. Today: sealed artifacts.
//!
//! ```text
//!  image layout, .sealed file ──▶ Store ──origin: pin or signature, floor──▶ Prepared
//!   (untrusted, read once)                                                    │ reserve: TEE, memory
//!                                                                             ▼
//!  KeySource: chip ◀─session, evidence about it─ Guest                      Reserved
//!             broker, processor, TPM ─ key ─▶ segments, each authenticated ─▶ │ land
//!                                                                             ▼
//!                                                                           Landed: read-only, without a path
//! ```
//!
//! `innerkeep unseal` and the guest agent use the same steps; arguments, output and containers are theirs.
//!
//! ```no_run
//! use cdh::artifact::{Choices, Guest, KeySource, Order, Pin, Prepared, Reference};
//! # fn example(guest: &Guest, source: &KeySource, pins: &[Pin]) -> Result<(), cdh::Error> {
//! let prepared = Prepared::open(&Reference::Layout("store".into(), None), pins)?;
//! let order = Order::new(&prepared, source, guest, Choices::default());
//! let landed = order.reserve()?.land(&())?;
//! assert_eq!(landed.landing.files().len(), prepared.store().core.payloads().len());
//! # Ok(())
//! # }
//! ```
//!
//! # What this crate refuses to do
//!
//! * ask anybody for the key of a core whose origin is not proven;
//! * ask before the landing has its memory, or give out plaintext before all of it is verified and unwritable;
//! * fall back: from one place of keys to another, from one data path to a weaker one, from evidence to none;
//! * decide what is insecure: each insecure mode is the caller's, by name, and in the chip's transcript.
#![forbid(unsafe_code)]

pub mod artifact;
pub mod composefs;
pub mod config;
pub mod dm;
mod error;
pub mod files;
pub mod hub_error;
pub mod image;
pub mod key_provider;
pub mod launch;
pub mod modes;
pub mod own_keys;
pub mod plaintext;
pub mod program;
pub mod registry;
pub mod resources;
pub mod rest;
pub mod sealed_secret;
pub mod service;
pub mod unwrap;
pub mod volume;
pub mod worker;

pub use error::{CdhError as Error, Class, evidence_class};
