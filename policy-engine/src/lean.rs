//! Bytecode as the compiler makes it, made lean: the same answers, less work for each.
//!
//! - A rule that is nothing but a literal (`policy_data`) is loaded in place of being called, and what lies at a path
//!   of literals below it is loaded in place of being looked up.
//! - What only a listing shows (names, parameters) goes: the machine copies all that it knows of a rule at each call.
//! - Builtins are those of [`crate::builtins`].
//!
//! No instruction moves, so that no jump has to.

use crate::ast::{Part, parts, rule_name};
use crate::builtins::replacement;
use regorus::Value;
use regorus::rvm::Program;
use regorus::rvm::instructions::{Instruction, LiteralOrRegister};
use regorus::rvm::program::RuleType;
use regorus::unstable::{Expr, Module, Rule, RuleHead};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Rules that are one literal, by the names of their paths.
pub(crate) fn constants(module: &Module) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for rule in &module.policy {
        let Some(name) = crate::ast::rule_root(rule) else { return BTreeMap::new() };
        let path = format!("data.agent_policy.{name}");
        let value = match rule.as_ref() {
            Rule::Spec { head: RuleHead::Compr { assign: Some(assign), .. }, bodies, .. }
                if bodies.is_empty() && rule_name(rule).is_some() =>
            {
                literal(&assign.value)
            }
            _ => None,
        };
        if let (true, Some(value)) = (seen.insert(path.clone()), value) {
            found.insert(path, value);
        } else {
            // A second definition, or no literal.
            found.remove(&path);
        }
    }
    found
}

/// JSON, written out.
fn literal(expression: &Expr) -> Option<Value> {
    match expression {
        Expr::String { value, .. }
        | Expr::RawString { value, .. }
        | Expr::Number { value, .. }
        | Expr::Bool { value, .. }
        | Expr::Null { value, .. } => Some(value.clone()),
        Expr::Array { .. } => {
            let items = parts(expression).into_iter().map(|part| match part {
                Part::Expression(item) => literal(item),
                Part::Query(_) => None,
            });
            items.collect::<Option<Vec<Value>>>().map(Value::from)
        }
        Expr::Object { fields, .. } => {
            let mut members = BTreeMap::new();
            for (_, key, value) in fields {
                if members.insert(literal(key)?, literal(value)?).is_some() {
                    return None;
                }
            }
            Some(Value::from(members))
        }
        _ => None,
    }
}

/// The lean form of a program.
pub(crate) fn lean(program: Arc<Program>, constants: &BTreeMap<String, Value>) -> Arc<Program> {
    let mut program = Arc::unwrap_or_clone(program);
    load_constants(&mut program, constants);
    for rule in &mut program.rule_infos {
        rule.name = String::new();
        if let Some(function) = &mut rule.function_info {
            function.param_names = Vec::new();
        }
        // Both are only looked up, and missing means none.
        if rule.destructuring_blocks.iter().all(Option::is_none) {
            rule.destructuring_blocks = Vec::new();
        }
        if rule.rule_type == RuleType::Complete || !rule.else_bodies.iter().flatten().any(|is_else| *is_else)
        {
            rule.else_bodies = Vec::new();
        }
    }
    program.instruction_spans = Vec::new();
    let builtins = program.builtin_info_table.iter().zip(&mut program.resolved_builtins);
    for (info, resolved) in builtins {
        *resolved = replacement(&info.name, *resolved);
    }
    Arc::new(program)
}

