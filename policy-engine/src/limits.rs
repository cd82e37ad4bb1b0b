//! What one policy, one request and one evaluation may cost.

use regorus::utils::limits::ExecutionTimerConfig;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

/// How many instructions or statements pass between two looks at the clock.
const CLOCK_EVERY: NonZeroU32 = NonZeroU32::new(1024).unwrap();

/// Caps. Whatever passes one is refused or denied, never cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a policy text.
    pub policy_bytes: usize,
    /// Bytes of one request in JSON.
    pub input_bytes: usize,
    /// Bytes of the policy's state in JSON, after a patch.
    pub state_bytes: usize,
    /// Operations in one patch.
    pub patch_operations: usize,
    /// Instructions of bytecode in one evaluation; with them the values that a comprehension can collect.
    pub instructions: usize,
    /// Bytes that builtins make in one evaluation, of those that make more than they are given.
    pub builtin_bytes: usize,
    /// Wall clock of one evaluation, compiled or interpreted.
    pub time: Duration,
}

impl Default for Limits {
    /// Text as upstream (16 MiB); the rest leaves two orders of magnitude above what a generated policy of twenty
    /// containers needs.
    fn default() -> Self {
        Self {
            policy_bytes: 16 << 20,
            input_bytes: 4 << 20,
            state_bytes: 1 << 20,
            patch_operations: 1024,
            instructions: 20_000_000,
            builtin_bytes: 64 << 20,
            time: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// The clock of one evaluation.
    pub(crate) fn timer(&self) -> ExecutionTimerConfig {
        ExecutionTimerConfig { limit: self.time, check_interval: CLOCK_EVERY }
    }
}

/// Shape of a policy text, as upstream's agent sets it: columns of a line, bytes, lines.
pub(crate) const SHAPE: regorus::PolicyLengthConfig = regorus::PolicyLengthConfig {
    max_col: NonZeroU32::new(64 << 10).unwrap(),
    max_file_bytes: NonZeroUsize::new(16 << 20).unwrap(),
    max_lines: NonZeroUsize::new(200_000).unwrap(),
};
