//! A key broker that speaks the protocol of Trustee's KBS (RCAR 0.4.0), for laptops and tests.
//!
//! ```text
//!  socket ──▶ http ──▶ router ──▶ handshake ──▶ verifier (crate evidence) ──▶ appraisal ──▶ signer ──▶ token
//!               ▲         │                                                                              │
//!            faults       ├────▶ release: token or session ──▶ policy (Rego) ──▶ store ──▶ jwe ◀── key ──┘
//!                         └────▶ admin: resources, policies, reference values
//! ```
//!
//! It verifies evidence for real: signatures, chains, revocation, dates, report data, init data, event log. It keeps resources in files
//! of one directory and protects them no better than the user who runs it can. It refuses to: fetch anything from a network; believe
//! an emulated root or sample evidence without a flag whose name says so; say in an answer why it said no (the log does).
#![forbid(unsafe_code)]

mod admin;
mod appraisal;
mod broker;
pub mod cli;
mod error;
mod faults;
mod handshake;
mod http;
mod initdata;
mod jwe;
mod jwk;
mod log;
mod policy;
mod rcar;
mod reference;
mod rego;
mod release;
mod router;
mod runtime_data;
mod serve;
mod session;
mod signer;
mod store;
mod token;
mod verifier;
