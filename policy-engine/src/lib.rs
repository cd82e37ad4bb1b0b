//! The policy of a guest: Rego as upstream's agent evaluates it, decided by bytecode, explained, and kept to limits.
//!
//! ```text
//!  text ──▶ Policy::load ── syntax tree ──▶ `print` blanked ──▶ bytecode of every request's rule
//!                              │                 └─ has to stay, or the compiler refuses ──▶ interpreted
//!                              └─ package, builtins, what reads or writes the state
//!
//!  request name + JSON ──▶ PolicyEngine::decide ──▶ Decision { allowed | denied with a code, change of state }
//!                                                        │ effect is there: commit      no effect: undo
//! ```
//!
//! ```
//! use policy_engine::{FailingRequests, Input, Limits, PolicyEngine, RequestName};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = PolicyEngine::new(Limits::default(), FailingRequests::Denied);
//! engine.set_policy("package agent_policy\n\ndefault WaitProcessRequest := true\n")?;
//! let input = Input::from_json("{\"container_id\": \"a\", \"exec_id\": \"\"}", engine.limits())?;
//! assert!(engine.decide(&RequestName::new("WaitProcessRequest")?, &input).is_allowed());
//! let denied = engine.decide(&RequestName::new("ExecProcessRequest")?, &input);
//! assert_eq!(denied.denial().map(|denial| denial.code()), Some("POLICY_UNDEFINED"));
//! # Ok(())
//! # }
//! ```
//!
//! It refuses to: allow what a rule does not define; keep half of a new policy; let a limit cut an evaluation short
//! and go on; change the state before the effect; run a policy unenforced because it could not be compiled; give the
//! host a request's content back. It has no clock but the one that ends an evaluation, no file, no network.
#![forbid(unsafe_code)]

mod ast;
pub mod audit;
pub mod authoring;
mod builtins;
mod decision;
mod engine;
mod error;
mod exact;
mod explain;
mod lean;
mod limits;
mod message;
mod policy;
mod prints;
mod program;
mod reach;
mod request;
mod scope;
mod state;
#[cfg(test)]
mod tests;

pub use decision::{Decision, Denial, LimitKind, Verdict};
pub use engine::{FailingRequests, InForce, PolicyEngine, WITHOUT_POLICY};
pub use error::{InputError, PolicyError};
pub use explain::{Explanation, MAX_HOST_BYTES, Reason};
pub use limits::Limits;
pub use policy::{Path, Policy};
pub use reach::StateUse;
pub use request::{Input, RequestName};
