//! `innerkeep audit verify`: that an audit is a guest's, whole, and of now.

use attestation_agent::Claim;
use evidence::validate::{Floors, judge};
use evidence::verify::VerifiedEvidence;
use initdata::{Register, RegisterKind};
use policy_engine::audit::{AuditError, Frame, Head, Story};
use serde_json::json;

use super::read_key;
use crate::args::audit::VerifyArgs;
use crate::cmd::{attest, initdata as initdata_command, policy};
use crate::error::Failure;
use crate::output::{Output, Report};

/// What was asked, and what answers it.
struct Answer {
    nonce: Vec<u8>,
    head: Head,
    evidence: Option<Vec<u8>>,
}

pub(super) fn run(arguments: &VerifyArgs, output: Output) -> Result<Report, Failure> {
    if arguments.insecure_unattested {
        output.insecure(&["unattested audit: anybody can have made it"]);
    }
    let (story, answer, is_whole) = read(arguments)?;
    story.require_signature(&answer.head, Some(&answer.nonce))?;
    if is_whole {
        story.require_head(&answer.head, Some(&answer.nonce))?;
        story.require_all_handed_over()?;
        story.require_signed(&[&answer.head])?;
    }
    let expected = expected(arguments)?;
    story.require_initdata(&expected)?;
    let tee = if arguments.insecure_unattested {
        None
    } else {
        Some(attested(arguments, &story, &answer, output)?)
    };
    let lost: u64 = story.told().iter().fold(0, |sum, told| match told {
        policy_engine::audit::Told::Gap(gap) => sum.saturating_add(gap.last - gap.first + 1),
        _ => sum,
    });
    let genesis = story.genesis();
    let records = if is_whole { "whole" } else { "heads only: no operator's key was configured" };
    let counted = story.tally();
    let facts = json!({
        "genesis_digest": hex::encode(story.genesis_digest()), "sequence": answer.head.sequence, "allowed": answer.head.allowed,
        "denied": answer.head.denied, "lost": lost, "insecure": genesis.insecure, "attested": tee, "records": is_whole,
        "recorded": { "allowed": counted.allowed, "denied": counted.denied },
    });
    let text = format!(
        "genesis    {}\nevidence   {}\nhead       record {}, fresh\nrecords    {records}\ndecisions  {} allowed, {} denied\nlost       {lost} records, counted\ninsecure   {}",
        hex::encode(story.genesis_digest()),
        tee.unwrap_or("NONE: this proves nothing against a host"),
        answer.head.sequence,
        answer.head.allowed,
        answer.head.denied,
        if genesis.insecure.is_empty() { "none".to_owned() } else { genesis.insecure.join(", ") },
    );
    Ok(Report { json: facts, text })
}

/// The records, a head that answers a nonce, and whether records can leave this guest at all.
fn read(arguments: &VerifyArgs) -> Result<(Story, Answer, bool), Failure> {
    let nonce = super::nonce(arguments.nonce.as_deref())?;
    let source = &arguments.source;
    let is_agent = super::Address::parse(&source.source)?;
    let Some(address) = is_agent else {
        let story = super::story(source)?;
        let Some(nonce) = nonce else {
            return Err(Failure::Usage {
                argument: "--nonce",
                expected: "the nonce that the head in the file was asked for with",
                found: "none".to_owned(),
            });
        };
        let head =
            story.heads().last().cloned().ok_or(AuditError::TailCut { head: 0, found: story.next() })?;
        let evidence = story.evidence().ok().map(<[u8]>::to_vec);
        let is_whole = story.genesis().operator.is_some();
        return Ok((story, Answer { nonce, head, evidence }, is_whole));
    };
    let connection = super::Connection::open(&address, source.timeout)?;
    let nonce = match nonce {
        Some(nonce) => nonce,
        None => super::random()?,
    };
    // The head first: what follows it is covered by a checkpoint.
    let answer = connection.head(&nonce, true)?;
    let head = Head::parse(&answer.head)?;
    let mut frames = source.saved.as_deref().map_or_else(|| Ok(Vec::new()), super::saved::read)?;
    let genesis = Frame::parse_all(&answer.genesis)?;
    let operator = match genesis.first() {
        Some(Frame::Clear { record: policy_engine::audit::Record::Genesis(genesis), .. }) => {
            &genesis.operator
        }
        _ => return Err(AuditError::Malformed { what: "genesis" }.into()),
    };
    let is_whole = operator.is_some();
    if !frames.is_empty() {
        // An agent that was started again has fewer records than were saved, and would be asked for what it never had.
        Story::read(&[frames.as_slice(), &genesis].concat(), None)?;
    }
    if is_whole {
        super::read_on(&connection, &mut frames)?;
    }
    frames.extend(genesis);
    let evidence = Some(answer.evidence).filter(|evidence| !evidence.is_empty());
    frames.extend(evidence.clone().map(Frame::Evidence));
    let key = source.key.as_deref().map(read_key).transpose()?;
    let story = Story::read(&frames, key.as_ref())?;
    // That it is the evidence which the chain names.
    let evidence = evidence.map(|_| story.evidence().map(<[u8]>::to_vec)).transpose()?;
    Ok((story, Answer { nonce, head, evidence }, is_whole))
}

