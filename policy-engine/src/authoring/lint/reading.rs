//! What the rules of a policy mention, read off the syntax tree.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Value;
use regorus::unstable::{Expr, Literal, LiteralStmt, Rule, RuleHead};

use crate::ast::{Node, dotted, rule_root, variable, walk_rule};
use crate::lean::constants;
use crate::policy::Policy;

/// What was read.
#[derive(Debug)]
pub(super) struct Reading {
    /// Of each rule of a request: names of fields in it and in what it calls.
    fields: BTreeMap<String, BTreeSet<String>>,
    /// Rules in which the request, or the container's specification, is compared as a whole.
    whole: BTreeSet<String>,
    /// Rules that mention a terminal as something to be had.
    terminal: BTreeSet<String>,
    /// A constant says that a terminal is wanted.
    pub(super) wants_terminal: bool,
}

impl Reading {
    pub(super) fn of(policy: &Policy) -> Self {
        let constants = constants(policy.tree());
        let mut own: BTreeMap<&str, One> = BTreeMap::new();
        for rule in &policy.tree().policy {
            let Some(root) = rule_root(rule) else { continue };
            // What a constant lists is what rules compare with, and no rule.
            if !is_constant(rule) {
                own.entry(root).or_default().read(rule);
            }
        }
        let mut reading = Self {
            fields: BTreeMap::new(),
            whole: BTreeSet::new(),
            terminal: BTreeSet::new(),
            wants_terminal: constants.values().any(says_terminal),
        };
        for (name, _) in policy.request_rules() {
            let below = policy.reach().below(name);
            let reached = || below.iter().filter_map(|rule| own.get(rule));
            reading.fields.insert(name.to_owned(), reached().flat_map(|one| one.fields.clone()).collect());
            if reached().any(|one| one.whole) {
                reading.whole.insert(name.to_owned());
            }
            if reached().any(|one| one.terminal) {
                reading.terminal.insert(name.to_owned());
            }
        }
        reading
    }

    /// Of `fields`, those that the rule `name` never looks at, as far as the text says.
    pub(super) fn unread<'a>(&self, name: &str, fields: &[&'a str]) -> Vec<&'a str> {
        if self.whole.contains(name) {
            return Vec::new();
        }
        let read = self.fields.get(name);
        fields.iter().copied().filter(|field| !read.is_some_and(|read| read.contains(*field))).collect()
    }

    /// Whether the rule `name` allows a terminal on purpose.
    pub(super) fn asks_for_terminal(&self, name: &str) -> bool {
        self.terminal.contains(name)
    }
}

/// One name's rules.
#[derive(Debug, Default)]
struct One {
    fields: BTreeSet<String>,
    whole: bool,
    terminal: bool,
}

impl One {
    fn read(&mut self, rule: &Rule) {
        walk_rule(rule, &mut |node| {
            match node {
                Node::Expression(expression) => self.expression(expression),
                Node::Statement(LiteralStmt { literal: Literal::Expr { expr, .. }, .. }) => {
                    self.terminal |= is_terminal(expr);
                }
                _ => {}
            }
            true
        });
    }

    fn expression(&mut self, expression: &Expr) {
        match expression {
            Expr::RefDot { field: (field, _), .. } => {
                self.fields.insert(field.text().to_owned());
            }
            Expr::String { value: Value::String(text), .. } => {
                self.fields.insert(text.to_string());
            }
            Expr::BoolExpr { lhs, rhs, .. } | Expr::AssignExpr { lhs, rhs, .. } => {
                let is_true = |side: &Expr| matches!(side, Expr::Bool { value: Value::Bool(true), .. });
                self.terminal |= (is_terminal(lhs) && is_true(rhs)) || (is_terminal(rhs) && is_true(lhs));
                if matches!(expression, Expr::BoolExpr { .. }) {
                    self.whole |= is_whole(lhs) || is_whole(rhs);
                }
            }
            Expr::Membership { value, .. } => self.whole |= is_whole(value),
            _ => {}
        }
    }
}

fn is_constant(rule: &Rule) -> bool {
    matches!(rule, Rule::Spec { head: RuleHead::Compr { assign: Some(_), .. }, bodies, .. } if bodies.is_empty())
        && rule_root(rule).is_some_and(|name| name.starts_with(|first: char| first.is_lowercase()))
}

fn is_terminal(expression: &Expr) -> bool {
    matches!(expression, Expr::RefDot { field: (field, _), .. } if field.text() == "Terminal")
}

fn is_whole(expression: &Expr) -> bool {
    variable(expression) == Some("input") || dotted(expression).as_deref() == Some("input.OCI")
}

/// Whether `"Terminal": true` is somewhere in a value.
fn says_terminal(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(key, value)| {
            (*key == Value::from("Terminal") && *value == Value::Bool(true)) || says_terminal(value)
        }),
        Value::Array(items) => items.iter().any(says_terminal),
        _ => false,
    }
}
