//! What keeps bytecode exact.
//!
//! Where the tree interpreter stops with an error, the bytecode machine goes on with "undefined"; below a `not`, or
//! beside another body, that would turn an error (which denies) into a permission. Three things make such errors, and
//! each is either made visible to the machine or keeps a rule off it:
//!
//! - `some … in` over something that is no collection: a guard in front of the statement traps;
//! - a rule or function with more than one value: functions with several definitions are called through a wrapper
//!   that collects and traps, rules of requests become sets whose size is looked at;
//! - arithmetic and set operations on other kinds of values: only where the kinds are known from the text.
//!
//! And some things are compiled wrongly. Below `every x in …`, an index `a[x]` iterates over `a` instead of selecting from
//! it: there the index gets a name of its own, which is assigned, and selects. And `x := …` holds when there is no value:
//! behind each stands a condition that fails then. Two more are left to the interpreter: a loop in a body that has an
//! `else`, which is then not taken, and a comprehension that does not begin with its loop, which never ends.
//!
//! A trap makes the machine give up, and then the interpreter decides.

mod kinds;

use crate::ast::{
    Node, bytes, extent, rule_name, rule_root, variable, walk_expression, walk_query, walk_rule,
};
use crate::reach::Reach;
use kinds::{has_one_body, is_collection, is_partial, iterates, names, same_literal, unknown_kinds};
use regorus::unstable::{Expr, Literal, LiteralStmt, Module, Query, Ref, Rule, RuleBody, RuleHead};
use std::collections::{BTreeMap, BTreeSet};

/// What the added names begin with; a text that uses it itself is interpreted.
const OWN: &str = "innerkeep_";

/// Rules that are added. No machine compiles the pattern: it is beyond the limit of the library.
const HELPERS: &str = r#"
innerkeep_broken(x) if { not is_array(x); not is_object(x); not is_set(x); innerkeep_trap }
innerkeep_single(x) := true if { count(x) < 2 } else := true if { innerkeep_trap }
innerkeep_trap if { regex.match(`(?:(?:(?:x{1000}){1000}){1000}){1000}`, "") }
"#;

/// A value that no request can hold (JSON has no sets) and no policy spells (it would have to use our names).
const NOTHING: &str = "{\"innerkeep_\"}";

/// A text whose bytecode gives the interpreter's answers or gives up.
#[derive(Debug)]
pub(crate) struct Exact {
    /// The text to compile.
    pub(crate) text: String,
    /// Rules that have to be interpreted, with the reason.
    pub(crate) unfit: BTreeMap<String, String>,
    /// Rules of requests that were turned into sets.
    pub(crate) collected: BTreeSet<String>,
}

/// The name of the set of a rule's values.
pub(crate) fn set_of(rule: &str) -> String {
    format!("{OWN}all_{rule}")
}

/// Rewrites `text`, whose tree is `module`. `None`: it cannot be done, everything is interpreted.
pub(crate) fn exact(text: &str, module: &Module, reach: &Reach) -> Option<Exact> {
    if text.contains(OWN) {
        return None;
    }
    let mut rewrite = Rewrite {
        text,
        edits: Vec::new(),
        appended: HELPERS.to_owned(),
        unfit: BTreeMap::new(),
        collected: BTreeSet::new(),
    };
    let mut by_name: BTreeMap<&str, Vec<&Rule>> = BTreeMap::new();
    for rule in &module.policy {
        by_name.entry(rule_root(rule)?).or_default().push(rule);
    }
    for (name, rules) in &by_name {
        rewrite.values(name, rules, reach);
    }
    for rule in &module.policy {
        rewrite.indices_below_every(rule)?;
    }
    for rule in &module.policy {
        rewrite.rule(rule)?;
    }
    rewrite.finish()
}

/// Text, and what is going to change in it.
struct Rewrite<'a> {
    text: &'a str,
    /// Byte, bytes that go, text that comes.
    edits: Vec<(usize, usize, String)>,
    appended: String,
    unfit: BTreeMap<String, String>,
    collected: BTreeSet<String>,
}

