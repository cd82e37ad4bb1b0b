//! The audit: what was decided, chained, signed, sealed to the operator. `docs/spec/audit-v1.md`.
//!
//! ```text
//!  gate ─decided─▶ Audit: record n ─sealed─▶ H(n) = SHA-512(H(n−1) ‖ frame n) ─▶ kept until acknowledged, or a signed gap
//!                                                 │
//!  operator ─nonce─▶ head: nonce ‖ n ‖ H(n), signed by a key that evidence commits to
//! ```
//!
//! ```
//! use policy_engine::audit::{Audit, Entry, Facts, Frame, OperatorKey, OperatorSecret, OperatorSuite, Ruling, Story};
//! # fn main() -> Result<(), policy_engine::audit::AuditError> {
//! let operator = OperatorSecret::generate(OperatorSuite::XWing)?;
//! let key = OperatorKey::parse(OperatorSuite::XWing, &operator.public_bytes())?;
//! let audit = Audit::start(Facts::default(), Some(key))?;
//! let endpoint = protocol::Endpoint::ExecProcess;
//! let denied = Entry { endpoint, ruling: Ruling::Denied, code: "POLICY_DENIED", reasons: &[], trace: "" };
//! let _ = audit.decided(&denied);
//! let records = audit.read(0, 1 << 20)?;
//! let story = Story::read(&Frame::parse_all(&records.frames)?, Some(&operator))?;
//! assert_eq!(story.denied(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! It refuses to: let a record leave unsealed; forget without a signed count; keep more than its memory; take the host's
//! clock for more than a claim.

mod bytes;
mod epoch;
mod error;
mod frame;
mod kinds;
mod log;
#[cfg(test)]
mod properties;
mod record;
mod retention;
mod sign;
mod story;
#[cfg(test)]
mod tests;

pub use epoch::{OperatorKey, OperatorSecret};
pub use error::AuditError;
pub use frame::{Frame, Gap, GapReason, MAX_EVIDENCE, Tally};
pub use log::{Audit, Entry, Facts, Records, Sequence};
pub use record::{
    Genesis, Hash, MAX_RECORD, OperatorId, OperatorSuite, Record, RecordedDecision, RecordedReason, Repeats,
    Ruling,
};
pub use sign::Head;
pub use story::{Story, Told};

/// SHA-512.
fn sha512(bytes: &[u8]) -> Hash {
    let mut hash = [0; 64];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, bytes);
    hash.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    hash
}
