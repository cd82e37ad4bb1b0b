//! `innerkeep policy check`: what the agent makes of a policy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use policy_engine::authoring::{Always, AuthoringError, RuleFacts};
use policy_engine::{Limits, Path as Way, Policy};
use protocol::Endpoint;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::error::Failure;
use crate::output::Report;

pub(in crate::cmd::policy) fn run(file: &Path) -> Result<Report, Failure> {
    let text = super::read(file)?;
    let limits = Limits::default();
    let policy = Policy::load(&text, &limits).map_err(AuthoringError::from)?;
    let rules = policy.rules();
    let methods = methods();
    let asked: Vec<&RuleFacts> =
        rules.iter().filter(|rule| methods.contains_key(rule.name.as_str())).collect();
    let others: Vec<&RuleFacts> = rules.iter().filter(|rule| !rule.asked).collect();
    let missing: Vec<&str> =
        methods.keys().copied().filter(|name| !rules.iter().any(|rule| rule.name == *name)).collect();
    let digest = hex::encode(Sha256::digest(text.as_bytes()));
    let json = json!({
        "bytes": text.len(), "max_bytes": limits.policy_bytes, "sha256": digest, "prints_removed": policy.prints_removed(),
        "allows_failing": policy.asks_to_allow_failing(),
        "decided": asked.iter().map(|rule| facts(rule, &methods)).collect::<Vec<_>>(),
        "denied_without_rule": missing,
        "never_asked": others.iter().map(|rule| json!({ "rule": rule.name, "line": rule.line })).collect::<Vec<_>>(),
    });
    let mut lines = vec![
        format!("policy    {} bytes, sha256 {digest}", text.len()),
        format!("prints    {} removed: bytecode does without them", policy.prints_removed()),
    ];
    if policy.asks_to_allow_failing() {
        lines.push("WARNING   the policy asks that what it denies be allowed; the agent does so only in an insecure mode".to_owned());
    }
    lines.extend(asked.iter().map(|rule| line(rule)));
    lines.extend(missing.iter().map(|name| format!("{:<9} {name}: there is no rule", "denied")));
    lines.extend(
        others.iter().map(|rule| {
            format!("{:<9} {} (line {}): no request has this name", "unused", rule.name, rule.line)
        }),
    );
    Ok(Report { json, text: lines.join("\n") })
}

/// Rules and the methods that each decides.
fn methods() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut found: BTreeMap<&'static str, BTreeSet<&'static str>> = BTreeMap::new();
    for endpoint in Endpoint::ALL {
        if let Some(rule) = endpoint.policy_rule() {
            found.entry(rule).or_default().insert(endpoint.method());
        }
    }
    found
}

fn facts(rule: &RuleFacts, methods: &BTreeMap<&str, BTreeSet<&str>>) -> Value {
    let interpreted = match &rule.path {
        Way::Interpreted { reason } => Some(reason),
        _ => None,
    };
    json!({
        "rule": rule.name, "methods": methods.get(rule.name.as_str()), "line": rule.line, "default": rule.default,
        "definitions": rule.definitions, "always": rule.always.map(word), "compiled": interpreted.is_none(),
        "interpreted_because": interpreted, "reads_state": rule.state.reads, "changes_state": rule.state.writes,
    })
}

const fn word(always: Always) -> &'static str {
    match always {
        Always::Allowed => "allowed",
        Always::Denied => "denied",
    }
}

fn line(rule: &RuleFacts) -> String {
    let verdict = rule.always.map_or("decided", word);
    let mut about = vec![format!("line {}", rule.line)];
    if rule.always.is_none() {
        about.push(match rule.default {
            Some(true) => format!("{} definition(s), else allowed", rule.definitions),
            _ => format!("{} definition(s), else denied", rule.definitions),
        });
    }
    match &rule.path {
        Way::Interpreted { reason } => about.push(format!("interpreted: {reason}")),
        _ => about.push("compiled".to_owned()),
    }
    if rule.state.reads {
        about.push("reads the state".to_owned());
    }
    if rule.state.writes {
        about.push("may change the state".to_owned());
    }
    format!("{verdict:<9} {}: {}", rule.name, about.join(", "))
}
