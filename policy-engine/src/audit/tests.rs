use protocol::Endpoint;

use super::frame::chained;
use super::sign::{AuditKey, SIGNATURE_BYTES};
use super::*;
use crate::explain::Reason;

const NONCE: &[u8] = b"sixteen bytes ok";

fn operator() -> (OperatorSecret, OperatorKey) {
    let secret = OperatorSecret::generate(OperatorSuite::XWing).unwrap();
    let key = OperatorKey::parse(OperatorSuite::XWing, &secret.public_bytes()).unwrap();
    (secret, key)
}

fn facts() -> Facts {
    Facts {
        initdata_digest: vec![7; 48],
        insecure: vec!["tpm-only".to_owned(), "b".to_owned(), "b".to_owned()],
        agent: "0".to_owned(),
    }
}

fn reason(line: u32) -> Reason {
    Reason {
        rule: "ExecProcessRequest".to_owned(),
        line,
        statement: "secret of the policy".to_owned(),
        fields: vec!["process.Args[0]".to_owned()],
    }
}

fn denied<'a>(reasons: &'a [Reason], trace: &'a str) -> Entry<'a> {
    let endpoint = Endpoint::ExecProcess;
    Entry { endpoint, ruling: Ruling::Denied, code: "POLICY_DENIED", reasons, trace }
}

fn allowed(endpoint: Endpoint) -> Entry<'static> {
    Entry { endpoint, ruling: Ruling::Allowed, code: "", reasons: &[], trace: "t" }
}

/// An effect with its outcome, a denial, a policy: records 2 to 5 behind genesis and epoch.
fn audit() -> (OperatorSecret, Audit) {
    let (secret, key) = operator();
    let audit = Audit::start(facts(), Some(key)).unwrap();
    let made = audit.decided(&allowed(Endpoint::CreateContainer));
    audit.outcome(made, Err("AGENT_X"));
    let _ = audit.decided(&denied(&[reason(7)], "trace-1"));
    audit.policy_changed([9; 32]);
    (secret, audit)
}

/// All frames that the host gets, the last a checkpoint.
fn frames(audit: &Audit) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut from = 0;
    loop {
        let records = audit.read(from, 0).unwrap();
        if records.frames.is_empty() {
            return frames;
        }
        frames.extend(Frame::parse_all(&records.frames).unwrap());
        from = records.next;
    }
}

fn head(audit: &Audit) -> Head {
    Head::parse(&audit.head(NONCE).unwrap()).unwrap()
}

fn code(frames: &[Frame], secret: &OperatorSecret) -> &'static str {
    Story::read(frames, Some(secret)).unwrap_err().code()
}

fn records(story: &Story) -> Vec<Record> {
    let records = story.told().iter().filter_map(|told| match told {
        Told::Record { record, .. } => Some(record.clone()),
        _ => None,
    });
    records.collect()
}