/// Loads in place of calls and lookups.
fn load_constants(program: &mut Program, constants: &BTreeMap<String, Value>) {
    let targets = targets(program);
    let mut literals = Literals { program: &mut program.literals, of_rules: BTreeMap::new() };
    // The register that the last instruction loaded.
    let mut loaded: Option<(u8, Value)> = None;
    for (position, instruction) in program.instructions.iter_mut().enumerate() {
        if targets.contains(&position) {
            loaded = None;
        }
        let found = match instruction {
            Instruction::CallRule { dest, rule_index } => program
                .rule_infos
                .get(usize::from(*rule_index))
                .and_then(|rule| Some((rule.name.as_str(), constants.get(&rule.name)?)))
                .and_then(|(rule, value)| Some((*dest, value.clone(), literals.of_rule(rule, value)?))),
            Instruction::ChainedIndex { params_index } => program
                .instruction_data
                .get_chained_index_params(*params_index)
                .zip(loaded.as_ref())
                .filter(|(params, (register, _))| params.root == *register)
                .and_then(|(params, (_, value))| {
                    let keys = params.path_components.iter().map(|component| match component {
                        LiteralOrRegister::Literal(index) => Some(*index),
                        LiteralOrRegister::Register(_) => None,
                    });
                    let value = literals.below(value, &keys.collect::<Option<Vec<u16>>>()?)?;
                    Some((params.dest, value.clone(), literals.add(value)?))
                }),
            Instruction::IndexLiteral { dest, container, literal_idx } => loaded
                .as_ref()
                .filter(|(register, _)| register == container)
                .and_then(|(_, value)| literals.below(value, &[*literal_idx]))
                .and_then(|value| Some((*dest, value.clone(), literals.add(value)?))),
            _ => None,
        };
        loaded = found.map(|(dest, value, literal_idx)| {
            *instruction = Instruction::Load { dest, literal_idx };
            (dest, value)
        });
    }
}

/// The table of literals.
struct Literals<'a> {
    program: &'a mut Vec<Value>,
    of_rules: BTreeMap<String, u16>,
}

impl Literals<'_> {
    fn of_rule(&mut self, rule: &str, value: &Value) -> Option<u16> {
        if let Some(index) = self.of_rules.get(rule) {
            return Some(*index);
        }
        // The compiler has it already, in the rule's own body.
        let known = self.program.iter().position(|known| known == value);
        let index = match known {
            Some(index) => u16::try_from(index).ok()?,
            None => self.push(value.clone())?,
        };
        self.of_rules.insert(rule.to_owned(), index);
        Some(index)
    }

    /// Small values are often there already; large ones are not worth the comparison.
    fn add(&mut self, value: Value) -> Option<u16> {
        let known = match value {
            Value::Array(_) | Value::Object(_) | Value::Set(_) => None,
            _ => self.program.iter().position(|known| *known == value),
        };
        match known {
            Some(index) => u16::try_from(index).ok(),
            None => self.push(value),
        }
    }

    fn push(&mut self, value: Value) -> Option<u16> {
        if self.program.len() >= Program::MAX_LITERALS {
            return None;
        }
        let index = u16::try_from(self.program.len()).ok()?;
        self.program.push(value);
        Some(index)
    }

    /// What lies at a path; nothing where the machine would have no value.
    fn below(&self, value: &Value, keys: &[u16]) -> Option<Value> {
        let mut value = value.clone();
        for key in keys {
            let next = value[self.program.get(usize::from(*key))?].clone();
            if next == Value::Undefined {
                return None;
            }
            value = next;
        }
        Some(value)
    }
}

/// Where control may arrive other than from the instruction before, with a place to both sides: the machine counts up
/// after some jumps and not after others.
fn targets(program: &Program) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut add = |target: usize| found.extend([target.saturating_sub(1), target, target.saturating_add(1)]);
    let data = &program.instruction_data;
    data.loop_params
        .iter()
        .flat_map(|loops| [loops.body_start, loops.loop_end])
        .map(usize::from)
        .for_each(&mut add);
    data.comprehension_begin_params
        .iter()
        .flat_map(|begin| [begin.body_start, begin.comprehension_end])
        .map(usize::from)
        .for_each(&mut add);
    for rule in &program.rule_infos {
        let entries = rule.definitions.iter().flatten().chain(rule.destructuring_blocks.iter().flatten());
        entries.map(|entry| usize::try_from(*entry).unwrap_or(usize::MAX)).for_each(&mut add);
    }
    program.entry_points.values().copied().for_each(&mut add);
    for instruction in &program.instructions {
        match instruction {
            Instruction::LoopNext { body_start, loop_end } => {
                [*body_start, *loop_end].map(usize::from).into_iter().for_each(&mut add);
            }
            Instruction::AnyOfNext { end_pc, .. }
            | Instruction::AllOfNext { end_pc, .. }
            | Instruction::LogicalBlockStart { end_pc, .. } => add(usize::from(*end_pc)),
            _ => {}
        }
    }
    found
}
