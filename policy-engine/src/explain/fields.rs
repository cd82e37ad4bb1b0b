//! Which parts of the request a statement looks at.

use super::instrument::{Body, expressions};
use crate::ast::{Part, parts, variable};
use regorus::Value;
use regorus::unstable::{AssignOp, Expr, Literal, LiteralStmt};
use std::collections::{BTreeMap, BTreeSet};

/// More paths than this name nothing any more.
const MAX_PATHS: usize = 4;

/// A path below `input`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FieldPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Field(String),
    Index(usize),
    /// Some element; which one is not known.
    Any,
}

impl FieldPath {
    fn below(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// Element number `ordinal` of what lies at this path.
    fn element(&self, ordinal: Option<usize>, input: &Value) -> Self {
        let step = ordinal.map_or(Step::Any, |ordinal| match self.value(input) {
            Some(Value::Object(_)) => self
                .value(input)
                .and_then(|value| value.as_object().ok().and_then(|fields| fields.iter().nth(ordinal)))
                .and_then(|(key, _)| key.as_string().ok().map(|key| Step::Field(key.to_string())))
                .unwrap_or(Step::Any),
            _ => Step::Index(ordinal),
        });
        self.below(step)
    }

    fn value<'a>(&self, input: &'a Value) -> Option<&'a Value> {
        let mut value = input;
        for step in &self.0 {
            value = match step {
                Step::Field(name) => value.as_object().ok()?.get(&Value::from(name.as_str()))?,
                Step::Index(index) => value.as_array().ok()?.get(*index)?,
                Step::Any => return None,
            };
        }
        Some(value)
    }
}

impl std::fmt::Display for FieldPath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if is_plain(name) => {
                    let dot = if position == 0 { "" } else { "." };
                    write!(formatter, "{dot}{name}")?;
                }
                Step::Field(name) => write!(formatter, "[{:?}]", crate::error::shortened(name, 96))?,
                Step::Index(index) => write!(formatter, "[{index}]")?,
                Step::Any => formatter.write_str("[*]")?,
            }
        }
        Ok(())
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What the names of one evaluation of a body were made from.
#[derive(Debug, Clone)]
pub(crate) struct Origins {
    paths: BTreeMap<String, BTreeSet<FieldPath>>,
    /// Names whose value is a string of the policy: keys.
    texts: BTreeMap<String, String>,
}

impl Origins {
    /// Nothing but the constants of the policy.
    pub(crate) fn new(constants: &BTreeMap<String, String>) -> Self {
        Self { paths: BTreeMap::new(), texts: constants.clone() }
    }

    /// The parameters of a function, from the call that is in `statement` of the caller.
    pub(crate) fn of_call(
        body: &Body,
        caller: &Self,
        statement: &LiteralStmt,
        constants: &BTreeMap<String, String>,
    ) -> Self {
        let mut origins = Self::new(constants);
        for expression in expressions(statement) {
            if let Some(arguments) = call_of(expression, &body.rule) {
                for (parameter, argument) in body.parameters.iter().zip(arguments) {
                    origins.bind(parameter, &caller.paths(argument));
                    origins.name_text(parameter, caller.text(argument));
                }
                break;
            }
        }
        origins
    }

    /// Adds what the statements of a body bind. `rounds` says which element a loop is at.
    pub(crate) fn enter(&mut self, body: &Body, rounds: &dyn Fn(usize) -> Option<usize>, input: &Value) {
        for (position, statement) in body.statements().iter().enumerate() {
            match &statement.literal {
                Literal::SomeIn { key, value, collection, .. } => {
                    let elements = self.elements(collection, rounds(position), input);
                    for pattern in key.iter().chain([value]) {
                        self.bind(pattern, &elements);
                    }
                }
                Literal::Expr { expr, .. } => {
                    if let Expr::AssignExpr { op: AssignOp::ColEq | AssignOp::Eq, lhs, rhs, .. } =
                        expr.as_ref()
                    {
                        let (paths, text) = (self.paths(rhs), self.text(rhs));
                        self.bind(lhs, &paths);
                        self.name_text(lhs, text);
                    }
                }
                Literal::SomeVars { .. } | Literal::NotExpr { .. } | Literal::Every { .. } => {}
            }
        }
    }

