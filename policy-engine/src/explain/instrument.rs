//! A policy text that says which statement it is about to evaluate.
//!
//! In front of every statement, and behind the last of every body, stands a `print` with a number. What the evaluator
//! prints is then the order in which it went through the policy: the same rules, the same evaluator, one trace.

use super::remembered::Remembered;
use crate::ast::{Node, bytes, extent, rule_root, variable, walk_expression, walk_query};
use crate::builtins::{Patterns, within};
use crate::limits::Limits;
use crate::policy::parsed;
use regorus::unstable::{Expr, Literal, LiteralStmt, Module, Query, Ref, Rule, RuleHead};
use regorus::{Engine, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longest trace: what it gathers grows with the time that it takes.
const MAX_TIME: Duration = Duration::from_secs(2);
/// What a marker begins with.
const MARK: &str = "innerkeep#";

/// One body in the table.
#[derive(Debug)]
pub(crate) struct Body {
    /// The body.
    pub(crate) query: Ref<Query>,
    /// The rule it belongs to.
    pub(crate) rule: String,
    /// Parameters of that rule, when it is a function.
    pub(crate) parameters: Vec<Ref<Expr>>,
    /// The body whose statement encloses it, and which statement: `every`, a comprehension.
    pub(crate) inside: Option<(usize, usize)>,
    /// For each statement the rules it mentions.
    pub(crate) mentions: Vec<BTreeSet<String>>,
}

impl Body {
    pub(crate) fn statements(&self) -> &[LiteralStmt] {
        &self.query.stmts
    }
}

/// An evaluator that traces, and the table of what the numbers mean.
pub(crate) struct Tracer {
    /// Never evaluates; an evaluator that ended with an error cannot be asked again.
    fresh: Engine,
    builtin_bytes: usize,
    /// One that evaluated without an error, and the state that it did it over: an evaluator that is given a state looks at the
    /// whole policy once more.
    ready: Mutex<Option<(Engine, Value)>>,
    pub(super) remembered: Remembered,
    pub(crate) bodies: Vec<Body>,
    /// Rules that are a string.
    pub(crate) constants: BTreeMap<String, String>,
    /// Marker, body, statement (or their number, behind the last).
    places: Vec<(usize, usize)>,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tracer").field("bodies", &self.bodies.len()).finish_non_exhaustive()
    }
}

impl Tracer {
    /// Instruments `text`, whose tree is `module`.
    pub(crate) fn new(text: &str, module: &Module, limits: &Limits) -> Option<Self> {
        if text.contains(MARK) {
            return None;
        }
        let names: BTreeSet<String> =
            module.policy.iter().filter_map(|rule| rule_root(rule).map(str::to_owned)).collect();
        let mut table = Table { names: &names, bodies: Vec::new(), tops: BTreeMap::new() };
        for rule in &module.policy {
            table.rule(rule);
        }
        let mut places = Vec::new();
        let mut edits: Vec<(usize, usize, String)> = Vec::new();
        for (body, known) in table.bodies.iter().enumerate() {
            let start = bytes(&known.query.span).start;
            let first = known.statements().first().map(|first| extent(first).start)?;
            let open = table.tops.contains_key(&body)
                && !(text.as_bytes().get(start) == Some(&b'{') && first > start);
            for (position, statement) in known.statements().iter().enumerate() {
                let brace = if open && position == 0 { "{ " } else { "" };
                edits.push((
                    extent(statement).start,
                    1,
                    format!("{brace}print(\"{MARK}{}\"); ", places.len()),
                ));
                places.push((body, position));
            }
            let end = known.statements().last().map(|last| extent(last).end)?;
            let brace = if open { " }" } else { "" };
            edits.push((end, 0, format!("; print(\"{MARK}{}\"){brace}", places.len())));
            places.push((body, known.statements().len()));
        }
        edits.sort();
        let mut marked = String::with_capacity(text.len() + 32 * edits.len());
        let mut at = 0;
        for (start, _, inserted) in &edits {
            marked.push_str(text.get(at..*start)?);
            marked.push_str(inserted);
            at = *start;
        }
        marked.push_str(text.get(at..)?);
        let limits = Limits { time: limits.time.min(MAX_TIME), ..*limits };
        let engine = parsed(&marked, &limits).ok()?;
        Some(Self {
            fresh: engine,
            builtin_bytes: limits.builtin_bytes,
            ready: Mutex::default(),
            remembered: Remembered::default(),
            bodies: table.bodies,
            constants: constants(module),
            places,
        })
    }

