//! A walk over the syntax tree of a module.
//!
//! `regorus` hands out its parser and tree under the name `unstable`; this crate pins the version exactly and touches
//! the tree nowhere else than below this module's types.

use regorus::unstable::{Expr, Literal, LiteralStmt, Module, Query, Ref, Rule, RuleHead, Span};

/// What a walk meets, parents before children.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Node<'a> {
    /// A rule, with all its bodies.
    Rule(&'a Rule),
    /// A body: of a rule, an `every`, a comprehension.
    Query(&'a Query),
    /// A statement of a body.
    Statement(&'a LiteralStmt),
    /// An expression.
    Expression(&'a Expr),
}

/// Walks all rules. `visit` says whether to go below what it was given.
pub(crate) fn walk_module<'a>(module: &'a Module, visit: &mut dyn FnMut(Node<'a>) -> bool) {
    for rule in &module.policy {
        walk_rule(rule, visit);
    }
}

/// Walks one rule: head, then bodies.
pub(crate) fn walk_rule<'a>(rule: &'a Rule, visit: &mut dyn FnMut(Node<'a>) -> bool) {
    if !visit(Node::Rule(rule)) {
        return;
    }
    match rule {
        Rule::Spec { head, bodies, .. } => {
            for expression in head_expressions(head) {
                walk_expression(expression, visit);
            }
            for body in bodies {
                if let Some(assign) = &body.assign {
                    walk_expression(&assign.value, visit);
                }
                walk_query(&body.query, visit);
            }
        }
        Rule::Default { refr, args, value, .. } => {
            walk_expression(refr, visit);
            for argument in args {
                walk_expression(argument, visit);
            }
            walk_expression(value, visit);
        }
    }
}

/// Everything that a head holds: name, arguments, key, value.
pub(crate) fn head_expressions(head: &RuleHead) -> Vec<&Ref<Expr>> {
    match head {
        RuleHead::Compr { refr, assign, .. } => {
            std::iter::once(refr).chain(assign.as_ref().map(|assign| &assign.value)).collect()
        }
        RuleHead::Set { refr, key, .. } => std::iter::once(refr).chain(key).collect(),
        RuleHead::Func { refr, args, assign, .. } => {
            std::iter::once(refr).chain(args).chain(assign.as_ref().map(|assign| &assign.value)).collect()
        }
    }
}

/// Walks a body.
pub(crate) fn walk_query<'a>(query: &'a Query, visit: &mut dyn FnMut(Node<'a>) -> bool) {
    if !visit(Node::Query(query)) {
        return;
    }
    for statement in &query.stmts {
        if !visit(Node::Statement(statement)) {
            continue;
        }
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                for expression in key.iter().chain([value, collection]) {
                    walk_expression(expression, visit);
                }
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => walk_expression(expr, visit),
            Literal::Every { domain, query, .. } => {
                walk_expression(domain, visit);
                walk_query(query, visit);
            }
        }
        for modifier in &statement.with_mods {
            walk_expression(&modifier.refr, visit);
            walk_expression(&modifier.r#as, visit);
        }
    }
}

/// Walks an expression.
pub(crate) fn walk_expression<'a>(expression: &'a Expr, visit: &mut dyn FnMut(Node<'a>) -> bool) {
    if !visit(Node::Expression(expression)) {
        return;
    }
    for part in parts(expression) {
        match part {
            Part::Expression(expression) => walk_expression(expression, visit),
            Part::Query(query) => walk_query(query, visit),
        }
    }
}

/// A direct part of an expression.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part<'a> {
    /// An operand, item, key, value, term.
    Expression(&'a Ref<Expr>),
    /// The body of a comprehension.
    Query(&'a Ref<Query>),
}

/// The direct parts of an expression, in the order of the text but for comprehensions, whose body comes first.
pub(crate) fn parts(expression: &Expr) -> Vec<Part<'_>> {
    match expression {
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. }
        | Expr::Var { .. } => Vec::new(),
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().map(Part::Expression).collect(),
        Expr::Object { fields, .. } => fields
            .iter()
            .flat_map(|(_, key, value)| [Part::Expression(key), Part::Expression(value)])
            .collect(),
        Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
            vec![Part::Query(query), Part::Expression(term)]
        }
        Expr::ObjectCompr { key, value, query, .. } => {
            vec![Part::Query(query), Part::Expression(key), Part::Expression(value)]
        }
        Expr::Call { fcn, params, .. } => std::iter::once(fcn).chain(params).map(Part::Expression).collect(),
        Expr::UnaryExpr { expr, .. } => vec![Part::Expression(expr)],
        Expr::RefDot { refr, .. } => vec![Part::Expression(refr)],
        Expr::RefBrack { refr, index, .. } => vec![Part::Expression(refr), Part::Expression(index)],
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => vec![Part::Expression(lhs), Part::Expression(rhs)],
        Expr::Membership { key, value, collection, .. } => {
            key.iter().chain([value, collection]).map(Part::Expression).collect()
        }
    }
}

/// The name of a variable.
pub(crate) fn variable(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Var { span, .. } => Some(span.text()),
        _ => None,
    }
}

/// The dotted path of a reference without computed parts: `regex.match`, `data.agent_policy.X`.
pub(crate) fn dotted(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Var { span, .. } => Some(span.text().to_owned()),
        Expr::RefDot { refr, field: (field, _), .. } => Some(format!("{}.{}", dotted(refr)?, field.text())),
        Expr::RefBrack { refr, index, .. } => match index.as_ref() {
            Expr::String { span, .. } => Some(format!("{}.{}", dotted(refr)?, span.text())),
            _ => None,
        },
        _ => None,
    }
}

/// The name that a rule defines in its package; `None` for one that is longer than an identifier.
pub(crate) fn rule_name(rule: &Rule) -> Option<&str> {
    let refr = match rule {
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. } => refr,
        },
        Rule::Default { refr, .. } => refr,
    };
    variable(refr)
}

/// The first name of what a rule defines: `a` of `a`, of `a.b.c` and of `a[x]`.
pub(crate) fn rule_root(rule: &Rule) -> Option<&str> {
    let mut expression = match rule {
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. } => refr,
        },
        Rule::Default { refr, .. } => refr,
    };
    loop {
        match expression.as_ref() {
            Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } => expression = refr,
            other => return variable(other),
        }
    }
}

/// Bytes of a span in its text.
pub(crate) fn bytes(span: &Span) -> std::ops::Range<usize> {
    usize::try_from(span.start).unwrap_or(usize::MAX)..usize::try_from(span.end).unwrap_or(usize::MAX)
}

/// Bytes of a statement in its text. The tree's spans leave quotes out where a statement begins or ends with a string.
pub(crate) fn extent(statement: &LiteralStmt) -> std::ops::Range<usize> {
    let range = bytes(&statement.span);
    let text = statement.span.source.get_contents().as_bytes();
    let quote =
        |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(|byte| matches!(byte, b'"' | b'`'));
    let start = range.start - usize::from(quote(range.start.checked_sub(1)));
    let end = range.end + usize::from(quote(Some(range.end)));
    start..end
}
