//! `innerkeep policy`: policy documents, and in [`agent`] policies of a guest's agent.

mod agent;
mod from_evidence;

use std::path::Path;

use sealed_artifact::names::{EnvironmentTag, Family};
use sealed_artifact::policy::{MAXIMUM_PREIMAGE, PolicyDocument, TEMPLATE};
use serde_json::{Value, json};

use crate::args::policy::PolicyCommand;
use crate::error::Failure;
use crate::files;
use crate::output::{Output, Report};

/// Largest TOML source in bytes: comments are generous.
const MAXIMUM_SOURCE: u64 = 4 * MAXIMUM_PREIMAGE;

/// Runs the command.
pub(crate) fn run(command: &PolicyCommand, output: Output) -> Result<Report, Failure> {
    match command {
        PolicyCommand::New { environment, family } => new(environment, family),
        PolicyCommand::Digest { file } => {
            let policy = read(file)?;
            Ok(Report {
                json: json!({ "digest": policy.digest().to_string() }),
                text: policy.digest().to_string(),
            })
        }
        PolicyCommand::FromEvidence(arguments) => from_evidence::run(arguments, output),
        PolicyCommand::Lint { file, secrets } => lint(file, *secrets, output),
        PolicyCommand::Check { file } => agent::check::run(file),
        PolicyCommand::Explain { file, request, after } => {
            agent::explain::run(file, request, after.as_deref(), output)
        }
        PolicyCommand::Test { file, cases } => agent::test::run(file, cases, output),
        PolicyCommand::Record(arguments) => agent::record::run(arguments),
        PolicyCommand::Show { file } => {
            let policy = read(file)?;
            let text = String::from_utf8_lossy(policy.preimage()).into_owned();
            let parsed: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
            Ok(Report {
                json: json!({ "policy": parsed, "preimage": text, "digest": policy.digest().to_string() }),
                text,
            })
        }
    }
}

/// Reads a policy: canonical JSON when it begins with a brace, else TOML.
pub(crate) fn read(path: &Path) -> Result<PolicyDocument, Failure> {
    let text = files::read_text("read the policy", path, MAXIMUM_SOURCE)?;
    Ok(if text.starts_with('{') {
        PolicyDocument::parse(text.as_bytes())?
    } else {
        PolicyDocument::from_toml(&text)?
    })
}

fn new(environment: &str, family: &str) -> Result<Report, Failure> {
    // Both have a character set without quotes, so that they can stand in a TOML string as they are.
    let environment = EnvironmentTag::parse(environment)?;
    let family = Family::parse(family)?;
    let text = TEMPLATE
        .replace("exactly = \"production\"", &format!("exactly = \"{environment}\""))
        .replace("exactly = \"example/model\"", &format!("exactly = \"{family}\""));
    PolicyDocument::from_toml(&text)?;
    Ok(Report { json: json!({ "toml": text }), text: text.trim_end().to_owned() })
}

fn lint(file: &Path, secrets: bool, output: Output) -> Result<Report, Failure> {
    if agent::is_agent_policy(file)? {
        return agent::lint::run(file, secrets, output);
    }
    if secrets {
        return Err(Failure::Usage {
            argument: "--secrets",
            expected: "an agent policy (Rego)",
            found: file.display().to_string(),
        });
    }
    let policy = read(file)?;
    let weaknesses = policy.weaknesses();
    let lines: Vec<String> =
        weaknesses.iter().map(|found| format!("{}: {}", found.code(), found.sentence())).collect();
    let report = Report {
        json: json!({ "weaknesses": weaknesses.iter().map(|found| json!({ "code": found.code(), "sentence": found.sentence() })).collect::<Vec<_>>() }),
        text: if lines.is_empty() { "no weakness found".to_owned() } else { lines.join("\n") },
    };
    if weaknesses.is_empty() {
        return Ok(report);
    }
    output.result(&report).map_err(Failure::file("write to", "standard output"))?;
    Err(Failure::Weak(weaknesses.len()))
}
