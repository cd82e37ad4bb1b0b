//! `innerkeep audit explain`: what was denied, each kind once.

use std::collections::BTreeMap;

use policy_engine::audit::{Record, RecordedDecision, Ruling, Story, Told};
use serde_json::{Value, json};

use super::tell;
use crate::output::Report;

/// Denials of one kind.
struct Kind<'a> {
    first: &'a RecordedDecision,
    count: u64,
    last_trace: &'a str,
    last_ms: u64,
}

pub(super) fn report(story: &Story, trace: Option<&str>) -> Report {
    let mut kinds: BTreeMap<u64, Kind<'_>> = BTreeMap::new();
    let mut lost = 0_u64;
    for told in story.told() {
        match told {
            Told::Record { sequence, record: Record::Decision(decision) }
                if decision.ruling != Ruling::Allowed =>
            {
                let kind = Kind {
                    first: decision,
                    count: 1,
                    last_trace: &decision.trace,
                    last_ms: decision.time_ms,
                };
                kinds.insert(*sequence, kind);
            }
            Told::Record { record: Record::Repeats(repeats), .. } => {
                if let Some(kind) = kinds.get_mut(&repeats.first) {
                    kind.count = kind.count.saturating_add(repeats.count);
                    (kind.last_trace, kind.last_ms) = (&repeats.trace, repeats.time_ms);
                } else if repeats.ruling != Ruling::Allowed {
                    // The first of them is in a gap.
                    lost = lost.saturating_add(repeats.count);
                }
            }
            Told::Gap(gap) => lost = lost.saturating_add(gap.tally.denied),
            _ => {}
        }
    }
    if let Some(trace) = trace {
        kinds.retain(|_, kind| kind.first.trace == trace || kind.last_trace == trace);
    }
    let sealed = story.told().iter().filter(|told| matches!(told, Told::Sealed { .. })).count();
    let facts: Vec<Value> = kinds.iter().map(|(sequence, kind)| facts(*sequence, kind)).collect();
    let mut lines: Vec<String> = kinds.iter().map(|(sequence, kind)| line(*sequence, kind)).collect();
    if lines.is_empty() {
        lines.push("no denial was found".to_owned());
    }
    if lost > 0 {
        lines.push(format!("{lost} more denials are in gaps: counted, and not told apart"));
    }
    if sealed > 0 {
        lines.push(format!("{sealed} records are sealed: --key FILE opens them"));
    }
    Report { json: json!({ "denials": facts, "in_gaps": lost, "sealed": sealed }), text: lines.join("\n") }
}

fn facts(sequence: u64, kind: &Kind<'_>) -> Value {
    json!({
        "sequence": sequence, "endpoint": kind.first.endpoint, "ruling": kind.first.ruling.name(), "code": kind.first.code,
        "reasons": kind.first.reasons.iter().map(tell::reason_facts).collect::<Vec<_>>(), "count": kind.count,
        "first_trace": kind.first.trace, "last_trace": kind.last_trace,
        "first_claimed_ms": kind.first.time_ms, "last_claimed_ms": kind.last_ms,
    })
}

fn line(sequence: u64, kind: &Kind<'_>) -> String {
    let mut text = format!(
        "{} × {} {} [{}], first as record {sequence}, last trace {}",
        kind.count,
        tell::shown(&kind.first.endpoint),
        kind.first.ruling.name(),
        tell::shown(&kind.first.code),
        tell::shown(kind.last_trace)
    );
    for reason in &kind.first.reasons {
        text.push_str(&format!("\n    {}", tell::reason_text(reason)));
    }
    text
}
