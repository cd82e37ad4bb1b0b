//! `innerkeep policy lint` of an agent policy.

use std::path::Path;

use policy_engine::Limits;
use policy_engine::authoring::{AuthoringError, Finding, Guest, Severity, lint};
use serde_json::json;

use crate::error::Failure;
use crate::output::{Output, Report};

pub(in crate::cmd::policy) fn run(file: &Path, secrets: bool, output: Output) -> Result<Report, Failure> {
    let text = super::read(file)?;
    let found =
        lint(&text, &Limits::default(), Guest { has_secrets: secrets }).map_err(AuthoringError::from)?;
    let weak = found.iter().filter(|finding| finding.severity > Severity::Note).count();
    let json = json!({ "kind": "agent-policy", "findings": found.iter().map(|finding| json!({
        "code": finding.code, "severity": finding.severity.name(), "rule": finding.rule, "line": finding.line,
        "sentence": finding.sentence,
    })).collect::<Vec<_>>(), "weak": weak });
    let lines: Vec<String> = found.iter().map(line).collect();
    let text = if lines.is_empty() { "no weakness found".to_owned() } else { lines.join("\n") };
    let report = Report { json, text };
    if weak == 0 {
        return Ok(report);
    }
    output.result(&report).map_err(Failure::file("write to", "standard output"))?;
    Err(Failure::Weak(weak))
}

fn line(finding: &Finding) -> String {
    let place = if finding.line == 0 { "no rule".to_owned() } else { format!("line {}", finding.line) };
    format!(
        "{:<7} {} {} ({place}): {}",
        finding.severity.name(),
        finding.code,
        finding.rule,
        finding.sentence
    )
}
