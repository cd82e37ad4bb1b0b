//! `innerkeep policy explain`: one request, decided and explained by the engine that decides in the guest.

use std::path::Path;

use policy_engine::authoring::{AuthoringError, Observed};
use policy_engine::{
    Decision, Denial, FailingRequests, Input, InputError, Limits, PolicyEngine, Reason, RequestName,
};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::output::{Output, Report};

pub(in crate::cmd::policy) fn run(
    file: &Path,
    request: &Path,
    after: Option<&Path>,
    output: Output,
) -> Result<Report, Failure> {
    let engine = PolicyEngine::new(Limits::default(), FailingRequests::Denied);
    engine.set_policy(&super::read(file)?).map_err(AuthoringError::from)?;
    let mut passed = 0_usize;
    if let Some(after) = after {
        let before = Observed::parse_lines(&super::read_json("read the requests before", after)?)?;
        for (position, request) in before.iter().enumerate() {
            let decision = decide(&engine, request, &format!("request {}", position + 1))?.0;
            if !decision.is_allowed() {
                eprintln!(
                    "note: {} of the requests before is denied too: number {}",
                    request.rule(),
                    position + 1
                );
            }
            decision.commit();
            passed += 1;
        }
    }
    let asked = Observed::parse(super::read_json("read the request", request)?.trim(), 1)?;
    let (decision, input) = decide(&engine, &asked, "the request")?;
    let explanation = decision.explain(&input);
    let code = decision.denial().map(Denial::code);
    let json = json!({
        "endpoint": asked.endpoint.method(), "rule": asked.rule(), "allowed": decision.is_allowed(), "code": code, "after": passed,
        "reasons": explanation.reasons().iter().map(facts).collect::<Vec<_>>(),
    });
    let Some((code, denial)) = code.zip(decision.denial()) else {
        return Ok(Report {
            json,
            text: format!("allowed   {} by {}", asked.endpoint.method(), asked.rule()),
        });
    };
    let mut lines = vec![format!("denied    {}: {denial} [{code}]", asked.endpoint.method())];
    for (position, reason) in explanation.reasons().iter().enumerate() {
        lines.extend(told(reason, if position == 0 { "because" } else { "or" }));
    }
    output
        .result(&Report { json, text: lines.join("\n") })
        .map_err(Failure::file("write to", "standard output"))?;
    Err(Failure::Denied(code))
}

fn decide(engine: &PolicyEngine, request: &Observed, place: &str) -> Result<(Decision, Input), Failure> {
    let unfit = |error: InputError| AuthoringError::Input { place: place.to_owned(), error };
    let name = RequestName::new(request.rule()).map_err(unfit)?;
    let input = Input::from_json(&request.input.to_string(), engine.limits()).map_err(unfit)?;
    Ok((engine.decide(&name, &input), input))
}

fn facts(reason: &Reason) -> Value {
    json!({ "rule": reason.rule, "line": reason.line, "statement": reason.statement, "fields": reason.fields })
}

/// One way on which the request could have been allowed, and what would have mended it there.
fn told(reason: &Reason, word: &str) -> Vec<String> {
    if reason.line == 0 {
        return vec![format!("{word:<9} no definition of {} could be followed", reason.rule)];
    }
    let statement: String = reason.statement.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines = vec![format!("{word:<9} {} (line {}): {statement}", reason.rule, reason.line)];
    lines.push(if reason.fields.is_empty() {
        "mended by a change of the policy or of its state: no field of the request is looked at there"
            .to_owned()
    } else {
        format!("mended by {} for which that holds", reason.fields.join(", "))
    });
    lines
}
