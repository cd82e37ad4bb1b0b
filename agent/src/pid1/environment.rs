//! No environment and no arguments: the host writes both (the kernel makes `X=y` on its command line an environment
//! variable of its first program, and what stands behind `--` an argument).
//!
//! Clearing them in place would be too late for the C library, which reads its own before `main`, and would leave them in
//! `/proc/1`. So the program starts itself again with neither, before it does anything else.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::error::AgentError;

const NAME: &str = "innerkeep-agent";

/// Returns when there is no environment and no argument but the name.
pub(crate) fn leave() -> Result<(), AgentError> {
    if std::env::vars_os().next().is_none() && std::env::args_os().len() <= 1 {
        return Ok(());
    }
    // What the kernel executed, by its own word: neither argument nor environment.
    let program = OsStr::from_bytes(rustix::param::linux_execfn().to_bytes());
    if !program.as_bytes().starts_with(b"/") {
        let path = program.to_string_lossy().into_owned();
        return Err(AgentError::Environment { path, source: io::ErrorKind::NotFound.into() });
    }
    let source = Command::new(program).arg0(NAME).env_clear().exec();
    Err(AgentError::Environment { path: program.to_string_lossy().into_owned(), source })
}