#[test]
fn the_operator_reads_what_was_decided() {
    let (secret, audit) = audit();
    let frames = frames(&audit);
    let story = Story::read(&frames, Some(&secret)).unwrap();
    let head = head(&audit);
    story.require_head(&head, Some(NONCE)).unwrap();
    story.require_signed(&[]).unwrap();
    story.require_initdata(&[7; 48]).unwrap();
    story.require_all_handed_over().unwrap();
    assert_eq!((head.allowed, head.denied, head.attested), (1, 1, false));
    assert_eq!(story.genesis().insecure, ["b", "tpm-only"]);
    let records = records(&story);
    let Record::Decision(decision) = &records[2] else { panic!("{records:?}") };
    assert_eq!(
        (decision.endpoint.as_str(), decision.ruling),
        ("/grpc.AgentService/CreateContainer", Ruling::Allowed)
    );
    let Record::Outcome { of: 2, error: Some(code), .. } = &records[3] else { panic!("{records:?}") };
    assert_eq!(code, "AGENT_X");
    let Record::Decision(decision) = &records[4] else { panic!("{records:?}") };
    assert_eq!((decision.code.as_str(), decision.trace.as_str()), ("POLICY_DENIED", "trace-1"));
    let [reason] = decision.reasons.as_slice() else { panic!("{decision:?}") };
    assert_eq!((reason.rule.as_str(), reason.line), ("ExecProcessRequest", 7));
    assert_eq!(reason.fields, ["process.Args[0]"]);
    assert!(matches!(records[5], Record::Policy { digest: [9, ..], .. }));
    assert!(matches!(records[6], Record::Checkpoint { allowed: 1, denied: 1, .. }));
    // Reading again adds nothing: nothing happened.
    assert_eq!(self::frames(&audit), frames);
    // Without the key the chain is verified all the same, and nothing is read.
    let blind = Story::read(&frames, None).unwrap();
    blind.require_head(&head, Some(NONCE)).unwrap();
    assert_eq!(blind.told().iter().filter(|told| matches!(told, Told::Sealed { .. })).count(), 4);
}

#[test]
fn evil_host_reads_the_audit() {
    let (_, audit) = audit();
    let bytes = audit.read(0, 0).unwrap().frames;
    for text in ["ExecProcess", "CreateContainer", "POLICY_DENIED", "trace-1", "process.Args"] {
        assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
    }
    let (stranger, key) = operator();
    let other = Audit::start(facts(), Some(key)).unwrap();
    // A key that the genesis does not name opens nothing, and neither does another epoch's.
    assert_eq!(code(&frames(&audit), &stranger), "AUDIT_KEY");
    assert_ne!(audit.genesis_digest(), other.genesis_digest());
}

#[test]
fn evil_operator_key_of_somebody_else() {
    let (_, audit) = audit();
    let (stranger, _) = operator();
    assert_eq!(code(&frames(&audit), &stranger), "AUDIT_KEY");
}

#[test]
fn evil_host_reads_without_an_operator() {
    let audit = Audit::start(facts(), None).unwrap();
    let _ = audit.decided(&denied(&[reason(1)], ""));
    let _ = audit.decided(&denied(&[reason(1)], ""));
    assert_eq!(audit.read(0, 1 << 20).unwrap_err().code(), "AUDIT_NO_OPERATOR");
    assert_eq!(audit.acknowledge(1).unwrap_err().code(), "AUDIT_NO_OPERATOR");
    // Heads leave, and count.
    let head = head(&audit);
    assert_eq!((head.sequence, head.denied), (1, 2));
    let genesis = Frame::parse_all(audit.genesis()).unwrap();
    let story = Story::read(&genesis, None).unwrap();
    assert_eq!(
        story.require_head(&head, Some(NONCE)).unwrap_err().code(),
        "AUDIT_TAIL_CUT",
        "records stayed inside"
    );
    assert_eq!(story.require_signature(&head, Some(NONCE)), Ok(()));
}

#[test]
fn evil_host_asks_with_a_short_nonce() {
    let (_, audit) = audit();
    for nonce in [&[0; 15][..], &[0; 65], &[]] {
        assert_eq!(audit.head(nonce).unwrap_err().code(), "AUDIT_NONCE");
    }
    assert!(audit.head(&[0; 64]).is_ok());
}

