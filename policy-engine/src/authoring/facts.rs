//! What a policy's rules are, as the engine that loaded them sees them.

use protocol::Endpoint;
use regorus::Value;
use regorus::unstable::{Expr, Rule};

use crate::ast::rule_root;
use crate::policy::{Path, Policy};
use crate::reach::StateUse;
use crate::request::RequestName;
use crate::state::State;

/// What a rule says whatever the request and the state are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Always {
    /// Every request is allowed.
    Allowed,
    /// Every request is denied: the rule is false, undefined, or an error.
    Denied,
}

/// One rule that a request could be decided by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFacts {
    /// Its name, which is the name of the request.
    pub name: String,
    /// The line of its first definition, counted from 1.
    pub line: u32,
    /// `default` with a literal boolean.
    pub default: Option<bool>,
    /// The line of that default.
    pub default_line: Option<u32>,
    /// Definitions beside the default.
    pub definitions: usize,
    /// How it is evaluated.
    pub path: Path,
    /// How it depends on the state.
    pub state: StateUse,
    /// What it always says, if it looks at nothing.
    pub always: Option<Always>,
    /// Whether there is a request of this name.
    pub asked: bool,
}

impl Policy {
    /// The rules that requests could be decided by, in the order of their names.
    #[must_use]
    pub fn rules(&self) -> Vec<RuleFacts> {
        self.request_rules().map(|(name, path)| self.facts(name, path)).collect()
    }

    /// Whether every request of a name gets the same answer, and which.
    #[must_use]
    pub fn always(&self, request: &RequestName) -> Option<Always> {
        if self.path(request) == Path::Missing {
            return Some(Always::Denied);
        }
        if !self.reach().is_constant(request.as_str()) {
            return None;
        }
        let allowed = match self.evaluate(request, &Value::new_object(), &State::new().data()) {
            Ok(Some(Value::Bool(allowed))) => allowed,
            Ok(Some(Value::Object(members))) => {
                members.get(&Value::from("allowed")) == Some(&Value::Bool(true))
            }
            _ => false,
        };
        Some(if allowed { Always::Allowed } else { Always::Denied })
    }

    fn facts(&self, name: &str, path: &Path) -> RuleFacts {
        let mut facts = RuleFacts {
            name: name.to_owned(),
            line: 0,
            default: None,
            default_line: None,
            definitions: 0,
            path: path.clone(),
            state: self.reach().state_use(name),
            always: RequestName::new(name).ok().and_then(|name| self.always(&name)),
            asked: is_asked(name),
        };
        for rule in self.tree().policy.iter().filter(|rule| rule_root(rule) == Some(name)) {
            let line = rule.span().line;
            match rule.as_ref() {
                Rule::Default { value, .. } => {
                    facts.default_line = Some(line);
                    if let Expr::Bool { value: Value::Bool(value), .. } = value.as_ref() {
                        facts.default = Some(*value);
                    }
                }
                Rule::Spec { .. } => {
                    facts.definitions += 1;
                    facts.line = if facts.line == 0 { line } else { facts.line.min(line) };
                }
            }
        }
        if facts.line == 0 {
            facts.line = facts.default_line.unwrap_or(0);
        }
        facts
    }
}

/// Whether a request asks the rule `name`, or the engine itself does.
fn is_asked(name: &str) -> bool {
    name == "AllowRequestsFailingPolicy"
        || Endpoint::ALL.into_iter().any(|endpoint| endpoint.policy_rule() == Some(name))
}
