//! The engine: the policy in force, and what it says.

use crate::decision::{Decision, Denial, Verdict};
use crate::error::PolicyError;
use crate::limits::Limits;
use crate::policy::Policy;
use crate::reach::StateUse;
use crate::request::{Input, RequestName};
use crate::state::{Answer, Staged, State};
use regorus::Value;
use std::sync::{Arc, PoisonError, RwLock};

/// What may be asked while no policy is in force: to read the signed record of what was denied. None of these has an
/// effect in the guest.
pub const WITHOUT_POLICY: &[&str] = &["AuditHeadRequest", "AuditReadRequest"];

/// Whether a policy may switch itself off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailingRequests {
    /// `AllowRequestsFailingPolicy` is ignored: a denial is a denial.
    #[default]
    Denied,
    /// A policy with `AllowRequestsFailingPolicy := true` denies nothing. Only for configuration that names this
    /// insecure mode and is bound to the guest.
    InsecureAllowedIfPolicyAsks,
}

/// A policy in force, with its state.
#[derive(Debug)]
pub(crate) struct Force {
    pub(crate) policy: Policy,
    state: State,
    /// What requests see that do not look at the state.
    nothing: Value,
}

/// Which policy is in force, with its state: both of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// SHA-256 of its text.
    pub text_sha256: [u8; 32],
    /// `{"pstate": …}`.
    pub state: serde_json::Value,
}

/// Decides requests.
#[derive(Debug)]
pub struct PolicyEngine {
    limits: Limits,
    failing: FailingRequests,
    force: RwLock<Option<Arc<Force>>>,
}

impl PolicyEngine {
    /// An engine without a policy: it denies everything but [`WITHOUT_POLICY`].
    #[must_use]
    pub const fn new(limits: Limits, failing: FailingRequests) -> Self {
        Self { limits, failing, force: RwLock::new(None) }
    }

    /// The caps.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Puts a text into force, with a fresh state, or leaves everything as it was.
    ///
    /// # Errors
    /// Those of [`Policy::load`]; the policy that was in force stays, with its state.
    pub fn set_policy(&self, text: &str) -> Result<(), PolicyError> {
        let policy = Policy::load(text, &self.limits)?;
        self.install(policy);
        Ok(())
    }

    /// Puts a loaded policy into force, with a fresh state. A change of state that is still staged ends with the
    /// policy it belongs to.
    pub fn install(&self, policy: Policy) {
        let force = Arc::new(Force { policy, state: State::new(), nothing: Value::new_object() });
        *self.force.write().unwrap_or_else(PoisonError::into_inner) = Some(force);
    }

    /// How a request's decision depends on the state; requests that write have to be queued by the caller.
    #[must_use]
    pub fn state_use(&self, request: &RequestName) -> StateUse {
        self.force().map_or_else(StateUse::default, |force| force.policy.state_use(request))
    }

    /// The state of the policy in force.
    #[must_use]
    pub fn state(&self) -> Option<serde_json::Value> {
        self.force().map(|force| force.state.json())
    }

    /// The policy in force, by its text, and its state. What a state says holds under its own text alone.
    #[must_use]
    pub fn in_force(&self) -> Option<InForce> {
        let force = self.force()?;
        Some(InForce { text_sha256: *force.policy.text_sha256(), state: force.state.json() })
    }

    /// Decides one request. No effect of the request may come before this.
    pub fn decide(&self, request: &RequestName, input: &Input) -> Decision {
        let Some(force) = self.force() else {
            let verdict = if WITHOUT_POLICY.contains(&request.as_str()) {
                Verdict::Allowed
            } else {
                Verdict::Denied(Denial::NoPolicy)
            };
            return Decision { request: request.clone(), verdict, staged: None, basis: None };
        };
        let uses = force.policy.state_use(request);
        let data = if uses.reads || uses.writes { force.state.data() } else { force.nothing.clone() };
        let (verdict, staged, basis) = match force.judge(request, input, &data, uses, &self.limits) {
            Ok(staged) => (Verdict::Allowed, staged, None),
            Err(denial) => (self.verdict_of(&force, denial), None, Some((force, data))),
        };
        Decision { request: request.clone(), verdict, staged, basis }
    }

    /// Upstream lets a policy ask that a plain denial be none. Errors are denials even then.
    fn verdict_of(&self, force: &Force, denial: Denial) -> Verdict {
        let plain = matches!(denial, Denial::Rule | Denial::Undefined);
        if plain
            && self.failing == FailingRequests::InsecureAllowedIfPolicyAsks
            && force.policy.asks_to_allow_failing()
        {
            return Verdict::AllowedThoughDenied(denial);
        }
        Verdict::Denied(denial)
    }

    fn force(&self) -> Option<Arc<Force>> {
        self.force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Force {
    /// Permission, with the change that comes with it.
    fn judge(
        &self,
        request: &RequestName,
        input: &Input,
        data: &Value,
        uses: StateUse,
        limits: &Limits,
    ) -> Result<Option<Staged>, Denial> {
        let mut staged = if uses.writes { Some(self.state.begin()?) } else { None };
        let value = self.policy.evaluate(request, &input.0, data)?.unwrap_or(Value::Undefined);
        // GUARD: policy-undefined-is-a-denial -> evil_policy_without_the_rule
        if value == Value::Undefined {
            return Err(Denial::Undefined);
        }
        let answer = match &value {
            Value::Bool(allowed) => Answer { allowed: *allowed, ops: None },
            Value::Object(_) => value
                .to_json_str()
                .ok()
                .and_then(|json| serde_json::from_str(&json).ok())
                .ok_or(Denial::Result)?,
            _ => return Err(Denial::Result),
        };
        // GUARD: policy-false-is-a-denial -> evil_runtime_request_that_the_rule_denies
        if !answer.allowed {
            return Err(Denial::Rule);
        }
        if let Some(patch) = &answer.ops {
            staged.as_mut().ok_or(Denial::Result)?.apply(patch, limits)?;
        }
        Ok(staged)
    }
}