/// The host has all public facts and the operator's public key: it can seal, and chain, but not sign.
#[test]
fn evil_host_forges_the_audit() {
    let (secret, key) = operator();
    let genuine = Audit::start(facts(), Some(key.clone())).unwrap();
    let _ = genuine.decided(&denied(&[reason(1)], ""));
    let real = head(&genuine);
    // An audit of its own, under its own key: signed well, and of another genesis. Evidence commits to the genuine one.
    let forged = Audit::start(facts(), Some(key)).unwrap();
    let _ = forged.decided(&allowed(Endpoint::CreateContainer));
    let story = Story::read(&frames(&forged), Some(&secret)).unwrap();
    assert_eq!(story.require_head(&real, Some(NONCE)).unwrap_err().code(), "AUDIT_RESTARTED");
    assert_ne!(story.genesis_digest(), genuine.genesis_digest());
    // The genuine genesis, and heads that the host signs.
    let story = Story::read(&frames(&genuine), Some(&secret)).unwrap();
    let own = AuditKey::generate().unwrap();
    let lie = Head { denied: 0, ..real.clone() }.sign(&own).unwrap();
    assert_eq!(story.require_head(&lie, Some(NONCE)).unwrap_err().code(), "AUDIT_FORGED");
    // A head that was signed, with another number.
    let altered = Head { denied: 0, ..real.clone() };
    assert_eq!(story.require_head(&altered, Some(NONCE)).unwrap_err().code(), "AUDIT_FORGED");
    let flipped = Head { attested: true, ..real };
    assert_eq!(story.require_head(&flipped, Some(NONCE)).unwrap_err().code(), "AUDIT_FORGED");
}

#[test]
fn evil_host_edits_a_record() {
    let (secret, audit) = audit();
    let good = frames(&audit);
    for position in 1..good.len() {
        let mut frames = good.clone();
        match &mut frames[position] {
            Frame::Sealed { ciphertext, .. } => ciphertext[0] ^= 1,
            Frame::Clear { record: Record::Checkpoint { allowed, .. }, .. } => *allowed += 1,
            Frame::Clear { record: Record::Epoch { encapsulated, .. }, .. } => encapsulated[5] ^= 1,
            other => panic!("{other:?}"),
        }
        assert_eq!(code(&frames, &secret), "AUDIT_EDITED", "{position}");
        // Without the operator's key the signature tells.
        assert_eq!(Story::read(&frames, None).unwrap_err().code(), "AUDIT_EDITED", "{position}");
    }
    // The first record: another genesis, which no head of this audit is about.
    let mut frames = good.clone();
    let Frame::Clear { record: Record::Genesis(genesis), .. } = &mut frames[0] else { panic!() };
    genesis.insecure.clear();
    assert_eq!(code(&frames, &secret), "AUDIT_EDITED");
}

#[test]
fn evil_host_swaps_a_record_for_another() {
    // The last record is not signed by a checkpoint yet: a host that seals one of its own to the operator is told by the head.
    let (secret, audit) = audit();
    let mut frames = frames(&audit);
    let head = head(&audit);
    let forged = Frame::Clear { sequence: 6, record: Record::Evidence { length: 5, digest: [1; 64] } };
    *frames.last_mut().unwrap() = forged;
    let story = Story::read(&frames, Some(&secret)).unwrap();
    assert_eq!(story.require_head(&head, Some(NONCE)).unwrap_err().code(), "AUDIT_EDITED");
    assert_eq!(story.require_signed(&[]).unwrap_err().code(), "AUDIT_UNSIGNED");
}

#[test]
fn evil_host_adds_records_at_the_end() {
    let (secret, audit) = audit();
    let mut frames = frames(&audit);
    frames.push(Frame::Clear { sequence: 7, record: Record::Evidence { length: 5, digest: [1; 64] } });
    let story = Story::read(&frames, Some(&secret)).unwrap();
    assert_eq!(story.require_signed(&[]), Err(AuditError::Unsigned { from: 7 }));
    // A head from before says nothing about it either.
    assert_eq!(story.require_signed(&[&head(&audit)]), Err(AuditError::Unsigned { from: 7 }));
}

