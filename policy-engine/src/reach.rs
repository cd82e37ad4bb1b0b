//! What a request's rule reaches, found on the syntax tree: whether its decision depends on the state, and whether it
//! may change it. Both answers err on the side of "yes".

use crate::ast::{Node, dotted, rule_name, rule_root, variable, walk_rule};
use regorus::unstable::{Expr, Module, Rule, RuleAssign, RuleHead};
use std::collections::{BTreeMap, BTreeSet};

/// How a request's decision depends on the policy's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateUse {
    /// Some rule below it looks into `data`.
    pub reads: bool,
    /// It may answer with operations on the state, so that decision and effect of one such request have to be over
    /// before the next is decided.
    pub writes: bool,
}

/// A module as a graph of names.
#[derive(Debug)]
pub(crate) struct Reach {
    /// Name of a rule, names that its definitions mention.
    mentions: BTreeMap<String, BTreeSet<String>>,
    /// Names that are mentioned below some head.
    mentioned: BTreeSet<String>,
    /// Rules that look into `data` themselves.
    readers: BTreeSet<String>,
    /// Rules that look at the request.
    askers: BTreeSet<String>,
    /// Rules whose every value is a literal boolean.
    booleans: BTreeSet<String>,
    /// An import brings `data` in under another name.
    imports_data: bool,
    /// An import brings the request in under another name.
    imports_input: bool,
}

impl Reach {
    pub(crate) fn of(module: &Module) -> Self {
        let names: BTreeSet<&str> = module.policy.iter().filter_map(|rule| rule_root(rule)).collect();
        let mut reach = Self {
            mentions: BTreeMap::new(),
            mentioned: BTreeSet::new(),
            readers: BTreeSet::new(),
            askers: BTreeSet::new(),
            booleans: names.iter().map(|name| (*name).to_owned()).collect(),
            imports_data: module.imports.iter().any(|import| {
                dotted(&import.refr).is_none_or(|path| path == "data" || path.starts_with("data."))
            }),
            imports_input: module.imports.iter().any(|import| {
                dotted(&import.refr).is_none_or(|path| path == "input" || path.starts_with("input."))
            }),
        };
        for rule in &module.policy {
            let Some(root) = rule_root(rule) else {
                // A definition without a name could be of anything.
                reach.imports_data = true;
                reach.booleans.clear();
                continue;
            };
            if rule_name(rule).is_none() || !is_boolean(rule) {
                reach.booleans.remove(root);
            }
            let own_head = own_name(rule).map(|name| std::ptr::from_ref(name).addr());
            let mut reads = false;
            let mut asks = false;
            let mentioned = reach.mentions.entry(root.to_owned()).or_default();
            walk_rule(rule, &mut |node| {
                let Node::Expression(expression) = node else { return true };
                if Some(std::ptr::from_ref(expression).addr()) == own_head {
                    return true;
                }
                if let Some(own) =
                    dotted(expression).as_deref().and_then(|path| path.strip_prefix("data.agent_policy."))
                {
                    mentioned.insert(own.split('.').next().unwrap_or_default().to_owned());
                    return false;
                }
                match variable(expression) {
                    // What is looked up is not known: perhaps any rule.
                    Some("data") => reads = true,
                    Some("input") => asks = true,
                    Some(name) if names.contains(name) => {
                        mentioned.insert(name.to_owned());
                    }
                    _ => {}
                }
                true
            });
            reach.mentioned.extend(mentioned.iter().cloned());
            if reads {
                reach.readers.insert(root.to_owned());
            }
            if asks {
                reach.askers.insert(root.to_owned());
            }
        }
        reach
    }

    /// Every rule that `name` leads to, itself included.
    pub(crate) fn below<'a>(&'a self, name: &'a str) -> BTreeSet<&'a str> {
        let mut seen = BTreeSet::new();
        let mut todo = vec![name];
        while let Some(next) = todo.pop() {
            if seen.insert(next) {
                todo.extend(self.mentions.get(next).into_iter().flatten().map(String::as_str));
            }
        }
        seen
    }

    /// Whether a definition mentions `name` other than by defining it, or could without naming it.
    pub(crate) fn is_mentioned(&self, name: &str) -> bool {
        self.imports_data || self.mentioned.contains(name)
    }

    /// Whether the rule `name` says the same about every request, in every state.
    pub(crate) fn is_constant(&self, name: &str) -> bool {
        let seen = self.below(name);
        let looks = |rules: &BTreeSet<String>| seen.iter().any(|name| rules.contains(*name));
        !(self.imports_data || self.imports_input || looks(&self.readers) || looks(&self.askers))
    }

    /// How the rule `name` uses the state.
    pub(crate) fn state_use(&self, name: &str) -> StateUse {
        let seen = self.below(name);
        StateUse {
            reads: self.imports_data || seen.iter().any(|name| self.readers.contains(*name)),
            writes: !self.booleans.contains(name),
        }
    }
}

/// The expression by which a rule names itself.
fn own_name(rule: &Rule) -> Option<&Expr> {
    let refr = match rule {
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. } => refr,
        },
        Rule::Default { refr, .. } => refr,
    };
    variable(refr).map(|_| refr.as_ref())
}

/// Whether a definition can only be `true` or `false`.
fn is_boolean(rule: &Rule) -> bool {
    let literal = |assign: &Option<RuleAssign>| {
        assign.as_ref().is_none_or(|assign| matches!(assign.value.as_ref(), Expr::Bool { .. }))
    };
    match rule {
        Rule::Default { value, .. } => matches!(value.as_ref(), Expr::Bool { .. }),
        Rule::Spec { head: RuleHead::Compr { assign, .. }, bodies, .. } => {
            literal(assign) && bodies.iter().all(|body| literal(&body.assign))
        }
        Rule::Spec { .. } => false,
    }
}
