//! Why a request is denied: which statement of which rule, and which field of the request it looked at.
//!
//! The same text is evaluated once more with a mark in front of every statement. Of all the ways that the evaluator
//! tried, the one that came furthest is the one that was meant, and the statement at which it ended is the reason.

mod fields;
mod instrument;
mod remembered;
#[cfg(test)]
mod tests;
mod trace;

use crate::decision::Denial;
use crate::error::shortened;
use crate::request::RequestName;
use fields::{FieldPath, Origins};
pub(crate) use instrument::Tracer;
use regorus::Value;
use std::collections::BTreeSet;
use trace::Forest;

/// Longest text for the host.
pub const MAX_HOST_BYTES: usize = 512;
/// Most reasons that are given.
const MAX_REASONS: usize = 4;
/// Most of a statement that is quoted to the operator.
const MAX_STATEMENT: usize = 200;
/// Longest trace identifier that is repeated.
const MAX_TRACE: usize = 64;
/// A policy that calls deeper than this is not followed to the end.
const MAX_DEPTH: usize = 64;

/// One way on which the request could have been allowed, and where it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The rule in which the way ended.
    pub rule: String,
    /// The line of the statement, counted from 1; 0 when there is no such rule.
    pub line: u32,
    /// The statement, shortened. It is the policy's text, which the host need not know.
    pub statement: String,
    /// Fields of the request that the statement looked at, as paths below `input`. Never their values.
    pub fields: Vec<String>,
}

/// Why a request is denied. Empty if and only if it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    request: RequestName,
    code: Option<&'static str>,
    reasons: Vec<Reason>,
}

impl Explanation {
    /// Nothing is denied.
    pub(crate) fn none(request: &RequestName) -> Self {
        Self { request: request.clone(), code: None, reasons: Vec::new() }
    }

    /// Denied before any rule was asked, or by more than a rule.
    pub(crate) fn of_denial(request: &RequestName, denial: &Denial) -> Self {
        let reason =
            Reason { rule: request.to_string(), line: 0, statement: String::new(), fields: Vec::new() };
        Self { request: request.clone(), code: Some(denial.code()), reasons: vec![reason] }
    }

    /// The reasons, the way that came furthest first.
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// Whether nothing is denied.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }

    /// What the host is told, in at most [`MAX_HOST_BYTES`] bytes: rules, lines and names of fields, no value of the
    /// request and no text of the policy. Tests of upstream look for `<RequestName> is blocked by policy`.
    #[must_use]
    pub fn for_host(&self, trace: &str) -> String {
        let trace: String =
            trace.chars().filter(|letter| letter.is_ascii_graphic()).take(MAX_TRACE).collect();
        let tail = format!(" [{}, trace {trace}]", self.code.unwrap_or("-"));
        let mut text = format!("{} is blocked by policy", self.request);
        for (position, reason) in self.reasons.iter().enumerate() {
            let mut part = format!("{}{}", if position == 0 { ": " } else { "; " }, reason.rule);
            if reason.line > 0 {
                part.push_str(&format!(" (line {})", reason.line));
            }
            if !reason.fields.is_empty() {
                part.push_str(&format!(": {}", reason.fields.join(", ")));
            }
            let part: String =
                part.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect();
            let room = MAX_HOST_BYTES - tail.len();
            // GUARD: policy-host-text-cap -> evil_runtime_long_names_in_the_denial
            if text.len() + part.len() > room {
                text.push_str(&shortened(&part, room.saturating_sub(text.len())));
                break;
            }
            text.push_str(&part);
        }
        text.push_str(&tail);
        text
    }
}

/// Explains a denial by the rule of the request.
pub(crate) fn explain(
    tracer: &Tracer,
    request: &RequestName,
    denial: &Denial,
    input: &Value,
    data: &Value,
) -> Explanation {
    let Some(question) = remembered::question(request, denial, input, data) else {
        return traced(tracer, request, denial, input, data);
    };
    if let Some(answer) = tracer.remembered.find(&question) {
        return answer;
    }
    let answer = traced(tracer, request, denial, input, data);
    tracer.remembered.keep(question, &answer);
    answer
}

fn traced(
    tracer: &Tracer,
    request: &RequestName,
    denial: &Denial,
    input: &Value,
    data: &Value,
) -> Explanation {
    let trace = tracer.trace(request.rule(), input, data);
    let forest = Forest::of(&trace, tracer);
    let mut roots: Vec<(usize, f64)> = forest
        .roots
        .iter()
        .copied()
        .filter(|root| {
            let body = forest.frames.get(*root).and_then(|frame| tracer.bodies.get(frame.body));
            body.is_some_and(|body| body.rule == request.as_str())
        })
        .map(|root| (root, forest.progress(root, tracer)))
        .collect();
    roots.sort_by(|left, right| right.1.total_cmp(&left.1));
    let reasons: Vec<Reason> = roots
        .into_iter()
        .take(MAX_REASONS)
        .filter_map(|(root, _)| follow(&forest, tracer, root, input))
        .collect();
    if reasons.is_empty() {
        return Explanation::of_denial(request, denial);
    }
    Explanation { request: request.clone(), code: Some(denial.code()), reasons }
}

/// Follows the way that came furthest to the statement at which it ended.
fn follow(forest: &Forest, tracer: &Tracer, root: usize, input: &Value) -> Option<Reason> {
    let mut frame = root;
    let mut origins = Origins::new(&tracer.constants);
    let mut reason: Option<Reason> = None;
    for _ in 0..MAX_DEPTH {
        let known = forest.frames.get(frame)?;
        let body = tracer.bodies.get(known.body)?;
        let (position, _) = forest.furthest(frame, tracer)?;
        let visit = known.visits.get(position)?;
        // A loop is in its n-th round when the statement behind it was reached for the n-th time.
        let rounds = |statement: usize| {
            known.visits.get(..=position).and_then(|visits| {
                visits.iter().filter(|visit| visit.statement == statement + 1).count().checked_sub(1)
            })
        };
        origins.enter(body, &rounds, input);
        let Some(statement) = body.statements().get(visit.statement) else { break };
        let fields: BTreeSet<FieldPath> = origins.of_statement(statement);
        let fields: Vec<String> =
            fields.iter().map(ToString::to_string).filter(|field| !field.is_empty()).collect();
        let fields = if fields.is_empty() {
            reason.take().map_or_else(Vec::new, |reason| reason.fields)
        } else {
            fields
        };
        reason = Some(Reason {
            rule: body.rule.clone(),
            line: statement.span.line,
            statement: shortened(statement.span.text(), MAX_STATEMENT),
            fields,
        });
        let Some((next, _)) = forest.inner(visit, tracer) else { break };
        let inner = forest.frames.get(next)?;
        let entered = tracer.bodies.get(inner.body)?;
        // What the statement asked has given its value: the statement itself ended the way.
        let (last, _) = forest.furthest(next, tracer)?;
        if inner.visits.get(last)?.statement >= entered.statements().len() {
            break;
        }
        if entered.inside.is_some() {
            origins.enter_every(statement, inner.ordinal, input);
        } else {
            origins = Origins::of_call(entered, &origins, statement, &tracer.constants);
        }
        frame = next;
    }
    reason
}