#[test]
fn evil_host_reorders_records() {
    let (secret, audit) = audit();
    let good = frames(&audit);
    let mut frames = good.clone();
    frames.swap(3, 4);
    assert_eq!(
        Story::read(&frames, Some(&secret)).unwrap_err(),
        AuditError::Reordered { expected: 3, found: 4 }
    );
    // With the numbers put right.
    let mut frames = good.clone();
    frames.swap(3, 4);
    for (position, frame) in frames.iter_mut().enumerate() {
        if let Frame::Sealed { sequence, .. } = frame {
            *sequence = u64::try_from(position).unwrap();
        }
    }
    assert_eq!(code(&frames, &secret), "AUDIT_EDITED");
    assert_eq!(Story::read(&frames, None).unwrap_err().code(), "AUDIT_EDITED");
    // A record once more, where it was: the same. Another in its place: not.
    let mut frames = good.clone();
    frames.push(good[3].clone());
    assert!(Story::read(&frames, Some(&secret)).is_ok());
    let Frame::Sealed { ciphertext, .. } = &mut frames[7] else { panic!() };
    ciphertext[0] ^= 1;
    assert_eq!(code(&frames, &secret), "AUDIT_EDITED");
}

#[test]
fn evil_host_drops_a_record() {
    let (secret, audit) = audit();
    let good = frames(&audit);
    for position in 1..good.len() - 1 {
        let mut frames = good.clone();
        frames.remove(position);
        let expected = u64::try_from(position).unwrap();
        let missing = AuditError::Missing { expected, found: expected + 1 };
        assert_eq!(Story::read(&frames, Some(&secret)).unwrap_err(), missing);
    }
    assert_eq!(code(&good[1..], &secret), "AUDIT_MALFORMED", "without a genesis there is no audit");
}

#[test]
fn evil_host_makes_a_gap() {
    let (secret, audit) = audit();
    let mut frames = frames(&audit);
    let Frame::Sealed { .. } = frames[4].clone() else { panic!() };
    let story = Story::read(&frames, Some(&secret)).unwrap();
    // The right hash, and no signature of the audit.
    let mut hash = *story.genesis_digest();
    for frame in &frames[1..=4] {
        hash = chained(&hash, &frame.body());
    }
    let gap = |signature| Gap {
        first: 4,
        last: 4,
        reason: GapReason::Lost,
        after: hash,
        tally: Tally::default(),
        signature,
    };
    frames[4] = Frame::Gap(gap([0; SIGNATURE_BYTES]));
    assert_eq!(code(&frames, &secret), "AUDIT_FORGED");
    let own = AuditKey::generate().unwrap();
    let signature = own.sign(&gap([0; SIGNATURE_BYTES]).signed(story.genesis_digest(), &hash)).unwrap();
    frames[4] = Frame::Gap(gap(signature));
    assert_eq!(code(&frames, &secret), "AUDIT_FORGED");
}

#[test]
fn evil_host_cuts_the_tail() {
    let (secret, audit) = audit();
    let good = frames(&audit);
    let head = head(&audit);
    for length in 1..good.len() {
        let story = Story::read(&good[..length], Some(&secret)).unwrap();
        let cut = AuditError::TailCut { head: 6, found: u64::try_from(length).unwrap() - 1 };
        assert_eq!(story.require_head(&head, Some(NONCE)), Err(cut));
    }
}

#[test]
fn evil_host_replays_an_old_head() {
    let (secret, audit) = audit();
    let old = head(&audit);
    let before = frames(&audit);
    let _ = audit.decided(&denied(&[reason(99)], ""));
    // With the records that went with it: all is well but that it is the past.
    let story = Story::read(&before, Some(&secret)).unwrap();
    assert_eq!(
        story.require_head(&old, Some(b"another nonce of the operator")).unwrap_err().code(),
        "AUDIT_REPLAYED"
    );
    let relabelled = Head { nonce: b"another nonce of the operator".to_vec(), ..old };
    let refused = story.require_head(&relabelled, Some(b"another nonce of the operator"));
    assert_eq!(refused.unwrap_err().code(), "AUDIT_FORGED");
    let fresh = Head::parse(&audit.head(b"another nonce of the operator").unwrap()).unwrap();
    let refused = story.require_head(&fresh, Some(b"another nonce of the operator"));
    assert_eq!(refused.unwrap_err().code(), "AUDIT_TAIL_CUT");
}

