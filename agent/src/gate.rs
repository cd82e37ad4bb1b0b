//! The gate: every request of the host passes here, and nothing has an effect before it did.
//!
//! ```text
//!  request, decoded within its limits ─▶ queue, if the policy's state is involved ─▶ too late? no effect      (refused: audit)
//!     ─▶ policy ─▶ audit ─┬─ denied: why, in at most 512 bytes; reads of streams are told that there is no more
//!                         └─ Permitted<R> ─▶ handler ─▶ audit ─┬─ Ok: the policy's state changes
//!                                                              └─ Err: nothing remains, the state is as before
//! ```
//! A call that changes something runs in a task of its own: a caller that goes away does not leave half of it.

mod permitted;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use initdata::Sha256Digest;
pub use permitted::Permitted;
use policy_engine::audit::{Audit, Sequence};
use policy_engine::{
    Decision, Denial, FailingRequests, InForce, Input, Limits, Policy, PolicyEngine, RequestName, Verdict,
};
use protocol::endpoint::{Effect, PolicyPoint};
use protocol::limits::LimitError;
use protocol::status::RpcError;
use protocol::{Endpoint, MessageDyn, MessageFull};
use queue::{Queue, Use};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use ttrpc::asynchronous::TtrpcContext;

use crate::audit;
use crate::context::Agent;
use crate::log::{Key, Level, Log, Value};

const SUBSYSTEM: &str = "policy";

/// In the audit: more was waiting than may; the caller's time was over before the policy was asked.
const BUSY: &str = "REQUEST_BUSY";
const LATE: &str = "REQUEST_LATE";

/// The policy in force, and the queue of those that change its state.
#[derive(Debug)]
pub(crate) struct Gate {
    engine: PolicyEngine,
    queue: Queue,
    /// Texts that may replace the policy, by digest; `None`: the policy alone decides.
    replacements: Option<BTreeSet<Sha256Digest>>,
    calls: AtomicU64,
    audit: Arc<Audit>,
    log: Log,
}

/// What a decision leads to.
enum Ruling {
    Permitted(Decision, Sequence),
    Denied(RpcError),
}

impl Gate {
    /// A gate without a policy, which lets nothing through. `replacements`: which texts SetPolicy may name.
    pub(crate) fn new(replacements: Option<BTreeSet<Sha256Digest>>, audit: Arc<Audit>, log: &Log) -> Self {
        Self {
            engine: PolicyEngine::new(Limits::default(), FailingRequests::Denied),
            queue: Queue::new(),
            replacements,
            calls: AtomicU64::new(0),
            audit,
            log: log.clone(),
        }
    }

    /// The same, of a text.
    #[cfg(test)]
    pub(crate) fn begin_with(&self, text: &str) -> Result<(), policy_engine::PolicyError> {
        self.begin(Policy::load(text, self.engine.limits())?);
        Ok(())
    }

    /// Puts a policy into force before anything was decided.
    pub(crate) fn begin(&self, policy: Policy) {
        let digest = *policy.text_sha256();
        self.engine.install(policy);
        self.audit.policy_changed(digest);
    }

    /// Replaces the policy by a text that a permitted SetPolicy brought.
    ///
    /// # Errors
    /// The old policy stays: `POLICY_NOT_LISTED` if bound configuration names other texts, or none; a text that is no policy.
    pub(crate) fn replace_policy(&self, text: &str) -> Result<(), RpcError> {
        let digest = Sha256Digest::new(Sha256::digest(text.as_bytes()).into());
        let listed = self.replacements.as_ref().is_none_or(|listed| listed.contains(&digest));
        // GUARD: set-policy-listed -> evil_host_policy_downgrade
        if !listed {
            let text = "SetPolicy: expected a text whose SHA-256 bound initdata lists".to_owned();
            return Err(RpcError::Precondition("POLICY_NOT_LISTED", text));
        }
        let policy = Policy::load(text, self.engine.limits())
            .map_err(|error| RpcError::PolicyInvalid(format!("{}: {error}", error.code())))?;
        self.engine.install(policy);
        self.audit.policy_changed(*digest.as_bytes());
        self.log.info(SUBSYSTEM, "policy replaced", &[(Key::Digest, Value::shown(&digest.to_string()))]);
        Ok(())
    }

