//! What the author of a policy needs, outside a guest: what a text decides, what is weak in it, cases that it has to
//! pass, and a first text from requests that were seen. Everything here asks the engine that decides in the guest.

pub mod cases;
mod complete;
mod facts;
mod lint;
mod observed;
mod propose;
#[cfg(test)]
mod tests;

pub use complete::complete;
pub use facts::{Always, RuleFacts};
pub use lint::{Finding, Guest, Severity, lint};
pub use observed::{AuthoringError, Observed, endpoint_of};
pub use propose::{Identifiers, Proposal, propose};
