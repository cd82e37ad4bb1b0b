//! One policy text: parsed, checked, compiled.

use crate::ast::{Node, dotted, rule_root, walk_module};
use crate::builtins::{Patterns, bound, within};
use crate::decision::{Denial, Fault, LimitKind};
use crate::error::{PolicyError, shortened};
use crate::exact::{Exact, exact};
use crate::explain::{Explanation, Tracer, explain};
use crate::limits::{Limits, SHAPE};
use crate::prints::{Blanked, blank};
use crate::program::Program;
use crate::reach::{Reach, StateUse};
use crate::request::{Input, RequestName};
use crate::state::State;
use aws_lc_rs::digest::{SHA256, digest};
use regorus::unstable::{Expr, Module, Ref, Rule, RuleHead};
// Named for its features: see Cargo.toml and `generated_patterns_compile`.
use regex as _;
use regorus::{Engine, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

/// The only package that requests are looked up in.
const PACKAGE: &str = "data.agent_policy";
/// The name under which a text is known to the evaluator, as upstream names it.
pub(crate) const MODULE: &str = "agent_policy";
/// The rule by which a policy asks that nothing be denied.
const ALLOW_FAILING: &str = "AllowRequestsFailingPolicy";
/// Stack of a thread that checks a policy: that of a program's first one.
const STACK: usize = 8 << 20;
/// Longest message of parser or evaluator that is kept.
const MAX_MESSAGE: usize = 1024;
/// First parts of builtins that the evaluator may have been built with and policies of an agent do not have: what
/// they answer is chosen by the host, or upstream's agent lacks them.
const FOREIGN_BUILTINS: &[&str] = &[
    "crypto",
    "glob",
    "graph",
    "graphql",
    "hex",
    "http",
    "io",
    "json",
    "net",
    "opa",
    "providers",
    "rand",
    "rego",
    "semver",
    "time",
    "units",
    "urlquery",
    "uuid",
    "yaml",
];

/// How the rule of a request is evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Path {
    /// As bytecode.
    Compiled,
    /// By the tree interpreter, from the text as it is.
    Interpreted {
        /// Why it is not bytecode.
        reason: String,
    },
    /// The policy has no such rule: undefined, therefore denied.
    Missing,
}

/// A policy that may be put into force. It holds no state.
pub struct Policy {
    text: String,
    text_sha256: [u8; 32],
    limits: Limits,
    /// The interpreter of the text without its prints, where it can do without, so that nothing gathers what it would print:
    /// a request quoted as often as a loop goes round. Made when it is needed first.
    interpreter: OnceLock<Option<Interpreter>>,
    /// The interpreter of the text as it is, for comparison.
    original: OnceLock<Option<Interpreter>>,
    /// What explanations are traced with.
    tracer: Option<Tracer>,
    /// The text that decides, and its tree: the lines are those of the original.
    traced: (String, Ref<Module>),
    program: Option<Program>,
    paths: BTreeMap<String, Path>,
    reach: Reach,
    asks_to_allow_failing: bool,
    prints: usize,
}

/// A tree interpreter, and one that never evaluated: an error leaves the first in a state in which it cannot be asked
/// again.
struct Interpreter(Mutex<(Engine, Engine)>);

impl Interpreter {
    fn new(text: &str, limits: &Limits) -> Option<Self> {
        let engine = parsed(text, limits).ok()?;
        Some(Self(Mutex::new((engine.clone(), engine))))
    }

    /// The value of a request's rule; `None` is undefined.
    fn value(
        &self,
        request: &RequestName,
        input: &Value,
        data: &Value,
        limits: &Limits,
    ) -> Result<Option<Value>, Fault> {
        let mut pair = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (engine, fresh) = &mut *pair;
        engine.clear_data();
        let (answer, exhausted) = within(&Arc::new(Patterns::default()), limits.builtin_bytes, || {
            engine.add_data(data.clone()).and_then(|()| {
                engine.set_input(input.clone());
                engine.eval_query(request.rule(), false)
            })
        });
        engine.set_input(Value::Null);
        // Prints quote the policy and the request; nobody reads them here.
        let _ = engine.take_prints();
        if answer.is_err() || exhausted {
            *engine = fresh.clone();
        }
        // GUARD: policy-memory-interpreted -> evil_host_bytes_that_policy_multiplies
        if exhausted {
            return Err(Fault::Limit(LimitKind::Memory));
        }
        Ok(single(&answer.map_err(|error| Fault::of(error.as_ref()))?).cloned())
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Policy")
            .field("bytes", &self.text.len())
            .field("rules", &self.paths.len())
            .finish_non_exhaustive()
    }
}

