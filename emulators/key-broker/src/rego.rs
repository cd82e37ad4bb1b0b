//! Rego by regorus, with limits: text, time of one evaluation, strict parsing of Rego v1.

use std::num::NonZeroU32;
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};

/// Longest policy.
pub(crate) const MAXIMUM_POLICY_BYTES: usize = 256 * 1024;
/// Longest evaluation.
const TIME_LIMIT: Duration = Duration::from_millis(250);
const CHECK_INTERVAL: NonZeroU32 = NonZeroU32::MIN.saturating_add(255);

/// A policy that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RegoError {
    /// It does not parse, or does not have what it needs.
    #[error("{0}")]
    Parse(String),
    /// It cannot be evaluated, or not in time.
    #[error("{0}")]
    Evaluation(String),
}

/// Parses a policy.
pub(crate) fn parse(text: &str) -> Result<Engine, RegoError> {
    if text.len() > MAXIMUM_POLICY_BYTES {
        return Err(RegoError::Parse(format!("expected at most {MAXIMUM_POLICY_BYTES} bytes")));
    }
    let mut engine = Engine::new();
    // As OPA: a builtin that fails is undefined.
    engine.set_strict_builtin_errors(false);
    // GUARD: broker-policy-time -> evil_policy_that_never_ends
    engine.set_execution_timer_config(ExecutionTimerConfig {
        limit: TIME_LIMIT,
        check_interval: CHECK_INTERVAL,
    });
    let package = engine
        .add_policy("policy.rego".to_owned(), text.to_owned())
        .map_err(|error| RegoError::Parse(format!("{error:#}")))?;
    if package != "data.policy" {
        return Err(RegoError::Parse(format!("expected package policy, found {package}")));
    }
    Ok(engine)
}

/// Evaluates one rule.
pub(crate) fn evaluate(engine: &mut Engine, rule: &str, input: Value) -> Result<Value, RegoError> {
    engine.set_input(input);
    engine.eval_rule(rule.to_owned()).map_err(|error| RegoError::Evaluation(format!("{error:#}")))
}

/// A JSON value as policies see it.
pub(crate) fn value(json: &serde_json::Value) -> Result<Value, RegoError> {
    Value::from_json_str(&json.to_string()).map_err(|error| RegoError::Evaluation(format!("{error:#}")))
}
