//! Bytecode, and the machines that run it.

use crate::decision::{Fault, LimitKind};
use crate::error::shortened;
use crate::limits::Limits;
use crate::policy::parsed;
use regorus::Value;
use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::vm::VmError;
use regorus::rvm::{self, RegoVM};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Machines that are kept for the next request.
const MAX_IDLE: usize = 8;

/// The bytecode of the rules of one policy.
pub(crate) struct Program {
    code: Arc<rvm::Program>,
    idle: Mutex<Vec<RegoVM>>,
}

impl fmt::Debug for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Program").field("instructions", &self.code.instructions.len()).finish_non_exhaustive()
    }
}

impl Program {
    /// Compiles `rules` of `text`; the error is the compiler's reason.
    pub(crate) fn compile(text: &str, rules: &[String], limits: &Limits) -> Result<Self, String> {
        let first = rules.first().ok_or_else(|| "there is no rule for any request".to_owned())?;
        let said = |message: String| shortened(&message, 256);
        let mut engine = parsed(text, limits).map_err(|error| said(error.to_string()))?;
        let policy = engine
            .compile_with_entrypoint(&regorus::Rc::from(first.as_str()))
            .map_err(|error| said(format!("{error:#}")))?;
        let names: Vec<&str> = rules.iter().map(String::as_str).collect();
        let code = Compiler::compile_from_policy(&policy, &names).map_err(|error| said(error.to_string()))?;
        Ok(Self { code, idle: Mutex::new(Vec::new()) })
    }

    /// Evaluates one rule; `None` is undefined.
    pub(crate) fn run(&self, rule: &str, input: &Value, data: &Value, limits: &Limits) -> Result<Option<Value>, Fault> {
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
        // A machine that failed is not used again.
        let value = machine.execute_entry_point_by_name(rule).map_err(|error| fault(&error))?;
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
        VmError::MemoryLimitExceeded { .. }
        | VmError::MemoryBudgetExceeded { .. }
        | VmError::RegexSizeLimitExceeded { .. } => Fault::Limit(LimitKind::Memory),
        other => Fault::Evaluation { message: shortened(&other.to_string(), 256) },
    }
}
