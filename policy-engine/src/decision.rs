//! What came out of an evaluation.

use crate::engine::Force;
use crate::error::shortened;
use crate::explain::Explanation;
use crate::request::{Input, RequestName};
use crate::state::Staged;
use regorus::{LimitError, Value};
use std::fmt;
use std::sync::Arc;

/// Which cap an evaluation ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitKind {
    /// Instructions of bytecode.
    Instructions,
    /// Memory, or the size of a compiled regular expression.
    Memory,
    /// The state, or a patch of it, grew beyond its cap.
    State,
    /// Wall clock.
    Time,
}

impl fmt::Display for LimitKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Instructions => "instructions",
            Self::Memory => "memory",
            Self::State => "state",
            Self::Time => "time",
        })
    }
}

/// Why a request is denied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denial {
    /// The evaluator could not come to a value.
    #[error("the policy could not be evaluated: {message}")]
    Evaluation {
        /// What it said, shortened. It may quote the policy and is not for the host.
        message: String,
    },
    /// An evaluation ran into a cap.
    #[error("the policy ran into its limit of {0}")]
    Limit(LimitKind),
    /// No policy is in force.
    #[error("no policy is in force")]
    NoPolicy,
    /// The operations that came with a permission do not apply to the state.
    #[error("the policy's operations do not fit its state: {message}")]
    Patch {
        /// Which, and why, shortened.
        message: String,
    },
    /// The rule is neither true, false, nor an object with `allowed`.
    #[error("expected the rule to be a boolean or an object with `allowed`")]
    Result,
    /// The rule says no.
    #[error("the rule is false")]
    Rule,
    /// A request that may change the state is still under way.
    #[error("another request that may change the policy's state is not finished")]
    StateBusy,
    /// The rule has no value, or there is no such rule.
    #[error("the rule is undefined")]
    Undefined,
}

impl Denial {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Evaluation { .. } => "POLICY_EVALUATION",
            Self::Limit(_) => "POLICY_LIMIT",
            Self::NoPolicy => "POLICY_ABSENT",
            Self::Patch { .. } => "POLICY_PATCH",
            Self::Result => "POLICY_RESULT",
            Self::Rule => "POLICY_DENIED",
            Self::StateBusy => "POLICY_STATE_BUSY",
            Self::Undefined => "POLICY_UNDEFINED",
        }
    }
}

/// Whether a request may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may although the policy denies it: the policy asks for that, and bound configuration agreed.
    AllowedThoughDenied(Denial),
    /// It may not.
    Denied(Denial),
}

/// The answer to one request.
///
/// Permission may come with a change of the policy's state. The change takes effect with [`commit`](Self::commit),
/// which the caller makes when the request's own effect is there (or cannot be taken back any more); a decision that
/// is dropped or [undone](Self::undo) leaves the state as it was.
#[derive(Debug)]
#[must_use = "a decision that is dropped undoes the change of state that came with it"]
pub struct Decision {
    pub(crate) request: RequestName,
    pub(crate) verdict: Verdict,
    pub(crate) staged: Option<Staged>,
    /// What it was decided by, for as long as somebody may ask why.
    pub(crate) basis: Option<(Arc<Force>, Value)>,
}

impl Decision {
    /// Which request this is about.
    #[must_use]
    pub const fn request(&self) -> &RequestName {
        &self.request
    }

    /// Whether it may go on.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Whether it may go on, in one bit.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self.verdict, Verdict::Allowed | Verdict::AllowedThoughDenied(_))
    }

    /// Why it may not.
    #[must_use]
    pub const fn denial(&self) -> Option<&Denial> {
        match &self.verdict {
            Verdict::Denied(denial) => Some(denial),
            Verdict::Allowed | Verdict::AllowedThoughDenied(_) => None,
        }
    }

    /// Why it may not. `input` is the request that was decided; the rules and the state are those of the decision.
    /// Empty if and only if the request is allowed.
    #[must_use]
    pub fn explain(&self, input: &Input) -> Explanation {
        match (self.denial(), &self.basis) {
            (None, _) => Explanation::none(&self.request),
            (Some(denial @ (Denial::Rule | Denial::Undefined)), Some((force, data))) => {
                force.policy.explain(&self.request, denial, &input.0, data)
            }
            (Some(denial), _) => Explanation::of_denial(&self.request, denial),
        }
    }

    /// The effect is there: the change of state that came with the permission holds from now on.
    pub fn commit(self) {
        if let Some(staged) = self.staged {
            staged.commit();
        }
    }

    /// No effect remains: the state stays as it was.
    pub fn undo(self) {
        drop(self);
    }
}

/// Why an evaluation has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    Limit(LimitKind),
    Evaluation { message: String },
}

impl Fault {
    /// What the interpreter said.
    pub(crate) fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            match error.downcast_ref::<LimitError>() {
                Some(LimitError::TimeLimitExceeded { .. }) => return Self::Limit(LimitKind::Time),
                Some(_) => return Self::Limit(LimitKind::Memory),
                None => cause = error.source(),
            }
        }
        Self::Evaluation { message: shortened(&error.to_string(), 256) }
    }
}

impl From<Fault> for Denial {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Limit(kind) => Self::Limit(kind),
            Fault::Evaluation { message } => Self::Evaluation { message },
        }
    }
}