#[test]
fn evil_host_restarts_the_agent() {
    let (secret, key) = operator();
    let before = Audit::start(facts(), Some(key.clone())).unwrap();
    let _ = before.decided(&denied(&[reason(1)], ""));
    let saved = frames(&before);
    let after = Audit::start(facts(), Some(key)).unwrap();
    let story = Story::read(&saved, Some(&secret)).unwrap();
    assert_eq!(story.require_head(&head(&after), Some(NONCE)).unwrap_err().code(), "AUDIT_RESTARTED");
    // Its records behind those that were saved.
    let both = [saved, frames(&after)].concat();
    assert_eq!(code(&both, &secret), "AUDIT_RESTARTED");
}

#[test]
fn evil_host_starts_the_guest_with_other_initdata() {
    let (secret, audit) = audit();
    let story = Story::read(&frames(&audit), Some(&secret)).unwrap();
    assert_eq!(story.require_initdata(&[8; 48]).unwrap_err().code(), "AUDIT_INITDATA");
    assert_eq!(story.require_initdata(&[]).unwrap_err().code(), "AUDIT_INITDATA");
}

#[test]
fn evil_host_swaps_the_evidence() {
    let (secret, audit) = audit();
    audit.evidence(b"{evidence}".to_vec()).unwrap();
    assert_eq!(audit.evidence(b"again".to_vec()).unwrap_err().code(), "AUDIT_EVIDENCE_REFUSED");
    assert_eq!(audit.evidence_bytes().as_deref(), Some(&b"{evidence}"[..]));
    assert!(head(&audit).attested);
    let mut frames = frames(&audit);
    assert_eq!(
        Story::read(&frames, Some(&secret)).unwrap().evidence().unwrap_err().code(),
        "AUDIT_UNATTESTED"
    );
    frames.push(Frame::Evidence(b"{evidence}".to_vec()));
    assert_eq!(Story::read(&frames, Some(&secret)).unwrap().evidence(), Ok(&b"{evidence}"[..]));
    frames.push(Frame::Evidence(b"another".to_vec()));
    assert_eq!(
        Story::read(&frames, Some(&secret)).unwrap().evidence().unwrap_err().code(),
        "AUDIT_UNATTESTED"
    );
}

#[test]
fn evil_host_acknowledges_for_the_operator() {
    let (secret, audit) = audit();
    let saved = frames(&audit);
    assert_eq!(audit.acknowledge(8).unwrap_err().code(), "AUDIT_UNKNOWN_RECORD");
    audit.acknowledge(5).unwrap();
    let _ = audit.decided(&denied(&[reason(99)], ""));
    let left = frames(&audit);
    let story = Story::read(&left, Some(&secret)).unwrap();
    let Some(Told::Gap(gap)) = story.told().iter().find(|told| matches!(told, Told::Gap(_))) else {
        panic!()
    };
    assert_eq!((gap.first, gap.last, gap.reason), (2, 4, GapReason::Acknowledged));
    let counted = Tally { allowed: 1, denied: 1, outcomes: 1, others: 0 };
    assert_eq!(gap.tally, counted);
    assert_eq!(story.require_all_handed_over(), Err(AuditError::Missing { expected: 2, found: 5 }));
    story.require_head(&head(&audit), Some(NONCE)).unwrap();
    // Whoever kept them has nothing missing: what is left goes on where that ended.
    let whole = Story::read(&[saved, left].concat(), Some(&secret)).unwrap();
    whole.require_all_handed_over().unwrap();
    whole.require_signed(&[]).unwrap();
    whole.require_head(&head(&audit), Some(NONCE)).unwrap();
    assert_eq!(whole.denied(), 2);
}