/// The initdata digest that the audit has to have begun with.
fn expected(arguments: &VerifyArgs) -> Result<Vec<u8>, Failure> {
    let Some(path) = &arguments.initdata else { return Ok(Vec::new()) };
    Ok(initdata_command::digest(path)?.as_bytes().to_vec())
}

/// Evidence that commits to the genesis, judged by the policy; its register is that of the initdata. The platform's name.
fn attested(
    arguments: &VerifyArgs,
    story: &Story,
    answer: &Answer,
    output: Output,
) -> Result<&'static str, Failure> {
    // GUARD: audit-verify-attested -> evil_host_audit_without_evidence
    if !answer.head.attested {
        return Err(AuditError::Unattested.into());
    }
    let evidence = answer.evidence.as_deref().ok_or(AuditError::Unattested)?;
    let judged = attest::Judged {
        collateral: arguments.collateral.as_deref(),
        no_clock: arguments.no_clock,
        insecure_trust_roots: arguments.insecure_trust_roots.as_deref(),
    };
    let verified = attest::verified_bytes(evidence, &judged, output)?;
    let Some(path) = &arguments.policy else { return Err(AuditError::Unattested.into()) };
    let claim = Claim::AuditGenesis { digest: *story.genesis_digest() };
    let document = policy::read(path)?;
    judge(document.evidence(), &verified, claim.report_data().as_bytes(), &Floors::default()).require()?;
    let (kind, value, name): (_, &[u8], _) = match &verified {
        VerifiedEvidence::Snp(snp) => (RegisterKind::HostData, &snp.report.host_data.0, "snp"),
        VerifiedEvidence::Tdx(tdx) => (RegisterKind::MrConfigId, &tdx.quote.body.mr_config_id.0, "tdx"),
    };
    let register = Register::new(kind.name(), value)?;
    match &arguments.initdata {
        Some(path) => drop(initdata_command::bound(path, &register)?),
        None if register.is_zero() => {}
        None => {
            let (expected, found) = ("none".to_owned(), hex::encode(value));
            return Err(AuditError::Initdata { expected, found }.into());
        }
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use policy_engine::audit::{Audit, Facts};

    use super::*;
    use crate::args::audit::SourceArgs;

    /// Whoever is not attested is refused whatever else comes along: here bytes in place of evidence, and a policy that is not there.
    #[test]
    fn evil_host_audit_without_evidence() {
        let audit = Audit::start(Facts::default(), None).unwrap();
        let story = Story::read(&Frame::parse_all(audit.genesis()).unwrap(), None).unwrap();
        let nonce = vec![7; 16];
        let head = Head::parse(&audit.head(&nonce).unwrap()).unwrap();
        let answer = Answer { nonce, head, evidence: Some(b"{}".to_vec()) };
        let arguments = VerifyArgs {
            source: SourceArgs { source: "unix:///none".to_owned(), key: None, saved: None, timeout: 1 },
            nonce: None,
            initdata: None,
            no_initdata: true,
            policy: Some(PathBuf::from("/nowhere/policy.toml")),
            collateral: None,
            no_clock: false,
            insecure_trust_roots: None,
            insecure_unattested: false,
        };
        let output = Output { json: true, quiet: true };
        let refused = attested(&arguments, &story, &answer, output).unwrap_err();
        assert_eq!((refused.code(), refused.exit_status()), ("AUDIT_UNATTESTED", 77));
    }
}
