//! Removal of `print` statements, so that the rest can become bytecode.
//!
//! Generated policies print hundreds of times and the bytecode compiler refuses `print`. A statement that only prints
//! is blanked where it stands: every other token keeps its line and column, a body that would be left empty becomes
//! `true`. What is blanked must be unable to change a decision, so a `print` stays, and with it the whole policy is
//! interpreted, when it is used as a value, negated, under `with`, when something else has that name, or when its
//! arguments could fail, iterate or bind: all of that is decided on the syntax tree, and the tree of the blanked text
//! is then compared with the tree of the original.

use crate::ast::{Node, bytes, variable, walk_module};
use crate::scope::{Names, Scope, harmless};
use regorus::unstable::{Expr, Literal, LiteralStmt, Module, Parser, Query, Rule, RuleHead, Span};
use std::collections::BTreeSet;
use std::mem::{Discriminant, discriminant};

#[cfg(test)]
mod tests;

/// The name.
const PRINT: &str = "print";
/// More arguments than this are an error of the evaluator.
const MAX_ARGUMENTS: usize = 100;

/// A policy text without `print`.
#[derive(Debug)]
pub(crate) enum Blanked {
    /// Every `print` is gone.
    Text {
        /// The text; lines and columns are those of the original.
        text: String,
        /// Its tree.
        module: Box<Module>,
        /// How many statements were blanked.
        removed: usize,
    },
    /// One has to stay.
    Kept {
        /// The line of the first that stays, counted from 1.
        line: u32,
    },
}

/// Removes what may be removed from `text`, whose tree is `module`.
pub(crate) fn blank(text: &str, module: &Module) -> Blanked {
    let mut plan = Plan::default();
    let names = Names::of(module);
    for rule in &module.policy {
        plan.rule(rule, &names);
    }
    if let Some(line) = first_that_stays(module, &plan.removed) {
        return Blanked::Kept { line };
    }
    let mut characters: Vec<char> = text.chars().collect();
    let index = CharacterIndex::new(text);
    for statement in &plan.statements {
        let Some(range) = index.range(&statement.bytes) else {
            return Blanked::Kept { line: statement.line };
        };
        let Some(cells) = characters.get_mut(range) else { return Blanked::Kept { line: statement.line } };
        overwrite(cells, statement.leaves_true);
    }
    let blanked: String = characters.into_iter().collect();
    match same_tree(module, &plan, &blanked) {
        Some(module) => {
            Blanked::Text { text: blanked, module: Box::new(module), removed: plan.statements.len() }
        }
        None => Blanked::Kept { line: plan.statements.first().map_or(1, |statement| statement.line) },
    }
}

/// Spaces, or `true` and spaces; line ends and tabs stay, so that no column moves.
fn overwrite(cells: &mut [char], leaves_true: bool) {
    let mut word = if leaves_true { "true".chars() } else { "".chars() };
    for cell in cells.iter_mut() {
        if let Some(letter) = word.next() {
            *cell = letter;
        } else if !cell.is_whitespace() {
            *cell = ' ';
        }
    }
}

/// What is going to be removed.
#[derive(Debug, Default)]
struct Plan {
    statements: Vec<Removed>,
    /// Where the removed statements begin, in bytes.
    removed: BTreeSet<usize>,
}

/// One statement that goes.
#[derive(Debug)]
struct Removed {
    bytes: std::ops::Range<usize>,
    line: u32,
    leaves_true: bool,
}

impl Plan {
    fn rule(&mut self, rule: &Rule, names: &Names) {
        let mut scope = Scope::new(names);
        let Rule::Spec { head, bodies, .. } = rule else { return };
        if let RuleHead::Func { args, .. } = head {
            for argument in args {
                scope.bind_pattern(argument);
            }
        }
        for body in bodies {
            self.query(&body.query, &scope);
            if let Some(assign) = &body.assign {
                self.below(&assign.value, &scope.with_bindings_of(&body.query));
            }
        }
        // The head sees what any of the bodies binds; comprehensions in it have bodies of their own.
        let mut inside = scope.clone();
        for body in bodies {
            inside = inside.with_bindings_of(&body.query);
        }
        for expression in crate::ast::head_expressions(head) {
            self.below(expression, &inside);
        }
    }