impl Rewrite<'_> {
    fn unfit(&mut self, rule: &str, reason: &str) {
        self.unfit.entry(rule.to_owned()).or_insert_with(|| reason.to_owned());
    }

    /// Several values of one name.
    fn values(&mut self, name: &str, rules: &[&Rule], reach: &Reach) {
        if rules.iter().any(|rule| rule_name(rule).is_none() || is_partial(rule)) {
            // Partial sets have no conflict; whatever else has a longer head may have one.
            if !rules.iter().all(|rule| matches!(rule, Rule::Spec { head: RuleHead::Set { .. }, .. })) {
                self.unfit(name, "a rule with a key may have two values");
            }
            return;
        }
        let specs: Vec<&Rule> =
            rules.iter().copied().filter(|rule| matches!(rule, Rule::Spec { .. })).collect();
        if same_literal(&specs) {
            return;
        }
        let function =
            specs.iter().any(|rule| matches!(rule, Rule::Spec { head: RuleHead::Func { .. }, .. }));
        let loops = specs.iter().any(|rule| iterates(rule));
        match (function, specs.len() == 1, loops) {
            (_, true, false) => {}
            (true, false, false) if specs.len() == rules.len() => self.wrap_function(name, &specs),
            (false, _, _) if !reach.is_mentioned(name) && specs.iter().all(|rule| has_one_body(rule)) => {
                self.collect(name, &specs);
            }
            _ => self.unfit(name, "it may have two values"),
        }
    }

    /// `f` becomes `f_1`, `f_2`, … and a function that asks them all.
    fn wrap_function(&mut self, name: &str, specs: &[&Rule]) {
        let mut arity = None;
        let mut sets = Vec::new();
        for (position, rule) in specs.iter().enumerate() {
            let Rule::Spec { head: RuleHead::Func { refr, args, .. }, .. } = rule else {
                return self.unfit(name, "it is a function and a rule");
            };
            if arity.is_some_and(|arity| arity != args.len()) {
                return self.unfit(name, "its definitions take different arguments");
            }
            arity = Some(args.len());
            let range = bytes(refr.span());
            let own = format!("{OWN}def_{name}_{position}");
            let parameters: Vec<String> = (0..args.len()).map(|argument| format!("p{argument}")).collect();
            sets.push(format!(
                "{{r | some o in [0]; r := {own}({}); is_null(r) != o}}",
                parameters.join(", ")
            ));
            self.edits.push((range.start, range.len(), own));
        }
        let parameters: Vec<String> =
            (0..arity.unwrap_or(0)).map(|argument| format!("p{argument}")).collect();
        self.appended.push_str(&format!(
            "{name}({}) := value if {{ values := {}; innerkeep_single(values); some value in values }}\n",
            parameters.join(", "),
            sets.join(" | "),
        ));
    }

    /// `R := value if …` becomes an element of the set of all values of `R`.
    fn collect(&mut self, name: &str, specs: &[&Rule]) {
        let mut edits = Vec::new();
        for rule in specs {
            let Rule::Spec { head: RuleHead::Compr { refr, assign, .. }, .. } = rule else {
                return self.unfit(name, "it may have two values");
            };
            let range = bytes(refr.span());
            let Some(operator) = assign.as_ref().map_or(Some(0), |_| operator_after(self.text, range.end))
            else {
                return self.unfit(name, "it may have two values");
            };
            let (start, replaced) = (range.start, range.len() + operator);
            let value = if assign.is_some() { "" } else { "true" };
            edits.push((start, replaced, format!("{} contains {value}", set_of(name))));
        }
        self.edits.extend(edits);
        self.collected.insert(name.to_owned());
    }

    /// Names for the indices that are variables of an `every`.
    fn indices_below_every(&mut self, rule: &Rule) -> Option<()> {
        let name = rule_root(rule)?;
        let mut loops: Vec<(BTreeSet<&str>, &Query)> = Vec::new();
        walk_rule(rule, &mut |node| {
            if let Node::Statement(LiteralStmt {
                literal: Literal::Every { key, value, query, .. }, ..
            }) = node
            {
                loops.push((key.iter().chain([value]).map(|name| name.text()).collect(), query));
            }
            true
        });
        for (variables, query) in loops {
            let mut used: BTreeSet<&str> = BTreeSet::new();
            let mut edits = Vec::new();
            let mut plain = true;
            walk_query(query, &mut |node| {
                match node {
                    Node::Statement(statement) => {
                        plain &= binds(statement).is_disjoint(&variables);
                        // Below `not` the interpreter, too, has its own idea of such an index.
                        if let Literal::NotExpr { expr, .. } = &statement.literal {
                            plain &= !indexed_by(expr, &variables);
                        }
                    }
                    Node::Expression(Expr::RefBrack { index, .. }) => {
                        if let Expr::Var { span, .. } = index.as_ref() {
                            if variables.contains(span.text()) {
                                used.insert(span.text());
                                let range = bytes(span);
                                edits.push((range.start, range.len(), index_name(span.text())));
                            }
                        } else {
                            let mut inner = BTreeSet::new();
                            names(index, &mut inner);
                            plain &= inner.is_disjoint(&variables);
                        }
                    }
                    _ => {}
                }
                true
            });
            if used.is_empty() && plain {
                continue;
            }
            if !plain {
                self.unfit(name, "a variable of `every` is an index or has two meanings");
                continue;
            }
            let first = extent(query.stmts.first()?).start;
            for variable in used {
                edits.push((first, 0, format!("{} := {variable}; ", index_name(variable))));
            }
            self.edits.extend(edits);
        }
        Some(())
    }

    /// A part of the text with the names that indices were given.
    fn renamed(&self, range: std::ops::Range<usize>) -> Option<String> {
        let mut text = String::new();
        let mut at = range.start;
        let mut edits: Vec<_> =
            self.edits.iter().filter(|(start, removed, _)| *removed > 0 && range.contains(start)).collect();
        edits.sort();
        for (start, removed, inserted) in edits {
            text.push_str(self.text.get(at..*start)?);
            text.push_str(inserted);
            at = start + removed;
        }
        text.push_str(self.text.get(at..range.end)?);
        Some(text)
    }

    /// Guards in the bodies of one rule, and what makes it unfit.
    fn rule(&mut self, rule: &Rule) -> Option<()> {
        let name = rule_root(rule)?;
        if let Some(reason) = unknown_kinds(rule) {
            self.unfit(name, reason);
        }
        if let Rule::Spec { bodies, .. } = rule {
            for body in bodies {
                self.body(body)?;
            }
        }
        // Comprehensions and `every` have bodies of their own, which are always enclosed.
        let tops: BTreeSet<usize> = match rule {
            Rule::Spec { bodies, .. } => bodies.iter().map(|body| address(&body.query)).collect(),
            Rule::Default { .. } => BTreeSet::new(),
        };
        let mut nested: Vec<&Query> = Vec::new();
        walk_rule(rule, &mut |node| {
            if let Node::Query(query) = node
                && !tops.contains(&std::ptr::from_ref(query).addr())
            {
                nested.push(query);
            }
            true
        });
        for query in nested {
            for statement in &query.stmts {
                self.statement(statement, None)?;
            }
        }
        Some(())
    }

    fn body(&mut self, body: &RuleBody) -> Option<()> {
        let start = bytes(&body.query.span).start;
        let enclosed = self.text.as_bytes().get(start) == Some(&b'{')
            && body.query.stmts.first().is_some_and(|first| extent(first).start > start);
        for statement in &body.query.stmts {
            self.statement(statement, (!enclosed).then(|| extent(statement).end))?;
        }
        Some(())
    }

    /// A guard in front of `some … in`, one behind an assignment; braces around where the body has none.
    fn statement(&mut self, statement: &LiteralStmt, brace_at: Option<usize>) -> Option<()> {
        let range = extent(statement);
        let (mut before, mut behind) = (String::new(), String::new());
        match &statement.literal {
            Literal::SomeIn { collection, .. } if !is_collection(collection) => {
                let asked = self.renamed(first_byte(collection)..range.end)?;
                before = format!("not {OWN}broken({asked}); ");
            }
            Literal::Expr { expr, .. } => {
                if let Expr::AssignExpr { lhs, rhs, .. } = expr.as_ref() {
                    for name in [lhs, rhs].into_iter().filter_map(|side| variable(side)) {
                        behind.push_str(&format!("; {name} != {NOTHING}"));
                    }
                }
            }
            _ => {}
        }
        if before.is_empty() && behind.is_empty() {
            return Some(());
        }
        if !statement.with_mods.is_empty() {
            return None;
        }
        if brace_at.is_some() {
            before.insert_str(0, "{ ");
            behind.push_str(" }");
        }
        self.edits.push((range.start, 0, before));
        self.edits.push((range.end, 0, behind));
        Some(())
    }

    fn finish(mut self) -> Option<Exact> {
        self.edits.sort();
        let mut text = String::with_capacity(self.text.len() + self.appended.len() + 64 * self.edits.len());
        let mut at = 0;
        for (start, removed, inserted) in &self.edits {
            text.push_str(self.text.get(at..*start)?);
            text.push_str(inserted);
            at = start + removed;
        }
        text.push_str(self.text.get(at..)?);
        text.push('\n');
        text.push_str(&self.appended);
        Some(Exact { text, unfit: self.unfit, collected: self.collected })
    }
}

