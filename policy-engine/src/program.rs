//! Bytecode, and the machines that run it.

use crate::ast::rule_root;
use crate::builtins::{Patterns, within};
use crate::decision::{Fault, LimitKind};
use crate::error::shortened;
use crate::exact::{Exact, set_of};
use crate::lean::{constants, lean};
use crate::limits::Limits;
use crate::policy::parsed;
use regorus::Value;
use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::vm::VmError;
use regorus::rvm::{self, RegoVM};
use regorus::unstable::Rule;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Machines that are kept for the next request.
const MAX_IDLE: usize = 8;

/// The bytecode of the rules of one policy.
pub(crate) struct Program {
    code: Arc<rvm::Program>,
    /// Names whose values are collected into a set, and whether a default is there for when it is empty.
    collected: BTreeMap<String, bool>,
    /// Values of rules that depend on nothing.
    fixed: BTreeMap<String, Option<Value>>,
    patterns: Arc<Patterns>,
    idle: Mutex<Vec<RegoVM>>,
}

impl fmt::Debug for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Program")
            .field("instructions", &self.code.instructions.len())
            .finish_non_exhaustive()
    }
}

/// The path of a rule.
fn path(name: &str) -> String {
    format!("data.agent_policy.{name}")
}

impl Program {
    /// Compiles the rules `names`; the error is the compiler's reason.
    pub(crate) fn compile(exact: &Exact, names: &[String], limits: &Limits) -> Result<Self, String> {
        let said = |message: String| shortened(&message, 256);
        let mut engine = parsed(&exact.text, limits).map_err(|error| said(error.to_string()))?;
        let literals = engine.get_modules().first().map(|module| constants(module)).unwrap_or_default();
        let defaults: BTreeSet<String> = engine
            .get_modules()
            .iter()
            .flat_map(|module| &module.policy)
            .filter(|rule| matches!(rule.as_ref(), Rule::Default { .. }))
            .filter_map(|rule| rule_root(rule).map(str::to_owned))
            .collect();
        let mut collected = BTreeMap::new();
        let mut rules = Vec::new();
        for name in names {
            if exact.collected.contains(name) {
                collected.insert(name.clone(), defaults.contains(name));
                rules.push(path(&set_of(name)));
            }
            if !exact.collected.contains(name) || defaults.contains(name) {
                rules.push(path(name));
            }
        }
        let first = rules.first().ok_or_else(|| "there is no rule for any request".to_owned())?;
        let policy = engine
            .compile_with_entrypoint(&regorus::Rc::from(first.as_str()))
            .map_err(|error| said(format!("{error:#}")))?;
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let code = Compiler::compile_from_policy(&policy, &rules).map_err(|error| said(error.to_string()))?;
        Ok(Self {
            code: lean(code, &literals),
            collected,
            fixed: BTreeMap::new(),
            patterns: Arc::default(),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Evaluates rules that look at neither request nor state, once and for all. One that ends with an error stays as
    /// it is.
    pub(crate) fn fix<'a>(&mut self, names: impl Iterator<Item = &'a String>, limits: &Limits) {
        for name in names {
            let nothing = Value::new_object();
            if let Ok(value) = self.value(name, &nothing, &nothing, limits) {
                self.fixed.insert(name.clone(), value);
            }
        }
    }

    /// The value of the rule `name`; `None` is undefined.
    pub(crate) fn value(
        &self,
        name: &str,
        input: &Value,
        data: &Value,
        limits: &Limits,
    ) -> Result<Option<Value>, Fault> {
        if let Some(value) = self.fixed.get(name) {
            return Ok(value.clone());
        }
        let Some(has_default) = self.collected.get(name) else {
            return self.run(&path(name), input, data, limits);
        };
        let values = self.run(&path(&set_of(name)), input, data, limits)?;
        let values = values.as_ref().and_then(|values| values.as_set().ok());
        match values.map_or(0, |values| values.len()) {
            0 if *has_default => self.run(&path(name), input, data, limits),
            0 => Ok(None),
            1 => Ok(values.and_then(|values| values.iter().next().cloned())),
            _ => Err(Fault::Evaluation { message: format!("`{name}` has more than one value") }),
        }
    }

    /// Evaluates one rule; `None` is undefined.
    fn run(&self, rule: &str, input: &Value, data: &Value, limits: &Limits) -> Result<Option<Value>, Fault> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut machine = kept.unwrap_or_else(|| {
            let mut machine = RegoVM::new();
            machine.load_program(Arc::clone(&self.code));
            machine
        });
        machine.set_strict_builtin_errors(false);
        // GUARD: policy-instructions -> evil_policy_that_never_ends
        machine.set_max_instructions(limits.instructions);
        // GUARD: policy-time -> evil_policy_that_takes_too_long
        machine.set_execution_timer_config(Some(limits.timer()));
        machine.set_data(data.clone()).map_err(|error| fault(&error))?;
        machine.set_input(input.clone());
        let (value, _) =
            within(&self.patterns, limits.builtin_bytes, || machine.execute_entry_point_by_name(rule));
        // A machine that failed is not used again.
        let value = value.map_err(|error| fault(&error))?;
        machine.set_input(Value::Null);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(machine);
        }
        Ok(if value == Value::Undefined { None } else { Some(value) })
    }
}

/// What the machine said.
fn fault(error: &VmError) -> Fault {
    match error {
        VmError::InstructionLimitExceeded { .. } => Fault::Limit(LimitKind::Instructions),
        VmError::TimeLimitExceeded { .. } => Fault::Limit(LimitKind::Time),
        VmError::MemoryLimitExceeded { .. } | VmError::MemoryBudgetExceeded { .. } => {
            Fault::Limit(LimitKind::Memory)
        }
        // Too large a pattern is also how a rewritten text gives up.
        other => Fault::Evaluation { message: shortened(&other.to_string(), 256) },
    }
}
