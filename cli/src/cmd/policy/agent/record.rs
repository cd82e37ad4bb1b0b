//! `innerkeep policy record`: a first policy from requests that were seen.

use std::collections::BTreeSet;

use policy_engine::Limits;
use policy_engine::audit::{Record, Ruling, Told};
use policy_engine::authoring::{Identifiers, Observed, endpoint_of, propose};
use serde_json::json;

use crate::args::policy::RecordArgs;
use crate::cmd::audit;
use crate::error::Failure;
use crate::files;
use crate::output::Report;

pub(in crate::cmd::policy) fn run(arguments: &RecordArgs) -> Result<Report, Failure> {
    let mut observed = match &arguments.requests {
        Some(path) => Observed::parse_lines(&super::read_json("read the requests", path)?)?,
        None => Vec::new(),
    };
    let seen = match &arguments.audit {
        Some(path) => allowed_in(path, arguments.key.as_deref())?,
        None => BTreeSet::new(),
    };
    let mut without_content = Vec::new();
    for name in &seen {
        let Some(endpoint) = endpoint_of(name) else { continue };
        if observed.iter().any(|request| request.rule() == endpoint.message()) {
            continue;
        }
        if endpoint.request().fields().next().is_none() {
            observed.push(Observed::parse(&json!({ "endpoint": name }).to_string(), 1)?);
        } else {
            without_content.push(endpoint.method());
        }
    }
    let identifiers = if arguments.exact { Identifiers::Exact } else { Identifiers::Bound };
    let proposal = propose(&observed, identifiers, &Limits::default())?;
    let mut text = match &arguments.output {
        Some(path) => {
            files::create("write the policy", path, 0o644, proposal.text.as_bytes())?;
            format!("policy    {}, {} bytes", path.display(), proposal.text.len())
        }
        None => proposal.text.trim_end().to_owned(),
    };
    if arguments.output.is_some() {
        for (rule, count) in &proposal.distinct {
            text.push_str(&format!("\nallowed   {rule}: {count} request(s)"));
        }
        text.push_str(
            "\nnext      `policy lint` says what is weak, `policy explain` why something is denied",
        );
    }
    for method in &without_content {
        eprintln!("note: the audit saw {method}, whose content no request gives: it is denied");
    }
    Ok(Report {
        json: json!({
            "policy": proposal.text, "output": arguments.output, "requests": proposal.requests, "distinct": proposal.distinct,
            "seen_without_content": without_content,
        }),
        text,
    })
}

/// Paths of the requests that an audit saw allowed.
fn allowed_in(path: &std::path::Path, key: Option<&std::path::Path>) -> Result<BTreeSet<String>, Failure> {
    let story = audit::saved_story(path, key)?;
    let (mut seen, mut sealed) = (BTreeSet::new(), 0_usize);
    for told in story.told() {
        match told {
            Told::Record { record: Record::Decision(decision), .. } if decision.ruling == Ruling::Allowed => {
                seen.insert(decision.endpoint.clone());
            }
            Told::Record { record: Record::Repeats(repeats), .. } if repeats.ruling == Ruling::Allowed => {
                seen.insert(repeats.endpoint.clone());
            }
            Told::Sealed { .. } => sealed += 1,
            _ => {}
        }
    }
    if sealed > 0 {
        eprintln!("note: {sealed} records are sealed: --key FILE opens them");
    }
    Ok(seen)
}
