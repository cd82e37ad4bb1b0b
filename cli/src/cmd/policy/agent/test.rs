//! `innerkeep policy test`: cases that a policy has to pass.

use std::path::Path;

use policy_engine::Limits;
use policy_engine::authoring::cases::{self, Outcome};
use serde_json::json;

use crate::error::Failure;
use crate::output::{Output, Report};

pub(in crate::cmd::policy) fn run(file: &Path, cases: &Path, output: Output) -> Result<Report, Failure> {
    let policy = super::read(file)?;
    let text = super::read_json("read the cases", cases)?;
    let outcomes = cases::run(&policy, &text, &Limits::default())?;
    let failed = outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).count();
    let json = json!({ "cases": outcomes.iter().map(|outcome| json!({
        "name": outcome.name, "steps": outcome.steps, "passed": outcome.failures.is_empty(),
        "failures": outcome.failures.iter().map(|failure| json!({
            "step": failure.step, "endpoint": failure.endpoint, "sentence": failure.sentence,
        })).collect::<Vec<_>>(),
    })).collect::<Vec<_>>(), "failed": failed });
    let mut lines: Vec<String> = outcomes.iter().flat_map(lines_of).collect();
    lines.push(format!("{} of {} cases passed", outcomes.len().saturating_sub(failed), outcomes.len()));
    let report = Report { json, text: lines.join("\n") };
    if failed == 0 {
        return Ok(report);
    }
    output.result(&report).map_err(Failure::file("write to", "standard output"))?;
    Err(Failure::CasesFailed(failed))
}

fn lines_of(outcome: &Outcome) -> Vec<String> {
    let word = if outcome.failures.is_empty() { "passed" } else { "FAILED" };
    let mut lines = vec![format!("{word}  {} ({} steps)", outcome.name, outcome.steps)];
    lines.extend(outcome.failures.iter().map(|failure| {
        format!("        step {} ({}): {}", failure.step, failure.endpoint, failure.sentence)
    }));
    lines
}