#[test]
fn repeats_are_counted_and_distinct_denials_are_not() {
    let (secret, key) = operator();
    let audit = Audit::start(facts(), Some(key)).unwrap();
    for _ in 0..100 {
        let _ = audit.decided(&denied(&[reason(1)], "first"));
    }
    let _ = audit.decided(&denied(&[reason(2)], ""));
    let story = Story::read(&frames(&audit), Some(&secret)).unwrap();
    assert_eq!(story.denied(), 2, "the first of each kind");
    assert_eq!(head(&audit).denied, 101, "and the head counts all of them");
    audit.let_time_pass();
    let story = Story::read(&frames(&audit), Some(&secret)).unwrap();
    assert_eq!(story.denied(), 101);
    let told = records(&story);
    let repeats = told.iter().find_map(|record| match record {
        Record::Repeats(repeats) => Some(repeats),
        _ => None,
    });
    let repeats = repeats.unwrap();
    assert_eq!((repeats.first, repeats.count, repeats.trace.as_str()), (2, 99, "first"));
    assert_eq!(
        (repeats.endpoint.as_str(), repeats.code.as_str()),
        ("/grpc.AgentService/ExecProcess", "POLICY_DENIED")
    );
}

#[test]
fn effects_are_never_counted_together() {
    let (secret, key) = operator();
    let audit = Audit::start(facts(), Some(key)).unwrap();
    for endpoint in [Endpoint::SignalProcess, Endpoint::WriteStdin] {
        for _ in 0..10 {
            let made = audit.decided(&allowed(endpoint));
            audit.outcome(made, Ok(()));
        }
    }
    for _ in 0..10 {
        let waited = audit.decided(&allowed(Endpoint::WaitProcess));
        audit.outcome(waited, Ok(()));
    }
    let records = records(&Story::read(&frames(&audit), Some(&secret)).unwrap());
    let decisions = records.iter().filter(|record| matches!(record, Record::Decision(_))).count();
    let outcomes = records.iter().filter(|record| matches!(record, Record::Outcome { .. })).count();
    assert_eq!((decisions, outcomes), (21, 20));
    assert_eq!(head(&audit).allowed, 30);
}

#[test]
fn evil_host_floods_the_audit() {
    let (secret, key) = operator();
    let capacity = 64 << 10;
    let audit = Audit::with_capacity(facts(), Some(key), capacity).unwrap();
    let _ = audit.decided(&denied(&[reason(1)], "the one that counts"));
    for _ in 0..2000 {
        let made = audit.decided(&allowed(Endpoint::SignalProcess));
        audit.outcome(made, Ok(()));
        let _ = audit.decided(&allowed(Endpoint::WriteStdin));
    }
    let _ = audit.decided(&denied(&[reason(2)], ""));
    assert!(audit.kept_bytes() <= capacity, "{}", audit.kept_bytes());
    let frames = frames(&audit);
    let story = Story::read(&frames, Some(&secret)).unwrap();
    story.require_head(&head(&audit), Some(NONCE)).unwrap();
    let told = records(&story);
    let denials = told
        .iter()
        .filter(|record| matches!(record, Record::Decision(decision) if decision.ruling == Ruling::Denied));
    assert_eq!(denials.count(), 2, "distinct denials outlive everything else");
    let lost = story.told().iter().filter_map(|told| match told {
        Told::Gap(gap) => Some(gap.last - gap.first + 1),
        _ => None,
    });
    assert!(lost.sum::<u64>() > 3000);
    let Head { allowed, denied, .. } = head(&audit);
    assert_eq!((story.tally().allowed, story.tally().denied), (allowed, denied), "what is lost is counted");
    assert_eq!((allowed, denied), (4000, 2));
}

