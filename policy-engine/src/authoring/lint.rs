//! What is weak in a policy, and what cannot work under it.
//!
//! What can be asked is asked: requests that no policy means to allow are put to the engine. The rest is read off the
//! syntax tree. A policy without a finding is not thereby a good one.

mod probes;
mod reading;
mod weak;

use crate::engine::{FailingRequests, PolicyEngine};
use crate::error::PolicyError;
use crate::limits::Limits;
use crate::policy::Policy;

use super::facts::{Always, RuleFacts};
use probes::Probes;
use reading::Reading;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Weak, or something that runtimes do cannot work.
    Warning,
    /// Who sends requests has the guest.
    Error,
}

impl Severity {
    /// As a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable.
    pub code: &'static str,
    /// Its weight.
    pub severity: Severity,
    /// The rule that it is about.
    pub rule: String,
    /// The line of that rule, counted from 1; 0: there is none.
    pub line: u32,
    /// What it means.
    pub sentence: String,
}

/// What is known of the guest that the policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Guest {
    /// It receives secrets or sealed artifacts.
    pub has_secrets: bool,
}

/// Everything that the findings are made from.
struct Subject {
    rules: Vec<RuleFacts>,
    reading: Reading,
    probes: Probes,
    guest: Guest,
}

impl Subject {
    fn rule(&self, name: &str) -> Option<&RuleFacts> {
        self.rules.iter().find(|rule| rule.name == name)
    }

    /// Whether no request of this name can be allowed.
    fn is_denied(&self, name: &str) -> bool {
        self.rule(name).is_none_or(|rule| rule.always == Some(Always::Denied))
    }

    fn line(&self, name: &str) -> u32 {
        self.rule(name).map_or(0, |rule| rule.line)
    }
}

/// Findings about a text, the heaviest first.
///
/// # Errors
/// Those of [`Policy::load`].
pub fn lint(text: &str, limits: &Limits, guest: Guest) -> Result<Vec<Finding>, PolicyError> {
    let policy = Policy::load(text, limits)?;
    let (rules, reading) = (policy.rules(), Reading::of(&policy));
    let engine = PolicyEngine::new(*limits, FailingRequests::Denied);
    engine.install(policy);
    let subject = Subject { rules, reading, probes: Probes::ask(&engine), guest };
    let mut found = weak::findings(&subject);
    found.sort_by(|left, right| {
        right.severity.cmp(&left.severity).then_with(|| (left.line, left.code).cmp(&(right.line, right.code)))
    });
    Ok(found)
}