    /// A body: its own statements, then what is nested in them.
    fn query(&mut self, query: &Query, outer: &Scope<'_>) {
        let scope = outer.with_bindings_of(query);
        let prints: Vec<bool> = query.stmts.iter().map(|statement| only_prints(statement, &scope)).collect();
        let all = prints.iter().all(|print| *print);
        for (position, statement) in query.stmts.iter().enumerate() {
            if prints.get(position) == Some(&true) {
                let before = position.checked_sub(1).and_then(|previous| query.stmts.get(previous));
                let after = query.stmts.get(position + 1);
                let leaves_true = all || crowded(before, statement, after, query);
                let range = bytes(&statement.span);
                self.removed.insert(range.start);
                self.statements.push(Removed { bytes: range, line: statement.span.line, leaves_true });
                continue;
            }
            self.nested(statement, &scope);
        }
    }

    fn nested(&mut self, statement: &LiteralStmt, scope: &Scope<'_>) {
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                for expression in key.iter().chain([value, collection]) {
                    self.below(expression, scope);
                }
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.below(expr, scope),
            Literal::Every { key, value, domain, query, .. } => {
                self.below(domain, scope);
                let mut inside = scope.clone();
                for name in key.iter().chain([value]) {
                    inside.bind_round(name.text());
                }
                self.query(query, &inside);
            }
        }
        for modifier in &statement.with_mods {
            self.below(&modifier.r#as, scope);
        }
    }

    /// Comprehensions below an expression.
    fn below(&mut self, expression: &Expr, scope: &Scope<'_>) {
        let comprehension = match expression {
            Expr::ArrayCompr { query, .. }
            | Expr::SetCompr { query, .. }
            | Expr::ObjectCompr { query, .. } => Some(query),
            _ => None,
        };
        if let Some(query) = comprehension {
            self.query(query, scope);
        }
        let inside = comprehension.map_or_else(|| scope.clone(), |query| scope.with_bindings_of(query));
        for part in crate::ast::parts(expression) {
            if let crate::ast::Part::Expression(expression) = part {
                self.below(expression, &inside);
            }
        }
    }
}

/// Whether a statement does nothing but print, whatever the request is.
fn only_prints(statement: &LiteralStmt, scope: &Scope<'_>) -> bool {
    let Literal::Expr { expr, .. } = &statement.literal else { return false };
    let Expr::Call { fcn, params, .. } = expr.as_ref() else { return false };
    variable(fcn) == Some(PRINT)
        && !scope.is_bound(PRINT)
        && statement.with_mods.is_empty()
        && params.len() <= MAX_ARGUMENTS
        && statement.span.text().starts_with(PRINT)
        && statement.span.text().ends_with(')')
        && params.iter().all(|argument| harmless(argument, scope))
}

/// Whether blanks in place of this statement could join its neighbours: it shares a line with one, or a `;`
/// separates them.
fn crowded(
    before: Option<&LiteralStmt>,
    statement: &LiteralStmt,
    after: Option<&LiteralStmt>,
    query: &Query,
) -> bool {
    let text = statement.span.source.get_contents();
    let here = bytes(&statement.span);
    let whole = bytes(&query.span);
    let left = before.map_or(whole.start, |before| bytes(&before.span).end);
    let right = after.map_or(whole.end, |after| bytes(&after.span).start);
    let clear = |gap: Option<&str>, neighbour: bool| {
        gap.is_some_and(|gap| !gap.contains(';') && (!neighbour || gap.contains('\n')))
    };
    !(clear(text.get(left..here.start), before.is_some())
        && clear(text.get(here.end..right), after.is_some()))
}

