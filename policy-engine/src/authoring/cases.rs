//! Cases that a policy has to pass: requests in order, the decision that each has to get, and the state after it.
//!
//! ```
//! use policy_engine::{Limits, authoring::cases};
//! let policy = "package agent_policy\n\nStartContainerRequest if input.container_id == \"a\"\n";
//! let file = r#"{"cases": [{"name": "only a", "steps": [
//!     {"endpoint": "StartContainer", "input": {"container_id": "a"}, "expect": "allowed"},
//!     {"endpoint": "StartContainer", "input": {"container_id": "b"}, "expect": "denied", "rule": "StartContainerRequest"}
//! ]}]}"#;
//! let outcomes = cases::run(policy, file, &Limits::default()).unwrap();
//! assert!(outcomes.iter().all(|outcome| outcome.failures.is_empty()));
//! ```

use serde::Deserialize;
use serde_json::Value as Json;

use super::observed::{AuthoringError, Observed};
use crate::decision::Denial;
use crate::engine::{FailingRequests, PolicyEngine};
use crate::error::{InputError, shortened};
use crate::limits::Limits;
use crate::request::{Input, RequestName};

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cases: Vec<Case>,
}

/// One case; it begins with the state that every policy begins with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    steps: Vec<Step>,
}

/// One request, and what has to come of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    endpoint: String,
    #[serde(default)]
    input: Option<Json>,
    expect: Expected,
    /// Of a denial: the code.
    #[serde(default)]
    code: Option<String>,
    /// Of a denial: a rule in which it ended.
    #[serde(default)]
    rule: Option<String>,
    /// Of a denial: a field that is named.
    #[serde(default)]
    field: Option<String>,
    /// Of a permission: whether the request had its effect, with which the state changes. It has, unless said otherwise.
    #[serde(default = "yes")]
    effect: bool,
    /// The policy's state afterwards: what is below `pstate`.
    #[serde(default)]
    state: Option<Json>,
}

const fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allowed,
    Denied,
}

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// How many requests it asked.
    pub steps: usize,
    /// Where it failed; empty: it passed.
    pub failures: Vec<Failure>,
}

/// One step that was not as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which, counted from 1.
    pub step: usize,
    /// Its endpoint, as the file says it.
    pub endpoint: String,
    /// What was expected and what was found.
    pub sentence: String,
}

/// Runs a file of cases against a policy.
///
/// # Errors
/// `POLICY_FORM`, `POLICY_ENDPOINT`, `POLICY_INPUT_…`, `POLICY_NOTHING_OBSERVED` if there is no case or one is empty, and those of
/// loading a policy.
pub fn run(policy: &str, file: &str, limits: &Limits) -> Result<Vec<Outcome>, AuthoringError> {
    let file: File = serde_json::from_str(file).map_err(|error| AuthoringError::Form {
        line: error.line(),
        expected: "an object with `cases`, each with `name` and `steps`",
        message: shortened(&error.to_string(), 256),
    })?;
    // A file that checks nothing would pass.
    if file.cases.is_empty() || file.cases.iter().any(|case| case.steps.is_empty()) {
        return Err(AuthoringError::Nothing);
    }
    file.cases.iter().map(|case| case.run(policy, limits)).collect()
}

impl Case {
    fn run(&self, policy: &str, limits: &Limits) -> Result<Outcome, AuthoringError> {
        let engine = PolicyEngine::new(*limits, FailingRequests::Denied);
        engine.set_policy(policy)?;
        let mut failures = Vec::new();
        for (position, step) in self.steps.iter().enumerate() {
            let place = format!("case {:?}, step {}", shortened(&self.name, 64), position + 1);
            if let Some(sentence) = step.run(&engine, &place)? {
                failures.push(Failure { step: position + 1, endpoint: step.endpoint.clone(), sentence });
            }
        }
        Ok(Outcome { name: self.name.clone(), steps: self.steps.len(), failures })
    }
}

impl Step {
    /// Asks; what was found otherwise than expected.
    fn run(&self, engine: &PolicyEngine, place: &str) -> Result<Option<String>, AuthoringError> {
        let unfit = |error: InputError| AuthoringError::Input { place: place.to_owned(), error };
        let asked = Observed::of(&self.endpoint, self.input.as_ref(), place)?;
        let name = RequestName::new(asked.rule()).map_err(unfit)?;
        let input = Input::from_json(&asked.input.to_string(), engine.limits()).map_err(unfit)?;
        let decision = engine.decide(&name, &input);
        let explanation = decision.explain(&input);
        let code = decision.denial().map(Denial::code);
        let sentence = match (self.expect, code) {
            (Expected::Allowed, Some(code)) => {
                let reason = explanation.reasons().first().map(|reason| {
                    format!(": {} (line {}) {}", reason.rule, reason.line, reason.fields.join(", "))
                });
                Some(format!("expected allowed, found denied [{code}]{}", reason.unwrap_or_default()))
            }
            (Expected::Denied, None) => Some("expected denied, found allowed".to_owned()),
            (Expected::Allowed, None) => None,
            (Expected::Denied, Some(code)) => self.denied_otherwise(code, explanation.reasons()),
        };
        if self.effect {
            decision.commit();
        } else {
            decision.undo();
        }
        Ok(sentence.or_else(|| self.state_otherwise(engine)))
    }

    fn denied_otherwise(&self, code: &str, reasons: &[crate::explain::Reason]) -> Option<String> {
        if let Some(expected) = self.code.as_ref().filter(|expected| *expected != code) {
            return Some(format!("expected denied with {expected}, found {code}"));
        }
        if let Some(rule) = &self.rule
            && !reasons.iter().any(|reason| reason.rule == *rule)
        {
            let found: Vec<&str> = reasons.iter().map(|reason| reason.rule.as_str()).collect();
            return Some(format!("expected a denial in {rule}, found {}", found.join(", ")));
        }
        if let Some(field) = &self.field
            && !reasons.iter().flat_map(|reason| &reason.fields).any(|found| found == field)
        {
            let found: Vec<&str> =
                reasons.iter().flat_map(|reason| &reason.fields).map(String::as_str).collect();
            return Some(format!("expected a denial because of {field}, found {}", found.join(", ")));
        }
        None
    }

    fn state_otherwise(&self, engine: &PolicyEngine) -> Option<String> {
        let expected = self.state.as_ref()?;
        let found = engine.state().and_then(|state| state.get("pstate").cloned()).unwrap_or(Json::Null);
        (found != *expected).then(|| format!("expected the state {expected}, found {found}"))
    }
}