impl Policy {
    /// Parses, checks and compiles a text. Nothing is put into force.
    ///
    /// # Errors
    /// `POLICY_TOO_LARGE`, `POLICY_SYNTAX`, `POLICY_PACKAGE`, `POLICY_BUILTIN`, `POLICY_ANALYSIS`.
    pub fn load(text: &str, limits: &Limits) -> Result<Self, PolicyError> {
        // GUARD: policy-text-cap -> evil_operator_oversize_policy
        if text.len() > limits.policy_bytes {
            return Err(PolicyError::TooLarge { found: text.len(), max: limits.policy_bytes });
        }
        let mut engine = parsed(text, limits)?;
        let Some(module) = engine.get_modules().first().cloned() else {
            return Err(PolicyError::Syntax { message: "no module".to_owned() });
        };
        refuse_foreign_builtins(&module)?;
        let requests = requests(&module);
        let reach = Reach::of(&module);
        let (asks_to_allow_failing, compiled) = beside(
            || asks_to_allow_failing(engine.clone(), limits),
            || Compiled::of(text, &module, &requests, &reach, limits),
        );
        let asks_to_allow_failing = asks_to_allow_failing?;
        let Compiled { traced, tracer, program, paths, prints } = compiled;
        let mut text_sha256 = [0; 32];
        text_sha256
            .iter_mut()
            .zip(digest(&SHA256, text.as_bytes()).as_ref())
            .for_each(|(to, from)| *to = *from);
        Ok(Self {
            text: text.to_owned(),
            text_sha256,
            limits: *limits,
            interpreter: OnceLock::new(),
            original: OnceLock::new(),
            tracer,
            traced,
            program,
            paths,
            reach,
            asks_to_allow_failing,
            prints,
        })
    }

    /// The text, as it came.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// SHA-256 of the text: what bound configuration lists texts by.
    #[must_use]
    pub const fn text_sha256(&self) -> &[u8; 32] {
        &self.text_sha256
    }

    /// Whether the policy asks that requests which it denies be allowed (`AllowRequestsFailingPolicy := true`). What
    /// follows is the engine's to decide.
    #[must_use]
    pub const fn asks_to_allow_failing(&self) -> bool {
        self.asks_to_allow_failing
    }

    /// How many `print` statements the bytecode does without.
    #[must_use]
    pub const fn prints_removed(&self) -> usize {
        self.prints
    }

    /// Names of rules that requests could be decided by, and how.
    pub(crate) fn request_rules(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.paths.iter().map(|(name, path)| (name.as_str(), path))
    }

    /// What rules reach.
    pub(crate) const fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The tree of the text that decides; its lines are those of the text as it came.
    pub(crate) fn tree(&self) -> &Module {
        &self.traced.1
    }

    /// How a request is evaluated.
    #[must_use]
    pub fn path(&self, request: &RequestName) -> Path {
        self.paths.get(request.as_str()).cloned().unwrap_or(Path::Missing)
    }

    /// How a request's decision depends on the state.
    #[must_use]
    pub fn state_use(&self, request: &RequestName) -> StateUse {
        self.reach.state_use(request.as_str())
    }

    /// The value of a request's rule; `None` is undefined.
    pub(crate) fn evaluate(
        &self,
        request: &RequestName,
        input: &Value,
        data: &Value,
    ) -> Result<Option<Value>, Fault> {
        match (self.paths.get(request.as_str()), &self.program) {
            (None, _) => Ok(None),
            (Some(Path::Compiled), Some(program)) => {
                match program.value(request.as_str(), input, data, &self.limits) {
                    // The machine gave up where the interpreter may have an answer: that answer is the decision.
                    Err(Fault::Evaluation { .. }) => self.interpret(request, input, data),
                    other => other,
                }
            }
            (Some(_), _) => self.interpret(request, input, data),
        }
    }

