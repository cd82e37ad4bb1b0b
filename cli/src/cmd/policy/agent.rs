//! Policies of a guest's agent: Rego.

pub(super) mod check;
pub(super) mod explain;
pub(super) mod lint;
pub(super) mod record;
pub(super) mod test;

use std::io::Read as _;
use std::path::Path;

use policy_engine::Limits;

use crate::error::Failure;
use crate::files;

/// Largest file of requests or cases in bytes.
const MAXIMUM_REQUESTS: u64 = 64 << 20;

/// Reads a policy. It is as long as the agent takes it, or longer by one byte, so that the agent's own error tells.
fn read(path: &Path) -> Result<String, Failure> {
    let most = u64::try_from(Limits::default().policy_bytes).unwrap_or(u64::MAX);
    Ok(files::read_text("read the agent policy", path, most.saturating_add(1))?)
}

/// Whether a file is Rego: its first line that is neither empty nor a comment names a package. No TOML or JSON begins so.
pub(super) fn is_agent_policy(path: &Path) -> Result<bool, Failure> {
    let text = read(path)?;
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(first.is_some_and(|line| line.split_whitespace().next() == Some("package")))
}

/// Reads requests or cases.
fn read_json(purpose: &'static str, path: &Path) -> Result<String, Failure> {
    if path != Path::new("-") {
        return Ok(files::read_text(purpose, path, MAXIMUM_REQUESTS)?);
    }
    let mut text = String::new();
    let mut input = std::io::stdin().lock().take(MAXIMUM_REQUESTS.saturating_add(1));
    input.read_to_string(&mut text).map_err(Failure::file(purpose, "standard input"))?;
    if text.len() > usize::try_from(MAXIMUM_REQUESTS).unwrap_or(usize::MAX) {
        return Err(Failure::Input {
            path: path.to_owned(),
            expected: "at most 64 MiB",
            found: "more".to_owned(),
        });
    }
    Ok(text)
}
