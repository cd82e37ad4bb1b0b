//! What the text of a rule says about its values: which are constant, which are collections, numbers, sets, and where it
//! iterates. What it does not say makes the rule unfit for bytecode.

use crate::ast::{Node, dotted, variable, walk_expression, walk_query, walk_rule};
use regorus::unstable::{ArithOp, AssignOp, Expr, Literal, LiteralStmt, Query, Rule, RuleHead};
use std::collections::BTreeSet;

/// Builtins whose value is a collection whenever there is one.
const COLLECTIONS: &[&str] =
    &["array.concat", "array.slice", "object.keys", "regex.find_all_string_submatch_n", "split"];
/// Builtins whose value is a number whenever there is one.
const NUMBERS: &[&str] =
    &["bits.and", "bits.lsh", "bits.negate", "bits.or", "bits.rsh", "bits.xor", "count", "to_number"];

/// `rule contains x`, `rule[x]`.
pub(super) fn is_partial(rule: &Rule) -> bool {
    matches!(rule, Rule::Spec { head: RuleHead::Set { .. }, .. })
}

/// No `else`, no second block.
pub(super) fn has_one_body(rule: &Rule) -> bool {
    matches!(rule, Rule::Spec { bodies, .. } if bodies.len() <= 1)
}

/// Whether every definition has the same literal value.
pub(super) fn same_literal(rules: &[&Rule]) -> bool {
    let mut literals = BTreeSet::new();
    for rule in rules {
        let Rule::Spec { head, bodies, .. } = rule else { continue };
        let head_value = match head {
            RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => assign.as_ref(),
            RuleHead::Set { .. } => None,
        };
        literals.insert(literal(head_value.map(|assign| assign.value.as_ref())));
        for body in bodies.iter().filter(|body| body.is_else || body.assign.is_some()) {
            literals.insert(literal(body.assign.as_ref().map(|assign| assign.value.as_ref())));
        }
    }
    literals.len() <= 1 && !literals.contains(&None)
}

/// A scalar written out; no value at all is `true`.
pub(super) fn literal(value: Option<&Expr>) -> Option<String> {
    match value {
        None => Some("true".to_owned()),
        Some(Expr::String { span, .. } | Expr::RawString { span, .. }) => Some(format!("{:?}", span.text())),
        Some(Expr::Number { span, .. } | Expr::Bool { span, .. } | Expr::Null { span, .. }) => {
            Some(span.text().to_owned())
        }
        Some(_) => None,
    }
}

/// Whether a body of the rule, or its value, may be reached more than once.
pub(super) fn iterates(rule: &Rule) -> bool {
    let Rule::Spec { head, bodies, .. } = rule else { return false };
    let mut bound: BTreeSet<&str> = BTreeSet::from(["input", "data"]);
    if let RuleHead::Func { args, .. } = head {
        args.iter().for_each(|argument| names(argument, &mut bound));
    }
    bodies.iter().any(|body| {
        let mut bound = bound.clone();
        let mut found = false;
        for statement in &body.query.stmts {
            match &statement.literal {
                Literal::SomeIn { .. } => found = true,
                Literal::Expr { expr, .. } => {
                    if let Expr::AssignExpr { op: AssignOp::ColEq, lhs, .. } = expr.as_ref() {
                        names(lhs, &mut bound);
                    }
                }
                Literal::SomeVars { .. } | Literal::NotExpr { .. } | Literal::Every { .. } => {}
            }
        }
        walk_query(&body.query, &mut |node| {
            match node {
                Node::Expression(Expr::RefBrack { index, .. }) => {
                    found |= variable(index).is_some_and(|name| {
                        !bound.contains(name)
                            && name.starts_with(|first: char| first.is_lowercase() || first == '_')
                    });
                }
                Node::Expression(Expr::Call { fcn, .. }) => found |= variable(fcn) == Some("walk"),
                _ => {}
            }
            true
        });
        found
    })
}

/// Whether the first statement of a comprehension is its loop.
pub(super) fn begins_with_loop(query: &Query) -> bool {
    let first = query.stmts.iter().find(|statement| statement.span.text() != "true");
    first.is_some_and(|first| match &first.literal {
        Literal::SomeIn { .. } => true,
        Literal::Expr { expr, .. } => {
            let mut wild = false;
            walk_expression(expr, &mut |node| {
                if let Node::Expression(Expr::RefBrack { index, .. }) = node {
                    wild |= variable(index) == Some("_");
                }
                true
            });
            wild
        }
        Literal::SomeVars { .. } | Literal::NotExpr { .. } | Literal::Every { .. } => false,
    })
}

/// The variables of a pattern.
pub(super) fn names<'a>(pattern: &'a Expr, bound: &mut BTreeSet<&'a str>) {
    walk_expression(pattern, &mut |node| {
        if let Node::Expression(Expr::Var { span, .. }) = node {
            bound.insert(span.text());
        }
        true
    });
}