    /// An evaluator over this state, nobody else's meanwhile.
    fn engine(&self, data: &Value) -> Option<Engine> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((engine, _)) = ready.filter(|(_, known)| known == data) {
            return Some(engine);
        }
        let mut engine = self.fresh.clone();
        engine.clear_data();
        engine.add_data(data.clone()).ok()?;
        Some(engine)
    }

    /// Evaluates a rule and returns the places it went through, body and statement.
    pub(crate) fn trace(&self, rule: String, input: &Value, data: &Value) -> Vec<(usize, usize)> {
        let Some(mut engine) = self.engine(data) else { return Vec::new() };
        engine.set_input(input.clone());
        // An error ends the trace where it happened, which is what is asked.
        let (evaluated, exhausted) =
            within(&Arc::new(Patterns::default()), self.builtin_bytes, || engine.eval_query(rule, false));
        let printed = engine.take_prints().unwrap_or_default();
        if evaluated.is_ok() && !exhausted {
            engine.set_input(Value::Null);
            *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some((engine, data.clone()));
        }
        printed
            .iter()
            .filter_map(|line| line.rsplit_once(MARK)?.1.parse::<usize>().ok())
            .filter_map(|marker| self.places.get(marker).copied())
            .collect()
    }
}

/// Rules that are nothing but a string.
fn constants(module: &Module) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for rule in &module.policy {
        if let Rule::Spec { head: RuleHead::Compr { refr, assign: Some(assign), .. }, bodies, .. } =
            rule.as_ref()
            && bodies.is_empty()
            && let (Some(name), Expr::String { value, .. }) = (variable(refr), assign.value.as_ref())
            && let Ok(text) = value.as_string()
        {
            found.insert(name.to_owned(), text.to_string());
        }
    }
    found
}

/// The table while it is made.
struct Table<'a> {
    names: &'a BTreeSet<String>,
    bodies: Vec<Body>,
    /// Bodies of rules.
    tops: BTreeMap<usize, ()>,
}

impl Table<'_> {
    fn rule(&mut self, rule: &Rule) {
        let (Rule::Spec { head, bodies, .. }, Some(name)) = (rule, rule_root(rule)) else { return };
        let parameters = match head {
            RuleHead::Func { args, .. } => args.clone(),
            RuleHead::Compr { .. } | RuleHead::Set { .. } => Vec::new(),
        };
        for body in bodies {
            self.tops.insert(self.bodies.len(), ());
            self.body(&body.query, name, &parameters, None);
        }
    }

    fn body(
        &mut self,
        query: &Ref<Query>,
        rule: &str,
        parameters: &[Ref<Expr>],
        inside: Option<(usize, usize)>,
    ) {
        let own = self.bodies.len();
        let mentions = query.stmts.iter().map(|statement| self.mentions(statement)).collect();
        self.bodies.push(Body {
            query: query.clone(),
            rule: rule.to_owned(),
            parameters: parameters.to_vec(),
            inside,
            mentions,
        });
        for (position, statement) in query.stmts.iter().enumerate() {
            for nested in nested(statement) {
                self.body(&nested, rule, parameters, Some((own, position)));
            }
        }
    }

    /// The rules that a statement names.
    fn mentions(&self, statement: &LiteralStmt) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for expression in expressions(statement) {
            walk_expression(expression, &mut |node| {
                if let Node::Expression(expression) = node
                    && let Some(name) = variable(expression)
                    && self.names.contains(name)
                {
                    found.insert(name.to_owned());
                }
                true
            });
        }
        if let Literal::Every { query, .. } = &statement.literal {
            walk_query(query, &mut |node| {
                if let Node::Expression(expression) = node
                    && let Some(name) = variable(expression)
                    && self.names.contains(name)
                {
                    found.insert(name.to_owned());
                }
                true
            });
        }
        found
    }
}

/// The expressions of a statement, without the body of an `every`.
pub(crate) fn expressions(statement: &LiteralStmt) -> Vec<&Ref<Expr>> {
    match &statement.literal {
        Literal::SomeVars { .. } => Vec::new(),
        Literal::SomeIn { key, value, collection, .. } => key.iter().chain([value, collection]).collect(),
        Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => vec![expr],
        Literal::Every { domain, .. } => vec![domain],
    }
}

/// Bodies directly below a statement.
fn nested(statement: &LiteralStmt) -> Vec<Ref<Query>> {
    let mut found = Vec::new();
    for expression in expressions(statement) {
        below(expression, &mut found);
    }
    if let Literal::Every { query, .. } = &statement.literal {
        found.push(query.clone());
    }
    found
}

fn below(expression: &Expr, found: &mut Vec<Ref<Query>>) {
    for part in crate::ast::parts(expression) {
        match part {
            crate::ast::Part::Query(query) => found.push(query.clone()),
            crate::ast::Part::Expression(inner) => below(inner, found),
        }
    }
}