    /// Evaluates a rule by bytecode and by the interpreter, over the state that every policy begins with, and says
    /// where they differ. For fuzzing and for whoever doubts: nothing is decided by it.
    ///
    /// # Errors
    /// What both said, unless they agree, or the interpreter ended with an error (then a second body of a rule may have
    /// tripped over what the first has allowed), or either ran into a limit.
    pub fn compare(&self, request: &RequestName, input: &Input) -> Result<(), String> {
        let state = State::new().data();
        let original = self.original.get_or_init(|| Interpreter::new(&self.text, &self.limits));
        let Some(original) = original else { return Err("the text does not load again".to_owned()) };
        let interpreted = original.value(request, &input.0, &state, &self.limits);
        let evaluated = self.evaluate(request, &input.0, &state);
        let excused = interpreted.is_err() || matches!(evaluated, Err(Fault::Limit(_)));
        // After an error that it swallowed the interpreter may lose a default, and with it any value.
        let has_default = self.traced.1.policy.iter().any(|rule| {
            matches!(rule.as_ref(), Rule::Default { .. }) && rule_root(rule) == Some(request.as_str())
        });
        let lost = has_default && interpreted == Ok(None);
        if evaluated == interpreted || excused || lost {
            return Ok(());
        }
        Err(format!("bytecode {evaluated:?}, interpreter {interpreted:?}"))
    }

    /// Why the request is denied.
    pub(crate) fn explain(
        &self,
        request: &RequestName,
        denial: &Denial,
        input: &Value,
        data: &Value,
    ) -> Explanation {
        match &self.tracer {
            Some(tracer) => explain(tracer, request, denial, input, data),
            None => Explanation::of_denial(request, denial),
        }
    }

    /// The same, by the tree interpreter as upstream configures it.
    fn interpret(&self, request: &RequestName, input: &Value, data: &Value) -> Result<Option<Value>, Fault> {
        let interpreter = self.interpreter.get_or_init(|| Interpreter::new(&self.traced.0, &self.limits));
        let Some(interpreter) = interpreter else {
            return Err(Fault::Evaluation { message: "the text does not load again".to_owned() });
        };
        interpreter.value(request, input, data, &self.limits)
    }
}

/// An evaluator with one text, configured as upstream configures it, and limited.
pub(crate) fn parsed(text: &str, limits: &Limits) -> Result<Engine, PolicyError> {
    let mut engine = Engine::new();
    engine.set_policy_length_config(SHAPE);
    engine.set_strict_builtin_errors(false);
    engine.set_gather_prints(true);
    // GUARD: policy-interpreter-time -> evil_policy_that_never_ends_interpreted
    engine.set_execution_timer_config(limits.timer());
    bound(&mut engine);
    let package = engine
        .add_policy(MODULE.to_owned(), text.to_owned())
        .map_err(|error| PolicyError::Syntax { message: shortened(&format!("{error:#}"), MAX_MESSAGE) })?;
    // GUARD: policy-package -> evil_operator_policy_of_another_package
    if package != PACKAGE {
        return Err(PolicyError::Package { found: shortened(package.trim_start_matches("data."), 128) });
    }
    Ok(engine)
}

/// Both at once, where there can be a second thread for the first.
fn beside<A: Send, B>(first: impl Fn() -> A + Sync, second: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let other = thread::Builder::new().name("policy".to_owned()).stack_size(STACK);
        let other = other.spawn_scoped(scope, &first);
        let second = second();
        let first = match other {
            Ok(other) => other.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => first(),
        };
        (first, second)
    })
}

/// What upstream asks first, of an evaluator that was asked nothing yet: it also makes it check the whole module.
fn asks_to_allow_failing(mut engine: Engine, limits: &Limits) -> Result<bool, PolicyError> {
    engine.set_input(Value::new_object());
    let (asked, _) = within(&Arc::new(Patterns::default()), limits.builtin_bytes, || {
        engine.eval_query(format!("{PACKAGE}.{ALLOW_FAILING}"), false)
    });
    let asked = asked
        .map_err(|error| PolicyError::Analysis { message: shortened(&format!("{error:#}"), MAX_MESSAGE) })?;
    Ok(single(&asked) == Some(&Value::Bool(true)))
}

/// What is made of a text for the requests that it decides.
struct Compiled {
    traced: (String, Ref<Module>),
    tracer: Option<Tracer>,
    program: Option<Program>,
    paths: BTreeMap<String, Path>,
    prints: usize,
}