    /// Whether the policy lets this request through, which nobody has sent: for what the agent does in the place of one. As every decision it
    /// is in the audit; it changes no state.
    pub(crate) fn would_permit(&self, endpoint: Endpoint, request: &dyn MessageDyn) -> bool {
        let Some(name) = endpoint.policy_rule().and_then(|rule| RequestName::new(rule).ok()) else {
            return true;
        };
        let trace = self.trace();
        let Ok(input) = Input::of_request(endpoint, request, self.engine.limits()) else {
            audit::refused(&self.audit, endpoint, audit::ASKED_ITSELF, &format!("{trace:x}"));
            return false;
        };
        let decision = self.engine.decide(&name, &input);
        let why = decision.explain(&input);
        let sequence = audit::asked_itself(&self.audit, endpoint, &decision, &why, &format!("{trace:x}"));
        self.audit.outcome(sequence, Ok(()));
        let permitted = decision.is_allowed();
        decision.undo();
        permitted
    }

    /// Takes down that a request was refused before the policy was asked.
    pub(crate) fn refused_by_limits(&self, endpoint: Endpoint, error: &LimitError) {
        // What is not decided is not recorded.
        if endpoint.policy_rule().is_some() {
            self.refused(endpoint, error.code());
        }
    }

    fn refused(&self, endpoint: Endpoint, code: &'static str) {
        let trace = self.trace();
        self.log_denial(endpoint, code, trace);
        audit::refused(&self.audit, endpoint, code, &format!("{trace:x}"));
    }

