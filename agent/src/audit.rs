//! The audit of this guest: begun before a port is open, attested as soon as the platform has answered.

use std::sync::Arc;
use std::time::Duration;

use attestation_agent::{Attester, Claim};
use initdata::{AuditSuite, Initdata};
use policy_engine::audit::{Audit, AuditError, Entry, Facts, OperatorKey, OperatorSuite, Ruling, Sequence};
use policy_engine::{Decision, Explanation, Verdict};
use protocol::Endpoint;
use protocol::status::RpcError;

use crate::context::Agent;
use crate::error::AgentError;
use crate::log::{Key, Level, Value};

const SUBSYSTEM: &str = "audit";
/// How often the platform is asked for evidence, and how long is waited before the second time; doubles each time.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_secs(1);

/// Begins the audit. Without a key in bound `audit.toml` records never leave the guest.
///
/// # Errors
/// `AUDIT_KEY`, `AUDIT_RANDOM`.
pub(crate) fn begin(initdata: Option<&Initdata>, modes: &[&'static str]) -> Result<Audit, AuditError> {
    let bound =
        initdata.map(|initdata| initdata.document().settings().insecure.iter().map(|mode| mode.name()));
    let insecure = modes.iter().copied().chain(bound.into_iter().flatten()).map(str::to_owned).collect();
    let operator = initdata.and_then(|initdata| initdata.document().audit());
    let operator = operator.map(|config| {
        let suite = match config.suite {
            AuditSuite::P384 => OperatorSuite::P384,
            AuditSuite::XWing => OperatorSuite::XWing,
        };
        OperatorKey::parse(suite, &config.public_key)
    });
    let facts = Facts {
        initdata_digest: initdata.map(|initdata| initdata.digest().as_bytes().to_vec()).unwrap_or_default(),
        insecure,
        agent: crate::VERSION.to_owned(),
    };
    Audit::start(facts, operator.transpose()?)
}

/// Asks the platform for evidence that commits to the audit's genesis, beside everything else. Until there is some heads say
/// so, and the operator's verification fails. Has to be called inside a runtime.
pub(crate) fn attest(agent: &Arc<Agent>, attester: Arc<Attester>) {
    let (audit, log, sealed) = (Arc::clone(&agent.audit), agent.log.clone(), agent.sealed.clone());
    tokio::spawn(async move {
        let mut pause = PAUSE;
        for _ in 0..ATTEMPTS {
            let (own, platform) = (Arc::clone(&audit), Arc::clone(&attester));
            let asked = tokio::task::spawn_blocking(move || evidence(&own, &platform)).await;
            match asked {
                Ok(Ok(())) => {
                    log.info(SUBSYSTEM, "attested", &[]);
                    sealed.attested();
                    return;
                }
                Ok(Err(error)) => log.fail(Level::Warning, SUBSYSTEM, "no evidence yet", &error),
                Err(_) => log.warn(SUBSYSTEM, "no evidence yet", &[(Key::Code, "AGENT_CALL".into())]),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        let text = Value::shown("the platform gave none");
        log.say(
            Level::Error,
            SUBSYSTEM,
            "unattested: verification of this audit fails",
            &[(Key::Error, text)],
        );
    });
}

fn evidence(audit: &Audit, attester: &Attester) -> Result<(), AgentError> {
    let evidence = attester.evidence(&Claim::AuditGenesis { digest: *audit.genesis_digest() })?;
    audit.evidence(evidence.to_json().into_bytes())?;
    Ok(())
}

/// In place of the code of a denial: nobody sent the request, the agent asked for itself. A stream that may not be read is drained then.
pub(crate) const ASKED_ITSELF: &str = "AGENT_ASKED";

/// Takes down what the policy said, before anything comes of it.
pub(crate) fn decided(
    audit: &Audit,
    endpoint: Endpoint,
    decision: &Decision,
    why: &Explanation,
    trace: &str,
) -> Sequence {
    let (ruling, code) = ruling(decision);
    audit.decided(&Entry { endpoint, ruling, code, reasons: why.reasons(), trace })
}

/// The same of a question that the agent asked for itself.
pub(crate) fn asked_itself(
    audit: &Audit,
    endpoint: Endpoint,
    decision: &Decision,
    why: &Explanation,
    trace: &str,
) -> Sequence {
    let (ruling, _) = ruling(decision);
    audit.decided(&Entry { endpoint, ruling, code: ASKED_ITSELF, reasons: why.reasons(), trace })
}

const fn ruling(decision: &Decision) -> (Ruling, &'static str) {
    match decision.verdict() {
        Verdict::Allowed => (Ruling::Allowed, ""),
        Verdict::AllowedThoughDenied(denial) => (Ruling::AllowedThoughDenied, denial.code()),
        Verdict::Denied(denial) => (Ruling::Denied, denial.code()),
    }
}

/// Takes down a request that the policy was not asked about: it is denied. Of many that are alike the first has a record, the others are counted.
pub(crate) fn refused(audit: &Audit, endpoint: Endpoint, code: &str, trace: &str) {
    let denied = Entry { endpoint, ruling: Ruling::Denied, code, reasons: &[], trace };
    let _ = audit.decided(&denied);
}

/// Takes down what became of a permitted request.
pub(crate) fn ended<A>(audit: &Audit, decision: Sequence, answer: &Result<A, RpcError>) {
    match answer {
        Ok(_) => audit.outcome(decision, Ok(())),
        Err(RpcError::Failed(code, _) | RpcError::Precondition(code, _)) => {
            audit.outcome(decision, Err(code))
        }
        Err(error) => audit.outcome(decision, Err(&format!("{:?}", error.status().0))),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use policy_engine::audit::{Frame, Head, OperatorSecret, Record, Story};

    use super::*;

    fn initdata(settings: &str, operator: Option<&OperatorSecret>) -> Initdata {
        let mut package = initdata::Package::new(initdata::Algorithm::Sha384);
        package.insert("innerkeep.toml", settings).unwrap();
        if let Some(operator) = operator {
            let key = base64(&operator.public_bytes());
            package.insert("audit.toml", &format!("suite = \"p-384\"\nkey = \"{key}\"\n")).unwrap();
        }
        let packed = package.pack().unwrap();
        let unverified = initdata::Unverified::from_annotation(&packed.annotation()).unwrap();
        unverified.insecure_unbound().unwrap()
    }

    pub(crate) fn base64(bytes: &[u8]) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::new();
        for part in bytes.chunks(3) {
            let number =
                part.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
            for place in 0..4 {
                let letter = LETTERS[usize::try_from(number >> (18 - 6 * place) & 63).unwrap()];
                out.push(if place <= part.len() { char::from(letter) } else { '=' });
            }
        }
        out
    }

    #[test]
    fn the_audit_begins_with_what_was_bound() {
        let operator = OperatorSecret::generate(OperatorSuite::P384).unwrap();
        let initdata = initdata("insecure = [\"tpm-only\"]\n", Some(&operator));
        let audit = begin(Some(&initdata), &["unbound-initdata"]).unwrap();
        let records = audit.read(0, 1 << 20).unwrap();
        let story = Story::read(&Frame::parse_all(&records.frames).unwrap(), Some(&operator)).unwrap();
        let genesis = story.genesis();
        assert_eq!(genesis.insecure, ["tpm-only", "unbound-initdata"]);
        assert_eq!(genesis.initdata, initdata.digest().as_bytes());
        assert_eq!(genesis.operator.as_ref(), Some(operator.id()));
        let head = Head::parse(&audit.head(&[1; 16]).unwrap()).unwrap();
        assert!(!head.attested);
    }

    #[test]
    fn errors_are_taken_down_by_their_codes() {
        let operator = OperatorSecret::generate(OperatorSuite::P384).unwrap();
        let audit = begin(Some(&initdata("", Some(&operator))), &[]).unwrap();
        let allowed = Entry {
            endpoint: Endpoint::CreateContainer,
            ruling: Ruling::Allowed,
            code: "",
            reasons: &[],
            trace: "1",
        };
        for answer in [Err(RpcError::Failed("AGENT_X", String::new())), Err(RpcError::Deadline), Ok(())] {
            ended(&audit, audit.decided(&allowed), &answer);
        }
        let frames = Frame::parse_all(&audit.read(0, 1 << 20).unwrap().frames).unwrap();
        let story = Story::read(&frames, Some(&operator)).unwrap();
        let errors: Vec<Option<String>> = story
            .told()
            .iter()
            .filter_map(|told| match told {
                policy_engine::audit::Told::Record { record: Record::Outcome { error, .. }, .. } => {
                    Some(error.clone())
                }
                _ => None,
            })
            .collect();
        let expected = [Some("AGENT_X".to_owned()), Some("DEADLINE_EXCEEDED".to_owned()), None];
        assert_eq!(errors, expected);
    }
}