impl Compiled {
    fn of(
        text: &str,
        module: &Ref<Module>,
        requests: &BTreeSet<String>,
        reach: &Reach,
        limits: &Limits,
    ) -> Self {
        let interpreted = |reason: &str| (None, all_interpreted(requests, reason));
        match blank(text, module) {
            Blanked::Text { text: blanked, module: tree, removed } => {
                let (tracer, (program, paths)) = beside(
                    || Tracer::new(&blanked, &tree, limits),
                    || match exact(&blanked, &tree, reach) {
                        Some(exact) => compile(&exact, requests, reach, limits),
                        None => interpreted("its text cannot be made safe for bytecode"),
                    },
                );
                Self { traced: (blanked, Ref::new(*tree)), tracer, program, paths, prints: removed }
            }
            Blanked::Kept { line } => {
                let reason = format!("the `print` of line {line} is not only a print");
                let (program, paths) = interpreted(&reason);
                let tracer = Tracer::new(text, module, limits);
                Self { traced: (text.to_owned(), module.clone()), tracer, program, paths, prints: 0 }
            }
        }
    }
}

/// The value of a query with one expression.
fn single(results: &regorus::QueryResults) -> Option<&Value> {
    results.result.first()?.expressions.first().map(|expression| &expression.value)
}

/// Refuses calls of what no policy of an agent can call.
fn refuse_foreign_builtins(module: &Module) -> Result<(), PolicyError> {
    let mut found = None;
    walk_module(module, &mut |node| {
        if let Node::Expression(Expr::Call { fcn, span, .. }) = node
            && let Some(name) = dotted(fcn)
            && let Some((first, _)) = name.split_once('.')
            && FOREIGN_BUILTINS.contains(&first)
        {
            found.get_or_insert((name, span.line));
        }
        true
    });
    // GUARD: policy-foreign-builtins -> evil_operator_policy_that_asks_the_hosts_clock
    if let Some((name, line)) = found {
        return Err(PolicyError::Builtin { name, line });
    }
    Ok(())
}

/// The rules that a request could be decided by: plain names, no arguments.
fn requests(module: &Module) -> BTreeSet<String> {
    module
        .policy
        .iter()
        .filter(|rule| !matches!(rule.as_ref(), Rule::Spec { head: RuleHead::Func { .. }, .. }))
        .filter_map(|rule| rule_root(rule).map(|root| (rule, root)))
        .filter(|(_, root)| root.starts_with(|first: char| first.is_ascii_uppercase()))
        .map(|(_, root)| root.to_owned())
        .collect()
}

/// Every request on the interpreter.
fn all_interpreted(requests: &BTreeSet<String>, reason: &str) -> BTreeMap<String, Path> {
    requests.iter().map(|name| (name.clone(), Path::Interpreted { reason: reason.to_owned() })).collect()
}

/// Bytecode for what can have it. A request whose rule the compiler refuses is interpreted; the others are not
/// held up by it.
fn compile(
    exact: &Exact,
    requests: &BTreeSet<String>,
    reach: &Reach,
    limits: &Limits,
) -> (Option<Program>, BTreeMap<String, Path>) {
    let mut paths = BTreeMap::new();
    for name in requests {
        let reason = reach.below(name).into_iter().find_map(|rule| Some((rule, exact.unfit.get(rule)?)));
        if let Some((rule, reason)) = reason {
            paths.insert(name.clone(), Path::Interpreted { reason: format!("`{rule}`: {reason}") });
        }
    }
    let fit = |paths: &BTreeMap<String, Path>| -> Vec<String> {
        requests.iter().filter(|name| !paths.contains_key(*name)).cloned().collect()
    };
    let mut names = fit(&paths);
    let mut compiled = Program::compile(exact, &names, limits);
    if compiled.is_err() {
        for name in &names {
            if let Err(reason) = Program::compile(exact, std::slice::from_ref(name), limits) {
                paths.insert(name.clone(), Path::Interpreted { reason });
            }
        }
        names = fit(&paths);
        compiled = Program::compile(exact, &names, limits);
    }
    match compiled {
        Ok(mut program) => {
            program.fix(names.iter().filter(|name| reach.is_constant(name)), limits);
            paths.extend(names.into_iter().map(|name| (name, Path::Compiled)));
            (Some(program), paths)
        }
        Err(reason) => (None, all_interpreted(requests, &reason)),
    }
}