    fn trace(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// The state of the policy: `{"pstate": …}`.
    #[cfg(test)]
    pub(crate) fn policy_state(&self) -> Option<serde_json::Value> {
        self.engine.state()
    }

    /// Which policy is in force, and its state.
    pub(crate) fn policy_in_force(&self) -> Option<InForce> {
        self.engine.in_force()
    }

    /// Asks the policy.
    fn rule(&self, endpoint: Endpoint, name: &RequestName, request: &impl MessageFull) -> Ruling {
        let trace = self.trace();
        let trace_text = format!("{trace:x}");
        let rule = endpoint.message();
        let input = match Input::of_request(endpoint, request, self.engine.limits()) {
            Ok(input) => input,
            Err(error) => {
                self.log_denial(endpoint, error.code(), trace);
                audit::refused(&self.audit, endpoint, error.code(), &trace_text);
                return Ruling::Denied(RpcError::PolicyFailed(rule, format!("{}: {error}", error.code())));
            }
        };
        let decision = self.engine.decide(name, &input);
        if let Verdict::AllowedThoughDenied(denial) = decision.verdict() {
            self.log_denial(endpoint, denial.code(), trace);
        }
        let why = decision.explain(&input);
        let sequence = audit::decided(&self.audit, endpoint, &decision, &why, &trace_text);
        let Some(denial) = decision.denial() else { return Ruling::Permitted(decision, sequence) };
        self.log_denial(endpoint, denial.code(), trace);
        Ruling::Denied(match denial {
            Denial::Rule | Denial::Undefined | Denial::NoPolicy => {
                let text = why.for_host(&trace_text);
                let begin = format!("{rule} is blocked by policy");
                let why = text.strip_prefix(&begin).unwrap_or(&text).trim_start_matches([':', ' ']);
                RpcError::Denied(rule, why.to_owned())
            }
            // What the evaluator says may quote the policy.
            other => RpcError::PolicyFailed(rule, format!("{} [trace {trace:x}]", other.code())),
        })
    }

    fn log_denial(&self, endpoint: Endpoint, code: &'static str, trace: u64) {
        let fields =
            [(Key::Method, endpoint.method().into()), (Key::Code, code.into()), (Key::Trace, trace.into())];
        self.log.say(Level::Warning, SUBSYSTEM, "request denied", &fields);
    }
}

/// Takes a request through the gate to its handler.
///
/// # Errors
/// Those of limits, policy and handler, as the caller is told them.
pub(crate) async fn pass<R, A, H, F>(
    agent: &Arc<Agent>,
    endpoint: Endpoint,
    context: &TtrpcContext,
    request: R,
    handler: H,
) -> ttrpc::Result<A>
where
    R: MessageFull,
    A: Default + Send + 'static,
    H: FnOnce(Arc<Agent>, Permitted<R>) -> F + Send + 'static,
    F: Future<Output = Result<A, RpcError>> + Send + 'static,
{
    let deadline = deadline(context.timeout_nano);
    let call = run(Arc::clone(agent), endpoint, deadline, request, handler);
    let answer = match endpoint.effect() {
        Effect::Changes => tokio::spawn(call).await.unwrap_or_else(|_| {
            Err(RpcError::Failed("AGENT_CALL", "the call ended by a defect of the agent".to_owned()))
        }),
        Effect::Reads | Effect::Waits => call.await,
    };
    answer.map_err(ttrpc::Error::from)
}

/// When the caller stops waiting. Zero is never.
fn deadline(nanoseconds: i64) -> Option<Instant> {
    let nanoseconds = u64::try_from(nanoseconds).ok().filter(|timeout| *timeout > 0)?;
    Instant::now().checked_add(Duration::from_nanos(nanoseconds))
}

async fn run<R, A, H, F>(
    agent: Arc<Agent>,
    endpoint: Endpoint,
    deadline: Option<Instant>,
    request: R,
    handler: H,
) -> Result<A, RpcError>
where
    R: MessageFull,
    A: Default,
    H: FnOnce(Arc<Agent>, Permitted<R>) -> F,
    F: Future<Output = Result<A, RpcError>>,
{
    let rule = endpoint.message();
    let name =
        RequestName::new(rule).map_err(|error| RpcError::PolicyFailed(rule, error.code().to_owned()))?;
    let gate = &agent.gate;
    let uses = Use::of(gate.engine.state_use(&name), endpoint.policy_point());
    let turn = match gate.queue.turn(uses, deadline).await {
        Ok(turn) => turn,
        Err(error) => {
            gate.refused(endpoint, if error == RpcError::Busy { BUSY } else { LATE });
            return Err(error);
        }
    };
    // GUARD: late-before-the-decision -> evil_host_deadline_before_the_decision
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        gate.refused(endpoint, LATE);
        return Err(RpcError::Deadline);
    }
    let (decision, sequence) = match gate.rule(endpoint, &name, &request) {
        Ruling::Permitted(decision, sequence) => (decision, sequence),
        Ruling::Denied(error) if endpoint.policy_point() == PolicyPoint::BeforeReading => {
            // What runtimes take for the end of the stream, as they do from upstream.
            drop(error);
            return Ok(A::default());
        }
        Ruling::Denied(error) => return Err(error),
    };
    let permitted = Permitted::new(request, deadline);
    if endpoint.effect() == Effect::Waits {
        // It may wait for ever, and nobody else with it.
        turn.settle(|| decision.commit()).await;
        let answer = handler(Arc::clone(&agent), permitted).await;
        audit::ended(&agent.audit, sequence, &answer);
        return answer;
    }
    let answer = handler(Arc::clone(&agent), permitted).await;
    audit::ended(&agent.audit, sequence, &answer);
    let is_there = answer.is_ok();
    turn.settle(|| if is_there { decision.commit() } else { decision.undo() }).await;
    answer
}