/// The line of the first mention of the name `print` that is not a removed statement: as a rule, an import, a
/// variable, a value.
fn first_that_stays(module: &Module, removed: &BTreeSet<usize>) -> Option<u32> {
    for import in &module.imports {
        if import.r#as.as_ref().is_some_and(|name| name.text() == PRINT) {
            return Some(import.span.line);
        }
        let last = match import.refr.as_ref() {
            Expr::RefDot { field: (field, _), .. } => field.text() == PRINT,
            Expr::RefBrack { index, .. } => {
                matches!(index.as_ref(), Expr::String { span, .. } if span.text() == PRINT)
            }
            other => variable(other) == Some(PRINT),
        };
        if last {
            return Some(import.span.line);
        }
    }
    let mut found: Option<u32> = None;
    let mut note = |span: &Span| found = Some(found.map_or(span.line, |line| line.min(span.line)));
    walk_module(module, &mut |node| match node {
        Node::Statement(statement) => {
            match &statement.literal {
                Literal::SomeVars { vars, .. } => {
                    vars.iter().filter(|name| name.text() == PRINT).for_each(&mut note);
                }
                Literal::Every { key, value, .. } => {
                    key.iter().chain([value]).filter(|name| name.text() == PRINT).for_each(&mut note);
                }
                _ => {}
            }
            !removed.contains(&bytes(&statement.span).start)
        }
        Node::Expression(expression) => {
            if variable(expression) == Some(PRINT) {
                note(expression.span());
            }
            true
        }
        Node::Rule(_) | Node::Query(_) => true,
    });
    found
}

/// The tree of `blanked`, if it is the tree of the original without the removed statements.
fn same_tree(module: &Module, plan: &Plan, blanked: &str) -> Option<Module> {
    let source = regorus::Source::from_contents("agent_policy".to_owned(), blanked.to_owned()).ok()?;
    let mut parser = Parser::new(&source).ok()?;
    parser.set_max_col(crate::limits::SHAPE.max_col);
    parser.enable_rego_v1().ok()?;
    let blanked = parser.parse().ok()?;
    let places = places(module, plan);
    let before = fingerprint(module, &|statement| plan.removed.contains(&bytes(&statement.span).start));
    let after = fingerprint(&blanked, &|statement| {
        places.contains(&(statement.span.line, statement.span.col)) && statement.span.text() == "true"
    });
    (before == after).then_some(blanked)
}

/// Lines and columns of the statements that become `true`.
fn places(module: &Module, plan: &Plan) -> BTreeSet<(u32, u32)> {
    let starts: BTreeSet<usize> = plan
        .statements
        .iter()
        .filter(|statement| statement.leaves_true)
        .map(|statement| statement.bytes.start)
        .collect();
    let mut found = BTreeSet::new();
    walk_module(module, &mut |node| {
        if let Node::Statement(statement) = node
            && starts.contains(&bytes(&statement.span).start)
        {
            found.insert((statement.span.line, statement.span.col));
        }
        true
    });
    found
}

/// What two trees have in common: the kind of a node, and the text of a leaf.
#[derive(PartialEq, Eq)]
enum Mark {
    Rule,
    Query,
    Statement(Discriminant<Literal>),
    Expression(Discriminant<Expr>),
    Leaf(Discriminant<Expr>, Box<str>),
}

/// Mark, line and column of every node but the skipped statements.
fn fingerprint(module: &Module, skipped: &dyn Fn(&LiteralStmt) -> bool) -> Vec<(Mark, u32, u32)> {
    let mut found = Vec::new();
    for rule in &module.policy {
        found.push((Mark::Rule, rule.span().line, rule.span().col));
    }
    walk_module(module, &mut |node| {
        let (mark, span) = match node {
            Node::Rule(rule) => (Mark::Rule, rule.span()),
            Node::Query(query) => (Mark::Query, &query.span),
            Node::Statement(statement) => {
                if skipped(statement) {
                    return false;
                }
                (Mark::Statement(discriminant(&statement.literal)), &statement.span)
            }
            Node::Expression(expression) => {
                let (kind, span) = (discriminant(expression), expression.span());
                let leaf = crate::ast::parts(expression).is_empty();
                (if leaf { Mark::Leaf(kind, span.text().into()) } else { Mark::Expression(kind) }, span)
            }
        };
        found.push((mark, span.line, span.col));
        true
    });
    found
}

/// Bytes to characters.
struct CharacterIndex {
    starts: Vec<usize>,
}

impl CharacterIndex {
    fn new(text: &str) -> Self {
        Self { starts: text.char_indices().map(|(start, _)| start).chain([text.len()]).collect() }
    }

    fn range(&self, bytes: &std::ops::Range<usize>) -> Option<std::ops::Range<usize>> {
        let at = |byte: usize| self.starts.binary_search(&byte).ok();
        Some(at(bytes.start)?..at(bytes.end)?)
    }
}
