//! A first policy from requests that were seen: it allows those, and as little else as it can.
//!
//! What differs from one start of a pod to the next is not compared but bound: identifiers of containers and of the
//! sandbox have a form, are taken when they are created, kept in the state, and demanded from then on, wherever they
//! stood in a request. Everything else has to be as it was seen.

mod identifiers;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use protocol::Endpoint;
use serde_json::{Map, Value as Json};

use super::observed::{AuthoringError, Observed};
use crate::engine::{FailingRequests, PolicyEngine};
use crate::error::InputError;
use crate::limits::Limits;
use crate::request::{Input, RequestName};
use identifiers::Known;

/// What becomes of identifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Identifiers {
    /// They are bound when they are created.
    #[default]
    Bound,
    /// They have to be the same: the policy is of one start of one pod.
    Exact,
}

/// A policy that was made, loaded, and asked about every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The text.
    pub text: String,
    /// Requests that it was made from.
    pub requests: usize,
    /// Those that differ, by the names of their rules.
    pub distinct: BTreeMap<&'static str, usize>,
}

/// One request as the policy holds it: identifiers are placeholders.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    rule: &'static str,
    content: Json,
    /// Its own container, by the index of the request that created it.
    container: Option<usize>,
}

/// Makes a policy, in the order in which the requests were seen.
///
/// # Errors
/// `POLICY_NOTHING_OBSERVED`, `POLICY_INPUT_JSON`, and `POLICY_PROPOSAL` if the text does not allow what it was made from.
pub fn propose(
    observed: &[Observed],
    identifiers: Identifiers,
    limits: &Limits,
) -> Result<Proposal, AuthoringError> {
    if observed.is_empty() {
        return Err(AuthoringError::Nothing);
    }
    let mut samples: Vec<Sample> = Vec::new();
    let mut known = Known::new(observed, identifiers);
    for (position, request) in observed.iter().enumerate() {
        if identifiers::holds_a_placeholder(&request.input) {
            let error = InputError::Json { message: "it holds a placeholder of a policy".to_owned() };
            return Err(AuthoringError::Input { place: format!("request {}", position + 1), error });
        }
        let sample = known.sample(request);
        let index = samples.iter().filter(|seen| seen.rule == sample.rule).count();
        if request.endpoint == Endpoint::CreateContainer {
            let same = |seen: &&Sample| seen.rule == sample.rule;
            let before = samples.iter().filter(same).position(|seen| seen.content == sample.content);
            known.created(&request.input, before.unwrap_or(index));
        }
        known.after(request);
        if !samples.contains(&sample) {
            samples.push(sample);
        }
    }
    let text = rules::text(&samples, identifiers);
    let mut distinct: BTreeMap<&'static str, usize> = BTreeMap::new();
    for sample in &samples {
        *distinct.entry(sample.rule).or_default() += 1;
    }
    allows_all(&text, observed, limits)?;
    Ok(Proposal { text, requests: observed.len(), distinct })
}

/// Loads the text and asks about every request, in order.
fn allows_all(text: &str, observed: &[Observed], limits: &Limits) -> Result<(), AuthoringError> {
    let engine = PolicyEngine::new(*limits, FailingRequests::Denied);
    engine.set_policy(text)?;
    for (position, request) in observed.iter().enumerate() {
        let unfit =
            |error: InputError| AuthoringError::Input { place: format!("request {}", position + 1), error };
        let name = RequestName::new(request.rule()).map_err(unfit)?;
        let input = Input::from_json(&request.input.to_string(), limits).map_err(unfit)?;
        let decision = engine.decide(&name, &input);
        if !decision.is_allowed() {
            return Err(AuthoringError::Proposal(position + 1));
        }
        decision.commit();
    }
    Ok(())
}

/// Names of the rules of all requests.
fn all_rules() -> BTreeSet<&'static str> {
    Endpoint::ALL.into_iter().filter_map(Endpoint::policy_rule).collect()
}

fn text_of<'a>(members: &'a Map<String, Json>, name: &str) -> Option<&'a str> {
    members.get(name).and_then(Json::as_str)
}
