//! `innerkeep grant`: the content key wrapped for recipients. Payloads, core and signature are not touched.

use std::path::Path;

use chip_client::chain::ChipIdentity;
use chip_client::error::ChipError;
use sealed_artifact::grant::{Grant, GrantSuite, refuse_forgeable};
use sealed_artifact::policy::PolicyDigest;
use serde_json::{Value, json};

use crate::args::{GrantAddArgs, GrantCommand, SuiteArg};
use crate::certificates;
use crate::cmd::policy;
use crate::content_key;
use crate::error::Failure;
use crate::output::Report;
use crate::store::{Reference, Store, StoredGrant};

/// Runs the command.
pub(crate) fn run(command: &GrantCommand) -> Result<Report, Failure> {
    match command {
        GrantCommand::Add(arguments) => add(arguments),
        GrantCommand::List { reference } => list(reference),
        GrantCommand::Remove { reference, grant } => remove(reference, grant),
    }
}

fn add(arguments: &GrantAddArgs) -> Result<Report, Failure> {
    let reference = Reference::parse(&arguments.reference)?;
    let policy = policy::read(&arguments.policy)?;
    let weaknesses = policy.weaknesses();
    if !arguments.allow_weak_policy {
        policy.refuse_weak()?;
    }
    let chip = recipient(&arguments.to, &arguments.chip_root)?;
    let mut store = Store::open(&reference)?;
    let key = content_key::read(&arguments.key, &store.core)?;
    let suite = match arguments.suite {
        SuiteArg::Classical => GrantSuite::P384,
        SuiteArg::Hybrid => GrantSuite::XWing,
    };
    let recipient = chip.recipient(suite)?;
    let grant = Grant::seal(&store.core, &key, &recipient, &policy)?;
    if !arguments.allow_forgeable {
        let existing: Vec<Grant> = store.grants.iter().map(|stored| stored.grant.clone()).collect();
        refuse_forgeable(&store.core, &existing, &grant)?;
    }
    let digest = store.add_grant(&grant)?;
    let weak: Vec<&str> = weaknesses.iter().map(|found| found.code()).collect();
    Ok(Report {
        text: format!(
            "grant      {digest}\ncore       {}\nrecipient  chip {} (epoch {})\npolicy     {}\nweak       {}",
            store.core.digest(),
            recipient.id,
            recipient.key_epoch.value(),
            policy.digest(),
            if weak.is_empty() { "no".to_owned() } else { weak.join(", ") }
        ),
        json: json!({
            "grant": digest, "core": store.core.digest().to_string(), "kind": "chip", "suite": suite.as_str(), "recipient": recipient.id.to_string(),
            "key_epoch": recipient.key_epoch.value(), "policy_digest": policy.digest().to_string(), "weaknesses": weak,
        }),
    })
}

/// The recipient of `--to`, its chain verified.
fn recipient(to: &str, root: &Path) -> Result<ChipIdentity, Failure> {
    let Some(file) = to.strip_prefix("chip:") else {
        return Err(Failure::Usage { argument: "--to", expected: "chip:FILE", found: to.to_owned() });
    };
    let root = certificates::read_root(root)?;
    let chain = certificates::read_chain(Path::new(file))?;
    Ok(ChipIdentity::verify(&root, &chain).map_err(ChipError::from)?)
}

fn list(reference: &str) -> Result<Report, Failure> {
    let store = Store::open(&Reference::parse(reference)?)?;
    let lines: Vec<String> = store
        .grants
        .iter()
        .map(|stored| {
            let grant = &stored.grant;
            format!(
                "{}  {} {} (epoch {})  {}",
                stored.digest,
                grant.kind().as_str(),
                grant.recipient(),
                grant.key_epoch().value(),
                grant.suite().as_str()
            )
        })
        .collect();
    Ok(Report {
        json: json!({ "grants": store.grants.iter().map(shown).collect::<Vec<_>>() }),
        text: if lines.is_empty() { "no grants".to_owned() } else { lines.join("\n") },
    })
}

fn shown(stored: &StoredGrant) -> Value {
    let grant = &stored.grant;
    json!({
        "digest": stored.digest, "core": grant.core().to_string(), "kind": grant.kind().as_str(), "suite": grant.suite().as_str(),
        "recipient": grant.recipient().to_string(), "key_epoch": grant.key_epoch().value(),
        "policy_digest": PolicyDigest::of(grant.preimage()).to_string(),
    })
}

fn remove(reference: &str, digest: &str) -> Result<Report, Failure> {
    let mut store = Store::open(&Reference::parse(reference)?)?;
    store.remove_grant(digest)?;
    Ok(Report { json: json!({ "removed": digest }), text: format!("removed  {digest}") })
}
