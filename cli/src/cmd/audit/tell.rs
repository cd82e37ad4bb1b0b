//! Records in words. Texts of records were written in the guest; what a caller gave it is escaped.

use policy_engine::audit::{GapReason, Record, RecordedDecision, RecordedReason, Told};
use serde_json::{Value, json};

pub(super) fn facts(told: &Told) -> Value {
    match told {
        Told::Record { sequence, record } => {
            let mut facts = record_facts(record);
            if let Some(members) = facts.as_object_mut() {
                members.insert("sequence".to_owned(), json!(sequence));
            }
            facts
        }
        Told::Sealed { sequence } => json!({ "kind": "sealed", "sequence": sequence }),
        Told::Gap(gap) => json!({
            "kind": "gap", "first": gap.first, "last": gap.last, "reason": gap_reason(gap.reason),
            "allowed": gap.tally.allowed, "denied": gap.tally.denied, "outcomes": gap.tally.outcomes, "others": gap.tally.others,
        }),
        _ => Value::Null,
    }
}

fn record_facts(record: &Record) -> Value {
    match record {
        Record::Genesis(genesis) => json!({
            "kind": "genesis", "boot_nonce": hex::encode(genesis.boot_nonce), "initdata": hex::encode(&genesis.initdata),
            "public_key": hex::encode(genesis.public_key), "insecure": genesis.insecure, "agent": genesis.agent,
            "operator": genesis.operator.as_ref().map(|operator| hex::encode(operator.key)), "claimed_ms": genesis.time_ms,
        }),
        Record::Epoch { number, .. } => json!({ "kind": "epoch", "number": number }),
        Record::Evidence { length, digest } => {
            json!({ "kind": "evidence", "length": length, "digest": hex::encode(digest) })
        }
        Record::Checkpoint { allowed, denied, time_ms, .. } => {
            json!({ "kind": "checkpoint", "allowed": allowed, "denied": denied, "claimed_ms": time_ms })
        }
        Record::Decision(decision) => json!({
            "kind": "decision", "endpoint": decision.endpoint, "ruling": decision.ruling.name(), "code": decision.code,
            "trace": decision.trace, "reasons": decision.reasons.iter().map(reason_facts).collect::<Vec<_>>(),
            "claimed_ms": decision.time_ms,
        }),
        Record::Repeats(repeats) => json!({
            "kind": "repeats", "first": repeats.first, "count": repeats.count, "endpoint": repeats.endpoint,
            "ruling": repeats.ruling.name(), "code": repeats.code, "trace": repeats.trace, "claimed_ms": repeats.time_ms,
        }),
        Record::Outcome { time_ms, of, error } => {
            json!({ "kind": "outcome", "decision": of, "error": error, "claimed_ms": time_ms })
        }
        Record::Policy { time_ms, digest } => {
            json!({ "kind": "policy", "sha256": hex::encode(digest), "claimed_ms": time_ms })
        }
        _ => Value::Null,
    }
}

pub(super) fn reason_facts(reason: &RecordedReason) -> Value {
    json!({ "rule": reason.rule, "line": reason.line, "fields": reason.fields })
}

pub(super) fn line(told: &Told) -> String {
    match told {
        Told::Record { sequence, record } => format!("{sequence:>8}  {}", record_line(record)),
        Told::Sealed { sequence } => format!("{sequence:>8}  sealed to the operator"),
        Told::Gap(gap) => format!(
            "{:>8}  gap       to {}: {} ({} allowed, {} denied, {} outcomes, {} others)",
            gap.first,
            gap.last,
            gap_reason(gap.reason),
            gap.tally.allowed,
            gap.tally.denied,
            gap.tally.outcomes,
            gap.tally.others
        ),
        _ => String::new(),
    }
}

fn record_line(record: &Record) -> String {
    match record {
        Record::Genesis(genesis) => {
            let initdata = hex::encode(&genesis.initdata);
            let initdata = if initdata.is_empty() { "none".to_owned() } else { initdata };
            let insecure =
                if genesis.insecure.is_empty() { "none".to_owned() } else { genesis.insecure.join(", ") };
            format!(
                "genesis   agent {}, initdata {initdata}, insecure modes: {insecure}",
                shown(&genesis.agent)
            )
        }
        Record::Epoch { number, .. } => format!("epoch     {number}"),
        Record::Evidence { length, .. } => format!("evidence  {length} bytes"),
        Record::Checkpoint { allowed, denied, .. } => {
            format!("signed    {allowed} allowed, {denied} denied since the start")
        }
        Record::Decision(decision) => decision_line(decision),
        Record::Repeats(repeats) => format!(
            "repeats   {} × {} {} {} (as record {})",
            repeats.count,
            shown(&repeats.endpoint),
            repeats.ruling.name(),
            shown(&repeats.code),
            repeats.first
        ),
        Record::Outcome { of, error: None, .. } => format!("outcome   of {of}: done"),
        Record::Outcome { of, error: Some(code), .. } => format!("outcome   of {of}: {}", shown(code)),
        Record::Policy { digest, .. } => format!("policy    sha256:{}", hex::encode(digest)),
        _ => String::new(),
    }
}

fn decision_line(decision: &RecordedDecision) -> String {
    let mut line = format!("{:<9} {}", decision.ruling.name(), shown(&decision.endpoint));
    if !decision.code.is_empty() {
        line.push_str(&format!(" [{}]", shown(&decision.code)));
    }
    for reason in &decision.reasons {
        line.push_str(&format!("; {}", reason_text(reason)));
    }
    if !decision.trace.is_empty() {
        line.push_str(&format!(" (trace {})", shown(&decision.trace)));
    }
    line
}

pub(super) fn reason_text(reason: &RecordedReason) -> String {
    let mut text = shown(&reason.rule);
    if reason.line > 0 {
        text.push_str(&format!(" line {}", reason.line));
    }
    if !reason.fields.is_empty() {
        text.push_str(&format!(": {}", shown(&reason.fields.join(", "))));
    }
    text
}

/// For a terminal.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

const fn gap_reason(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Lost => "lost, memory ended",
        GapReason::Acknowledged => "acknowledged",
    }
}