    /// The names of an `every`, whose body is in its round `ordinal`.
    pub(crate) fn enter_every(&mut self, statement: &LiteralStmt, ordinal: usize, input: &Value) {
        if let Literal::Every { key, value, domain, .. } = &statement.literal {
            let elements = self.elements(domain, Some(ordinal), input);
            for name in key.iter().chain([value]) {
                self.paths.insert(name.text().to_owned(), elements.clone());
                self.texts.remove(name.text());
            }
            if let Expr::Array { items, .. } = domain.as_ref()
                && let Some(text) = items.get(ordinal).and_then(|item| self.text(item))
            {
                self.texts.insert(value.text().to_owned(), text);
            }
        }
    }

    /// The parts of the request that a statement looks at.
    pub(crate) fn of_statement(&self, statement: &LiteralStmt) -> BTreeSet<FieldPath> {
        expressions(statement).into_iter().flat_map(|expression| self.paths(expression)).collect()
    }

    fn elements(&self, collection: &Expr, ordinal: Option<usize>, input: &Value) -> BTreeSet<FieldPath> {
        let exact = matches!(collection, Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. });
        self.paths(collection)
            .into_iter()
            .map(|path| if exact { path.element(ordinal, input) } else { path })
            .collect()
    }

    /// The string that an expression is, if the policy says so.
    fn text(&self, expression: &Expr) -> Option<String> {
        match expression {
            Expr::String { value, .. } | Expr::RawString { value, .. } => {
                value.as_string().ok().map(|text| text.to_string())
            }
            Expr::Var { span, .. } => self.texts.get(span.text()).cloned(),
            _ => None,
        }
    }

    fn name_text(&mut self, name: &Expr, text: Option<String>) {
        if let Some(name) = variable(name) {
            match text {
                Some(text) => self.texts.insert(name.to_owned(), text),
                None => self.texts.remove(name),
            };
        }
    }

    fn bind(&mut self, pattern: &Expr, paths: &BTreeSet<FieldPath>) {
        match pattern {
            Expr::Var { span, .. } => {
                self.paths.insert(span.text().to_owned(), paths.clone());
            }
            Expr::Array { items, .. } => items.iter().for_each(|item| self.bind(item, paths)),
            Expr::Object { fields, .. } => fields.iter().for_each(|(_, _, value)| self.bind(value, paths)),
            _ => {}
        }
    }

    /// The parts of the request that an expression is made from.
    fn paths(&self, expression: &Expr) -> BTreeSet<FieldPath> {
        let found: BTreeSet<FieldPath> = match expression {
            Expr::Var { span, .. } if span.text() == "input" => BTreeSet::from([FieldPath(Vec::new())]),
            Expr::Var { span, .. } => self.paths.get(span.text()).cloned().unwrap_or_default(),
            Expr::RefDot { refr, field: (field, _), .. } => {
                self.paths(refr).iter().map(|path| path.below(Step::Field(field.text().to_owned()))).collect()
            }
            Expr::RefBrack { refr, index, .. } => {
                let step = match index.as_ref() {
                    Expr::Number { span, .. } => span.text().parse().map_or(Step::Any, Step::Index),
                    other => self.text(other).map_or(Step::Any, Step::Field),
                };
                let base = self.paths(refr);
                if base.is_empty() {
                    self.paths(index)
                } else {
                    base.iter().map(|path| path.below(step.clone())).collect()
                }
            }
            Expr::Call { params, .. } => params.iter().flat_map(|argument| self.paths(argument)).collect(),
            Expr::ArrayCompr { query, .. }
            | Expr::SetCompr { query, .. }
            | Expr::ObjectCompr { query, .. } => {
                query.stmts.iter().flat_map(expressions).flat_map(|inner| self.paths(inner)).collect()
            }
            other => parts(other)
                .into_iter()
                .flat_map(|part| match part {
                    Part::Expression(inner) => self.paths(inner),
                    Part::Query(_) => BTreeSet::new(),
                })
                .collect(),
        };
        if found.len() > MAX_PATHS { BTreeSet::new() } else { found }
    }
}

/// The arguments of the first call of `rule` in an expression.
fn call_of<'a>(expression: &'a Expr, rule: &str) -> Option<&'a [regorus::unstable::Ref<Expr>]> {
    if let Expr::Call { fcn, params, .. } = expression
        && variable(fcn) == Some(rule)
    {
        return Some(params);
    }
    parts(expression).into_iter().find_map(|part| match part {
        Part::Expression(inner) => call_of(inner, rule),
        Part::Query(_) => None,
    })
}
