//! Which names a body surely binds, and which expressions can neither fail, iterate nor bind.

use crate::ast::{dotted, parts, rule_name, rule_root, variable};
use regorus::unstable::{ArithOp, AssignOp, Expr, Literal, Module, Query, Rule, RuleHead};
use std::collections::BTreeSet;

/// Builtins without effect whose failure is just "undefined".
const PURE: &[&str] = &[
    "concat",
    "contains",
    "count",
    "endswith",
    "is_array",
    "is_boolean",
    "is_null",
    "is_number",
    "is_object",
    "is_string",
    "lower",
    "replace",
    "split",
    "startswith",
    "substring",
    "to_number",
    "trim",
    "trim_prefix",
    "trim_suffix",
    "upper",
];

/// Names that are bound where an expression stands.
#[derive(Debug, Clone)]
pub(crate) struct Scope<'a> {
    names: &'a Names,
    bound: BTreeSet<String>,
    /// Of those, the ones whose value is a count.
    counts: BTreeSet<String>,
    /// Of those, the variables of `every`: as an index the evaluator iterates with them, and where nothing is found
    /// the statement fails.
    rounds: BTreeSet<String>,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(names: &'a Names) -> Self {
        Self { names, bound: BTreeSet::new(), counts: BTreeSet::new(), rounds: BTreeSet::new() }
    }

    pub(crate) fn bind(&mut self, name: &str) {
        if name != "_" {
            self.bound.insert(name.to_owned());
            self.counts.remove(name);
            self.rounds.remove(name);
        }
    }

    /// Binds a variable of `every`.
    pub(crate) fn bind_round(&mut self, name: &str) {
        self.bind(name);
        self.rounds.insert(name.to_owned());
    }

    /// Binds the variables of a pattern: a parameter, the left side of `:=`, the variables of `some … in`.
    pub(crate) fn bind_pattern(&mut self, pattern: &Expr) {
        match pattern {
            Expr::Var { span, .. } => self.bind(span.text()),
            Expr::Array { items, .. } => items.iter().for_each(|item| self.bind_pattern(item)),
            Expr::Object { fields, .. } => fields.iter().for_each(|(_, _, value)| self.bind_pattern(value)),
            _ => {}
        }
    }

    pub(crate) fn is_bound(&self, name: &str) -> bool {
        self.bound.contains(name)
    }

    /// This scope, and what the statements of `query` bind. The order of statements does not matter: the evaluator
    /// sorts them so that a name is bound before it is used.
    pub(crate) fn with_bindings_of(&self, query: &Query) -> Self {
        let mut inside = self.clone();
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeIn { key, value, .. } => {
                    key.iter().chain([value]).for_each(|pattern| inside.bind_pattern(pattern));
                }
                Literal::Expr { expr, .. } => {
                    if let Expr::AssignExpr { op: AssignOp::ColEq, lhs, rhs, .. } = expr.as_ref() {
                        inside.bind_pattern(lhs);
                        inside.note_count(lhs, rhs);
                    }
                }
                Literal::SomeVars { .. } | Literal::NotExpr { .. } | Literal::Every { .. } => {}
            }
        }
        inside
    }

    fn note_count(&mut self, name: &Expr, value: &Expr) {
        if let (Some(name), Expr::Call { fcn, .. }) = (variable(name), value)
            && variable(fcn) == Some("count")
        {
            self.counts.insert(name.to_owned());
        }
    }
}

/// Whether an expression can be left out: it has a value or is undefined, and nothing else happens.
pub(crate) fn harmless(expression: &Expr, scope: &Scope<'_>) -> bool {
    match expression {
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. } => true,
        Expr::Var { span, .. } => known(span.text(), scope),
        Expr::Array { items, .. } => items.iter().all(|item| harmless(item, scope)),
        Expr::RefDot { refr, .. } => reference(refr, scope),
        Expr::RefBrack { refr, index, .. } => reference(refr, scope) && is_index(index, scope),
        Expr::Call { fcn, params, .. } => {
            dotted(fcn)
                .is_some_and(|name| PURE.contains(&name.as_str()) && !scope.names.defined.contains(&name))
                && params.iter().all(|argument| harmless(argument, scope))
        }
        _ => false,
    }
}

/// The base of a reference: a name, `input`, or a reference.
fn reference(expression: &Expr, scope: &Scope<'_>) -> bool {
    match expression {
        Expr::Var { span, .. } => known(span.text(), scope),
        Expr::RefDot { refr, .. } => reference(refr, scope),
        Expr::RefBrack { refr, index, .. } => reference(refr, scope) && is_index(index, scope),
        _ => false,
    }
}

/// A name that has a value without anything being evaluated for it. A rule's value may be an error, so that only
/// constants count; `data` may be a rule.
fn known(name: &str, scope: &Scope<'_>) -> bool {
    scope.is_bound(name) || name == "input" || scope.names.constants.contains(name)
}

/// An index that selects and does not iterate: a literal, a bound name, a count and a distance.
fn is_index(index: &Expr, scope: &Scope<'_>) -> bool {
    match index {
        Expr::String { .. } | Expr::RawString { .. } | Expr::Number { .. } => true,
        Expr::Var { span, .. } => known(span.text(), scope) && !scope.rounds.contains(span.text()),
        Expr::ArithExpr { op: ArithOp::Add | ArithOp::Sub, lhs, rhs, .. } => {
            variable(lhs).is_some_and(|name| scope.counts.contains(name))
                && matches!(rhs.as_ref(), Expr::Number { .. })
        }
        _ => false,
    }
}

/// The names of a module.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Rules that are one literal: no body, no reference, nothing that could fail.
    constants: BTreeSet<String>,
    /// Everything that a rule or an import defines.
    defined: BTreeSet<String>,
}

impl Names {
    pub(crate) fn of(module: &Module) -> Self {
        let mut names = Self::default();
        let mut spoiled = BTreeSet::new();
        for rule in &module.policy {
            let Some(root) = rule_root(rule) else { continue };
            names.defined.insert(root.to_owned());
            let literal = match rule.as_ref() {
                Rule::Spec { head: RuleHead::Compr { assign: Some(assign), .. }, bodies, .. } => {
                    bodies.is_empty() && is_literal(&assign.value)
                }
                _ => false,
            };
            if literal && rule_name(rule) == Some(root) && !names.constants.contains(root) {
                names.constants.insert(root.to_owned());
            } else {
                spoiled.insert(root.to_owned());
            }
        }
        for import in &module.imports {
            let name = match (&import.r#as, import.refr.as_ref()) {
                (Some(name), _) | (None, Expr::RefDot { field: (name, _), .. }) => name.text(),
                (None, Expr::RefBrack { index, .. }) => index.span().text(),
                (None, other) => other.span().text(),
            };
            spoiled.insert(name.to_owned());
            names.defined.insert(name.to_owned());
        }
        names.constants.retain(|name| !spoiled.contains(name));
        names
    }
}

/// JSON, written out.
fn is_literal(expression: &Expr) -> bool {
    match expression {
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. } => true,
        Expr::Array { .. } | Expr::Object { .. } => parts(expression)
            .into_iter()
            .all(|part| matches!(part, crate::ast::Part::Expression(inner) if is_literal(inner))),
        _ => false,
    }
}