/// Whether an expression is a collection whenever it has a value.
pub(super) fn is_collection(expression: &Expr) -> bool {
    match expression {
        Expr::Array { .. }
        | Expr::Set { .. }
        | Expr::Object { .. }
        | Expr::ArrayCompr { .. }
        | Expr::SetCompr { .. }
        | Expr::ObjectCompr { .. } => true,
        Expr::Call { fcn, params, .. } if params.is_empty() => variable(fcn) == Some("set"),
        Expr::Call { fcn, .. } => dotted(fcn).is_some_and(|name| COLLECTIONS.contains(&name.as_str())),
        _ => false,
    }
}

/// Why the kinds of operands are not known from the text, if they are not.
pub(super) fn unknown_kinds(rule: &Rule) -> Option<&'static str> {
    let mut numbers: BTreeSet<&str> = BTreeSet::new();
    let mut sets: BTreeSet<&str> = BTreeSet::new();
    let mut others: BTreeSet<&str> = BTreeSet::new();
    let mut reason = match rule {
        Rule::Spec { bodies, .. } if bodies.len() > 1 && iterates(rule) => {
            Some("a body that iterates has an `else` or another block")
        }
        _ => None,
    };
    // Twice, so that names which are assigned below their use are known.
    for _ in 0..2 {
        walk_rule(rule, &mut |node| {
            let Node::Expression(Expr::AssignExpr { lhs, rhs, .. }) = node else { return true };
            if let Some(name) = variable(lhs) {
                if is_number(rhs, &numbers, &others) {
                    numbers.insert(name);
                } else if is_set(rhs, &sets, &others) {
                    sets.insert(name);
                } else {
                    others.insert(name);
                }
            }
            true
        });
        numbers.retain(|name| !others.contains(name) && !sets.contains(name));
        sets.retain(|name| !others.contains(name));
    }
    walk_rule(rule, &mut |node| {
        if let Node::Statement(LiteralStmt { literal: Literal::Every { domain, .. }, .. }) = node
            && is_collection(domain)
            && match domain.as_ref() {
                Expr::Call { params, .. } => params.is_empty(),
                other => crate::ast::parts(other).is_empty(),
            }
        {
            reason = Some("an `every` goes over a collection that is empty by its text");
        }
        let Node::Expression(expression) = node else { return true };
        let fit = match expression {
            Expr::ArithExpr { op, lhs, rhs, .. } => {
                let both_numbers = is_number(lhs, &numbers, &others) && is_number(rhs, &numbers, &others);
                let both_sets = is_set(lhs, &sets, &others) && is_set(rhs, &sets, &others);
                (both_numbers && !matches!(op, ArithOp::Mod)) || (both_sets && matches!(op, ArithOp::Sub))
            }
            Expr::BinExpr { lhs, rhs, .. } => is_set(lhs, &sets, &others) && is_set(rhs, &sets, &others),
            Expr::UnaryExpr { expr, .. } => matches!(expr.as_ref(), Expr::Number { .. }),
            Expr::AssignExpr { lhs, rhs, .. } => {
                if variable(lhs).is_none() && variable(rhs).is_none() {
                    reason = Some("an assignment to a pattern may hold without a value");
                }
                true
            }
            Expr::ArrayCompr { query, .. } | Expr::SetCompr { query, .. } if !begins_with_loop(query) => {
                reason = Some("a comprehension does not begin with a loop");
                true
            }
            Expr::ObjectCompr { .. } => {
                reason = Some("an object comprehension may have two values for a key");
                true
            }
            _ => true,
        };
        if !fit {
            reason = Some("an operator has operands of unknown kinds");
        }
        true
    });
    reason
}

pub(super) fn is_number(expression: &Expr, numbers: &BTreeSet<&str>, others: &BTreeSet<&str>) -> bool {
    match expression {
        Expr::Number { .. } => true,
        Expr::Var { span, .. } => numbers.contains(span.text()) && !others.contains(span.text()),
        Expr::Call { fcn, .. } => dotted(fcn).is_some_and(|name| NUMBERS.contains(&name.as_str())),
        Expr::ArithExpr { lhs, rhs, .. } => {
            is_number(lhs, numbers, others) && is_number(rhs, numbers, others)
        }
        Expr::UnaryExpr { expr, .. } => is_number(expr, numbers, others),
        _ => false,
    }
}

pub(super) fn is_set(expression: &Expr, sets: &BTreeSet<&str>, others: &BTreeSet<&str>) -> bool {
    match expression {
        Expr::Set { .. } | Expr::SetCompr { .. } => true,
        Expr::Var { span, .. } => sets.contains(span.text()) && !others.contains(span.text()),
        Expr::Call { fcn, params, .. } => variable(fcn) == Some("set") && params.is_empty(),
        Expr::BinExpr { lhs, rhs, .. } => is_set(lhs, sets, others) && is_set(rhs, sets, others),
        Expr::ArithExpr { op: ArithOp::Sub, lhs, rhs, .. } => {
            is_set(lhs, sets, others) && is_set(rhs, sets, others)
        }
        _ => false,
    }
}
