//! Control groups: every controller that the kernel has is handed down, so that containers can have limits.

use std::fs;

use crate::error::AgentError;
use crate::log::{Key, Value};
use crate::pid1::Notes;

const AVAILABLE: &str = "/sys/fs/cgroup/cgroup.controllers";
const HANDED_DOWN: &str = "/sys/fs/cgroup/cgroup.subtree_control";
/// Without these a container can take everything: the host can switch them off on the kernel command line.
const EXPECTED: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// Hands down all controllers.
pub(crate) fn enable_controllers(notes: &mut Notes) -> Result<(), AgentError> {
    let failed = |action, path: &str| {
        let path = path.to_owned();
        move |source| AgentError::Cgroup { action, path, source }
    };
    let available = fs::read_to_string(AVAILABLE).map_err(failed("read", AVAILABLE))?;
    for controller in available.split_ascii_whitespace() {
        fs::write(HANDED_DOWN, format!("+{controller}")).map_err(failed("write", HANDED_DOWN))?;
    }
    let handed = fs::read_to_string(HANDED_DOWN).map_err(failed("read", HANDED_DOWN))?;
    let missing: Vec<&str> = EXPECTED
        .into_iter()
        .filter(|name| !handed.split_ascii_whitespace().any(|found| found == *name))
        .collect();
    if !missing.is_empty() {
        let missing = Value::shown(&missing.join(" "));
        notes.add("control groups without controllers that limit containers", Key::Controllers, missing);
    }
    Ok(())
}
