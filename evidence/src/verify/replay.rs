//! Replay: which entries of an event log the quoted registers vouch for.

use sha2::{Digest, Sha384};

use crate::abi::aael::AaelEvent;
use crate::abi::event_log::{EV_EVENT_TAG, EventLog, LogAlgorithm, LogEntry};
use crate::bytes::Octets;
use crate::error::{EvidenceError, Found};

const NAMES: [&str; 4] = ["RTMR0", "RTMR1", "RTMR2", "RTMR3"];

/// Replays a log from zero and requires all four registers. Entries of the log that no register vouches for (index 0)
/// are left out of the result. The data of an entry is vouched for only where its digest is over it
/// ([`LogEntry::digest_is_over_data`]); for events of the attestation agent that is required.
///
/// # Errors
/// `EVIDENCE_LOG_MISMATCH` naming the register; `EVIDENCE_MALFORMED` for an entry without SHA-384 or an agent's
/// event whose data was changed; `EVIDENCE_UNSUPPORTED` for an index above 4.
pub fn replay<'a>(log: &'a EventLog, rtmr: &[Octets<48>; 4]) -> Result<Vec<&'a LogEntry>, EvidenceError> {
    let mut registers = [Octets([0; 48]); 4];
    let mut vouched = Vec::new();
    for entry in &log.entries {
        if entry.index == 0 {
            continue;
        }
        let index = usize::try_from(entry.index - 1).unwrap_or(usize::MAX);
        let Some(register) = registers.get_mut(index) else {
            return Err(EvidenceError::Unsupported {
                what: "register of a log entry",
                expected: "0 to 4",
                found: Found::value(entry.index),
            });
        };
        let Some(digest) = entry.digest(LogAlgorithm::Sha384) else {
            return Err(EvidenceError::Malformed {
                what: "log entry of a TDX guest",
                expected: "a SHA-384 digest",
                found: Found::text("none"),
            });
        };
        *register = extend(register, digest);
        let tagged = entry.event_type == EV_EVENT_TAG && AaelEvent::is_tagged(&entry.data);
        // GUARD: agent-event-data -> evil_event_data_of_the_agent_cannot_change
        if tagged && !entry.digest_is_over_data() {
            return Err(EvidenceError::Malformed {
                what: "attestation agent event",
                expected: "data under its digest",
                found: Found::text("other data"),
            });
        }
        vouched.push(entry);
    }
    for ((register, expected), found) in NAMES.into_iter().zip(rtmr).zip(&registers) {
        // GUARD: log-replays -> evil_changed_log_names_the_register
        if expected != found {
            return Err(EvidenceError::LogMismatch {
                register,
                expected: Found::value(expected),
                found: Found::value(found),
            });
        }
    }
    Ok(vouched)
}

/// What a register holds after one extension.
#[must_use]
pub fn extend(register: &Octets<48>, digest: &[u8]) -> Octets<48> {
    let mut hash = Sha384::new();
    hash.update(register.0);
    hash.update(digest);
    Octets(hash.finalize().into())
}
