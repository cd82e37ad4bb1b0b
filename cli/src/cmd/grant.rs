//! `innerkeep grant`: the content key wrapped for recipients. Payloads, core and signature are not touched.

mod chip;
mod kbs;
mod snp;
mod tpm;

use std::path::Path;

use sealed_artifact::grant::{Grant, refuse_forgeable, weakest};
use sealed_artifact::keys::ContentKey;
use sealed_artifact::policy::{PolicyDigest, PolicyDocument};
use serde_json::{Value, json};

use crate::args::{GrantAddArgs, GrantCommand};
use crate::cmd::policy;
use crate::content_key;
use crate::error::Failure;
use crate::output::{Output, Report};
use crate::store::{Reference, Store, StoredGrant};

pub(crate) use kbs::recipient as broker_recipient;

/// Runs the command.
pub(crate) fn run(command: &GrantCommand, output: Output) -> Result<Report, Failure> {
    match command {
        GrantCommand::Add(arguments) => add(arguments, output),
        GrantCommand::List { reference } => list(reference),
        GrantCommand::Remove { reference, grant } => remove(reference, grant),
    }
}

/// What every kind of grant starts from.
struct Request<'a> {
    arguments: &'a GrantAddArgs,
    policy: PolicyDocument,
    store: Store,
    key: ContentKey,
}

fn add(arguments: &GrantAddArgs, output: Output) -> Result<Report, Failure> {
    let reference = Reference::parse(&arguments.reference)?;
    let policy = policy::read(&arguments.policy)?;
    if !arguments.allow_weak_policy {
        policy.refuse_weak()?;
    }
    let store = Store::open(&reference)?;
    let key = content_key::read(&arguments.key, &store.core)?;
    let request = Request { arguments, policy, store, key };
    match arguments.to.split_once(':') {
        Some(("chip", file)) => chip::add(request, Path::new(file)),
        Some(("kbs", name)) => kbs::add(request, name),
        None if arguments.to == "snp" => snp::add(request, output),
        None if arguments.to == "tpm" => tpm::add(request, output),
        _ => Err(Failure::Usage {
            argument: "--to",
            expected: "chip:FILE, kbs:NAME, snp or tpm",
            found: arguments.to.clone(),
        }),
    }
}

impl Request<'_> {
    /// Refuses a grant that would let its recipient forge for others.
    fn refuse_forgeable(&self, grant: &Grant) -> Result<(), Failure> {
        if self.arguments.allow_forgeable {
            return Ok(());
        }
        let existing: Vec<Grant> = self.store.grants.iter().map(|stored| stored.grant.clone()).collect();
        Ok(refuse_forgeable(&self.store.core, &existing, grant)?)
    }

    /// Puts the grant beside the artifact and says so; `lines` and `more` are what its kind adds.
    fn finish(mut self, grant: &Grant, lines: &[String], more: Value) -> Result<Report, Failure> {
        self.refuse_forgeable(grant)?;
        let digest = self.store.add_grant(grant)?;
        let weak: Vec<&str> = self.policy.weaknesses().iter().map(|found| found.code()).collect();
        let mut text = format!(
            "grant      {digest}\ncore       {}\nrecipient  {} {} (epoch {})\npolicy     {}\nweak       {}",
            self.store.core.digest(),
            grant.kind().as_str(),
            grant.recipient(),
            grant.key_epoch().value(),
            self.policy.digest(),
            if weak.is_empty() { "no".to_owned() } else { weak.join(", ") }
        );
        for line in lines {
            text.push('\n');
            text.push_str(line);
        }
        let mut facts = json!({
            "grant": digest, "core": self.store.core.digest().to_string(), "kind": grant.kind().as_str(), "suite": grant.suite().as_str(),
            "recipient": grant.recipient().to_string(), "key_epoch": grant.key_epoch().value(),
            "policy_digest": self.policy.digest().to_string(), "weaknesses": weak,
        });
        if let (Value::Object(facts), Value::Object(more)) = (&mut facts, more) {
            facts.extend(more);
        }
        Ok(Report { text, json: facts })
    }
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
    let grants: Vec<Grant> = store.grants.iter().map(|stored| stored.grant.clone()).collect();
    let weakest = weakest(&grants);
    let mut text = if lines.is_empty() { "no grants".to_owned() } else { lines.join("\n") };
    if let Some(weakest) = weakest {
        text.push_str(&format!("\nweakest: {} — {}", weakest.kind().as_str(), weakest.sentence()));
    }
    Ok(Report {
        json: json!({
            "grants": store.grants.iter().map(shown).collect::<Vec<_>>(),
            "weakest": weakest.map(|weakest| json!({ "kind": weakest.kind().as_str(), "sentence": weakest.sentence() })),
        }),
        text,
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
