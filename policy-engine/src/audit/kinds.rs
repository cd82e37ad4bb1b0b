//! Kinds of decisions: the first of each has a record, the rest is counted.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use protocol::Endpoint;
use protocol::endpoint::Effect;

use super::bytes::Writer;
use super::log::Entry;
use super::record::{MAX_FIELDS, MAX_REASONS, RecordedDecision, RecordedReason, Repeats, Ruling};
use crate::explain::Reason;

/// How soon the second of a kind is recorded; doubles each time.
pub(super) const FIRST_INTERVAL: Duration = Duration::from_secs(1);
pub(super) const LAST_INTERVAL: Duration = Duration::from_secs(64);

/// Decisions that are alike.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) first: u64,
    pub(super) endpoint: Endpoint,
    pub(super) ruling: Ruling,
    pub(super) code: Box<str>,
    pub(super) trace: Box<str>,
    pub(super) pending: u64,
    pub(super) recorded: Instant,
    pub(super) interval: Duration,
}

impl Kind {
    /// The record of what was counted, if that is due.
    pub(super) fn due(&mut self, now: Instant, interval: Duration) -> Option<Repeats> {
        if self.pending == 0 || now.duration_since(self.recorded) < interval {
            return None;
        }
        self.recorded = now;
        self.interval = (self.interval * 2).min(LAST_INTERVAL);
        Some(Repeats {
            time_ms: now_ms(),
            first: self.first,
            count: std::mem::take(&mut self.pending),
            endpoint: self.endpoint.to_string(),
            ruling: self.ruling,
            code: self.code.to_string(),
            trace: self.trace.to_string(),
        })
    }
}

/// Whether an allowed call leaves something behind. `WriteStdin` moves bytes, but into a container.
pub(super) fn has_effect(endpoint: Endpoint) -> bool {
    endpoint.effect() == Effect::Changes || endpoint == Endpoint::WriteStdin
}

/// What makes decisions alike: all that a record says but time and trace.
pub(super) fn kind_of(entry: &Entry<'_>) -> [u8; 32] {
    let mut kind = Writer::default();
    kind.text(entry.endpoint.method()).text(entry.endpoint.service().as_str()).text(entry.ruling.name());
    kind.text(entry.code);
    for reason in entry.reasons.iter().take(MAX_REASONS) {
        kind.text(&reason.rule).u32(reason.line).count(reason.fields.len());
        for field in reason.fields.iter().take(MAX_FIELDS) {
            kind.text(field);
        }
    }
    let mut out = [0; 32];
    out.iter_mut().zip(digest(&SHA256, &kind.0).as_ref()).for_each(|(to, from)| *to = *from);
    out
}

pub(super) fn recorded(entry: &Entry<'_>) -> RecordedDecision {
    let reason = |reason: &Reason| RecordedReason {
        rule: reason.rule.clone(),
        line: reason.line,
        fields: reason.fields.iter().take(MAX_FIELDS).cloned().collect(),
    };
    RecordedDecision {
        time_ms: now_ms(),
        endpoint: entry.endpoint.to_string(),
        ruling: entry.ruling,
        code: entry.code.to_owned(),
        trace: shown(entry.trace).to_owned(),
        reasons: entry.reasons.iter().take(MAX_REASONS).map(reason).collect(),
    }
}

/// A trace id is somebody else's text.
pub(super) fn shown(trace: &str) -> &str {
    let end = trace.bytes().position(|byte| !byte.is_ascii_graphic()).unwrap_or(trace.len());
    trace.get(..end.min(64)).unwrap_or_default()
}

pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