/// Where a shared node lies, to tell two of them apart.
fn address(query: &Ref<Query>) -> usize {
    let query: &Query = query;
    std::ptr::from_ref(query).addr()
}

/// The name of an index that is the variable of an `every`.
fn index_name(variable: &str) -> String {
    format!("{OWN}index_{variable}")
}

/// Whether one of the variables is an index in an expression.
fn indexed_by(expression: &Expr, variables: &BTreeSet<&str>) -> bool {
    let mut found = false;
    walk_expression(expression, &mut |node| {
        if let Node::Expression(Expr::RefBrack { index, .. }) = node {
            found |= variable(index).is_some_and(|name| variables.contains(name));
        }
        true
    });
    found
}

/// The names that a statement binds.
fn binds(statement: &LiteralStmt) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    match &statement.literal {
        Literal::SomeVars { vars, .. } => found.extend(vars.iter().map(|name| name.text())),
        Literal::SomeIn { key, value, .. } => {
            key.iter().chain([value]).for_each(|pattern| names(pattern, &mut found))
        }
        Literal::Expr { expr, .. } => {
            if let Expr::AssignExpr { lhs, .. } = expr.as_ref() {
                names(lhs, &mut found);
            }
        }
        Literal::Every { key, value, .. } => found.extend(key.iter().chain([value]).map(|name| name.text())),
        Literal::NotExpr { .. } => {}
    }
    found
}

/// How many bytes it takes from `at` to behind the `:=` or `=` there.
fn operator_after(text: &str, at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    let trimmed = rest.trim_start();
    let operator = if trimmed.starts_with(":=") { 2 } else { usize::from(trimmed.starts_with('=')) };
    (operator > 0).then(|| rest.len() - trimmed.len() + operator)
}

/// The first byte of an expression; spans of calls and references begin at their operators.
fn first_byte(expression: &Expr) -> usize {
    let mut first = usize::MAX;
    walk_expression(expression, &mut |node| {
        if let Node::Expression(inner) = node {
            first = first.min(bytes(inner.span()).start - usize::from(is_quoted(inner)));
        }
        true
    });
    first
}

/// Spans of strings leave the quotes out.
fn is_quoted(expression: &Expr) -> bool {
    match expression {
        Expr::String { span, .. } | Expr::RawString { span, .. } => {
            let before = bytes(span).start.checked_sub(1);
            before
                .and_then(|byte| span.source.get_contents().as_bytes().get(byte))
                .is_some_and(|byte| matches!(byte, b'"' | b'`'))
        }
        _ => false,
    }
}