#[test]
fn evil_host_denials_that_are_all_different() {
    let (secret, key) = operator();
    let audit = Audit::with_capacity(facts(), Some(key), 128 << 10).unwrap();
    for line in 0..3000 {
        let _ = audit.decided(&denied(&[reason(line)], ""));
    }
    assert!(audit.kept_bytes() <= 128 << 10);
    let story = Story::read(&frames(&audit), Some(&secret)).unwrap();
    assert_eq!(story.denied(), 3000);
    story.require_head(&head(&audit), Some(NONCE)).unwrap();
}

#[test]
fn epochs_change_and_the_operator_follows() {
    let (secret, key) = operator();
    let audit = Audit::start(facts(), Some(key)).unwrap();
    let mut saved = Vec::new();
    for round in 0..3 {
        for _ in 0..300 {
            let _ = audit.decided(&allowed(Endpoint::SignalProcess));
        }
        saved.extend(frames(&audit));
        let next = Story::read(&saved, Some(&secret)).unwrap().next();
        audit.acknowledge(next).unwrap();
        let left = Story::read(&frames(&audit), Some(&secret)).unwrap();
        let gaps = left.told().iter().filter(|told| matches!(told, Told::Gap(_))).count();
        assert!(gaps <= 2, "round {round}: {gaps}");
    }
    let _ = audit.decided(&denied(&[reason(1)], ""));
    saved.extend(frames(&audit));
    let story = Story::read(&saved, Some(&secret)).unwrap();
    story.require_all_handed_over().unwrap();
    story.require_head(&head(&audit), Some(NONCE)).unwrap();
    assert_eq!((story.tally().allowed, story.tally().denied), (900, 1));
    let epochs = records(&story).iter().filter(|record| matches!(record, Record::Epoch { .. })).count();
    assert_eq!(epochs, 4);
}

#[test]
fn evil_host_lengths_in_a_record() {
    let (_, audit) = audit();
    let bytes = audit.read(0, 0).unwrap().frames;
    let frames = Frame::parse_all(&bytes).unwrap();
    assert_eq!(frames.iter().flat_map(Frame::encode).collect::<Vec<_>>(), bytes);
    for end in 1..bytes.len() {
        if let Ok(fewer) = Frame::parse_all(&bytes[..end]) {
            assert!(fewer.len() < frames.len());
        }
    }
    let mut long = bytes.clone();
    long[..4].copy_from_slice(&[0xff; 4]);
    assert_eq!(Frame::parse_all(&long).unwrap_err().code(), "AUDIT_MALFORMED");
    let huge = [&262_209_u32.to_be_bytes()[..], &[4], &vec![0; 262_208]].concat();
    assert_eq!(Frame::parse_all(&huge).unwrap_err().code(), "AUDIT_MALFORMED");
    // A text that is longer than any, though its bytes are there.
    let mut outcome = vec![7];
    outcome.extend([0; 16]);
    outcome.extend([1, 0, 129]);
    outcome.extend([b'a'; 129]);
    assert_eq!(Record::parse(&outcome).unwrap_err().code(), "AUDIT_MALFORMED");
    outcome[19] = 128;
    outcome.pop();
    assert!(Record::parse(&outcome).is_ok());
}

#[test]
fn evil_host_appends_to_a_record() {
    let record = Record::Policy { time_ms: 1, digest: [2; 32] };
    let mut bytes = record.encode();
    assert_eq!(Record::parse(&bytes), Ok(record));
    bytes.push(0);
    assert_eq!(Record::parse(&bytes).unwrap_err().code(), "AUDIT_MALFORMED");
    let (_, audit) = audit();
    let mut head = audit.head(NONCE).unwrap();
    head.push(0);
    assert_eq!(Head::parse(&head).unwrap_err().code(), "AUDIT_MALFORMED");
}

#[test]
fn evil_host_records_in_the_clear() {
    let record = Record::Policy { time_ms: 1, digest: [2; 32] };
    let bytes = Frame::Clear { sequence: 1, record }.encode();
    assert_eq!(Frame::parse_all(&bytes).unwrap_err().code(), "AUDIT_MALFORMED");
}
