//! The vectors of `docs/spec/audit-v1.md` §8, which the second reader in `tests/compat/audit.py` reads too. Made anew (their keys are new then) by
//! `cargo test -p policy-engine --test audit_vectors -- --ignored`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::path::PathBuf;

use policy_engine::Reason;
use policy_engine::audit::{
    Audit, AuditError, Entry, Facts, Frame, GapReason, Head, OperatorKey, OperatorSecret, OperatorSuite,
    Record, RecordedReason, Ruling, Story, Told,
};
use protocol::Endpoint;
use serde_json::{Value, json};

const MAGIC: &[u8] = b"IKAUDIT1";
const NONCE: [u8; 32] = [0x5a; 32];

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/audit/vectors.json")
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn reasons(reasons: &[RecordedReason]) -> String {
    let one = |reason: &RecordedReason| {
        format!("{}:{}:{}", or_dash(&reason.rule), reason.line, reason.fields.join(","))
    };
    let all: Vec<String> = reasons.iter().map(one).collect();
    or_dash(&all.join(";")).to_owned()
}

fn text(told: &Told) -> String {
    let record = match told {
        Told::Record { record, .. } => record,
        Told::Sealed { .. } => return "sealed".to_owned(),
        Told::Gap(gap) => {
            let reason = match gap.reason {
                GapReason::Lost => "lost",
                GapReason::Acknowledged => "acknowledged",
            };
            return format!("gap {} {} {reason}", gap.first, gap.last);
        }
        other => panic!("{other:?}"),
    };
    match record {
        Record::Genesis(_) => "genesis".to_owned(),
        Record::Epoch { number, .. } => format!("epoch {number}"),
        Record::Evidence { .. } => "evidence".to_owned(),
        Record::Checkpoint { allowed, denied, .. } => format!("checkpoint {allowed} {denied}"),
        Record::Decision(decision) => format!(
            "decision {} {} {} {} {}",
            or_dash(&decision.endpoint),
            decision.ruling.name(),
            or_dash(&decision.code),
            or_dash(&decision.trace),
            reasons(&decision.reasons)
        ),
        Record::Repeats(repeats) => format!("repeats {} {}", repeats.first, repeats.count),
        Record::Outcome { of, error, .. } => {
            format!("outcome {of} {}", error.as_deref().map_or("ok", or_dash))
        }
        Record::Policy { digest, .. } => format!("policy {}", hex::encode(digest)),
        other => panic!("{other:?}"),
    }
}

fn read(vector: &Value) -> Result<Vec<String>, AuditError> {
    let bytes = |name: &str| hex::decode(vector[name].as_str().unwrap()).unwrap();
    let suite = if vector["suite"] == "p-384" { OperatorSuite::P384 } else { OperatorSuite::XWing };
    let secret = OperatorSecret::parse(suite, &bytes("secret"))?;
    let file = bytes("file");
    let frames = file.strip_prefix(MAGIC).ok_or(AuditError::Malformed { what: "file" })?;
    let story = Story::read(&Frame::parse_all(frames)?, Some(&secret))?;
    let mut heads = Vec::new();
    if vector.get("nonce").is_some() {
        let head = story.heads().last().ok_or(AuditError::TailCut { head: 0, found: 0 })?;
        story.require_head(head, Some(&bytes("nonce")))?;
        heads.push(head);
    }
    story.require_signed(&heads)?;
    Ok(story.told().iter().map(text).collect())
}

#[test]
fn every_vector_reads_as_it_says() {
    let vectors: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path()).unwrap()).unwrap();
    assert!(vectors.len() >= 15, "{}", vectors.len());
    for vector in &vectors {
        match read(vector) {
            Ok(told) => {
                assert_eq!(vector["expect"], "ok", "{}", vector["name"]);
                assert_eq!(json!(told), vector["records"], "{}", vector["name"]);
            }
            Err(error) => assert_eq!(vector["expect"], error.code(), "{}", vector["name"]),
        }
    }
}

struct Maker {
    suite: &'static str,
    secret: OperatorSecret,
    audit: Audit,
}

impl Maker {
    fn new(suite: &'static str, initdata_digest: Vec<u8>) -> Self {
        let kind = if suite == "p-384" { OperatorSuite::P384 } else { OperatorSuite::XWing };
        let secret = OperatorSecret::generate(kind).unwrap();
        let key = OperatorKey::parse(kind, &secret.public_bytes()).unwrap();
        let facts =
            Facts { initdata_digest, insecure: vec!["tpm-only".to_owned()], agent: "0.1.0".to_owned() };
        Self { suite, secret, audit: Audit::start(facts, Some(key)).unwrap() }
    }

    /// Some of everything but epochs and gaps.
    fn filled(suite: &'static str) -> Self {
        let maker = Self::new(suite, vec![3; 48]);
        let reasons = [
            Reason {
                rule: "ExecProcessRequest".to_owned(),
                line: 12,
                statement: String::new(),
                fields: vec!["process.Args[0]".to_owned(), "process.Env[*]".to_owned()],
            },
            Reason { rule: "allow_é".to_owned(), line: 0, statement: String::new(), fields: Vec::new() },
        ];
        maker.audit.policy_changed([0xab; 32]);
        let allowed = Entry {
            endpoint: Endpoint::CreateContainer,
            ruling: Ruling::Allowed,
            code: "",
            reasons: &[],
            trace: "1",
        };
        let made = maker.audit.decided(&allowed);
        maker.audit.outcome(made, Ok(()));
        let made = maker.audit.decided(&allowed);
        maker.audit.outcome(made, Err("DEADLINE_EXCEEDED"));
        let denied = Entry {
            endpoint: Endpoint::ExecProcess,
            ruling: Ruling::Denied,
            code: "POLICY_DENIED",
            reasons: &reasons,
            trace: "2",
        };
        let _ = maker.audit.decided(&denied);
        let though = Entry { ruling: Ruling::AllowedThoughDenied, endpoint: Endpoint::GetMetrics, ..denied };
        let _ = maker.audit.decided(&though);
        maker.audit.evidence(b"{\"quote\":1}".to_vec()).unwrap();
        maker
    }

    fn frames(&self) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut from = 0;
        loop {
            let records = self.audit.read(from, 1 << 20).unwrap();
            if records.frames.is_empty() {
                return frames;
            }
            frames.extend(Frame::parse_all(&records.frames).unwrap());
            from = records.next;
        }
    }

    fn head(&self) -> Frame {
        Frame::Head(self.audit.head(&NONCE).unwrap())
    }

    fn vector(&self, name: &str, frames: &[Frame], nonce: Option<&[u8]>) -> Value {
        let mut file = MAGIC.to_vec();
        file.extend(frames.iter().flat_map(Frame::encode));
        self.raw(name, &file, nonce)
    }

    fn raw(&self, name: &str, file: &[u8], nonce: Option<&[u8]>) -> Value {
        let mut vector = json!({
            "name": name, "file": hex::encode(file), "suite": self.suite, "secret": hex::encode(self.secret.expose_bytes().as_slice()),
        });
        if let Some(nonce) = nonce {
            vector["nonce"] = json!(hex::encode(nonce));
        }
        match read(&vector) {
            Ok(told) => {
                vector["expect"] = json!("ok");
                vector["records"] = json!(told);
            }
            Err(error) => vector["expect"] = json!(error.code()),
        }
        vector
    }
}

#[test]
#[ignore = "writes the vectors"]
fn write_vectors() {
    let maker = Maker::filled("p-384");
    let good = maker.frames();
    let with = |more: &[Frame]| [good.as_slice(), more].concat();
    let head = maker.head();
    let mut vectors = vec![
        maker.vector("whole", &with(std::slice::from_ref(&head)), Some(&NONCE)),
        maker.vector("whole-twice", &with(&good), None),
        maker.vector("replayed-head", &with(std::slice::from_ref(&head)), Some(&[1; 32])),
        maker.vector("no-head", &good, Some(&NONCE)),
        maker.vector(
            "tail-cut",
            &[&good[..good.len() - 1], std::slice::from_ref(&head)].concat(),
            Some(&NONCE),
        ),
        maker.vector("unsigned", &good[..good.len() - 1], None),
        maker.vector("no-genesis", &good[1..], None),
    ];
    let altered = |name: &str, change: &dyn Fn(&mut Vec<Frame>)| {
        let mut frames = good.clone();
        change(&mut frames);
        maker.vector(name, &frames, None)
    };
    vectors.push(altered("dropped", &|frames| drop(frames.remove(4))));
    vectors.push(altered("reordered", &|frames| frames.swap(3, 4)));
    vectors.push(altered("edited-sealed", &|frames| {
        let Frame::Sealed { ciphertext, .. } = &mut frames[3] else { panic!() };
        ciphertext[0] ^= 1;
    }));
    vectors.push(altered("edited-checkpoint", &|frames| {
        let Some(Frame::Clear { record: Record::Checkpoint { denied, .. }, .. }) = frames.last_mut() else {
            panic!()
        };
        *denied = 0;
    }));
    vectors.push(altered("edited-genesis", &|frames| {
        let Frame::Clear { record: Record::Genesis(genesis), .. } = &mut frames[0] else { panic!() };
        genesis.insecure.clear();
    }));
    let forged = match &head {
        Frame::Head(bytes) => {
            let denied = Head::parse(bytes).unwrap().denied;
            assert_ne!(denied, 0);
            let mut bytes = bytes.clone();
            // The last byte of the count of denials: 1 + 64 + 34 + 8 + 64 + 8 + 8.
            bytes[186] = 0;
            Frame::Head(bytes)
        }
        _ => panic!(),
    };
    vectors.push(maker.vector("forged-head", &with(&[forged]), Some(&NONCE)));
    let mut long = MAGIC.to_vec();
    long.extend(good.iter().flat_map(Frame::encode));
    long.push(0);
    vectors.push(maker.raw("trailing", &long, None));
    vectors.push(maker.raw("no-magic", &long[1..], None));

    let other = Maker::new("p-384", vec![3; 48]);
    vectors.push(other.vector("restarted", &other.frames(), None));
    let both = with(&other.frames());
    vectors.push(maker.vector("restarted-behind", &both, None));
    vectors.push(other.vector("another-operator", &good, None));

    let hybrid = Maker::filled("x-wing");
    vectors.push(hybrid.vector("x-wing", &[hybrid.frames(), vec![hybrid.head()]].concat(), Some(&NONCE)));
    // Acknowledged: an epoch later, a signed gap.
    let handed = Maker::filled("p-384");
    for _ in 0..300 {
        let entry = Entry {
            endpoint: Endpoint::SignalProcess,
            ruling: Ruling::Allowed,
            code: "",
            reasons: &[],
            trace: "",
        };
        let _ = handed.audit.decided(&entry);
    }
    let next = handed.audit.read(0, 1 << 20).unwrap().next;
    handed.audit.acknowledge(next).unwrap();
    let _ = handed.audit.decided(&Entry {
        endpoint: Endpoint::SetPolicy,
        ruling: Ruling::Denied,
        code: "POLICY_UNDEFINED",
        reasons: &[],
        trace: "",
    });
    let left = handed.frames();
    vectors.push(handed.vector("acknowledged", &[left.as_slice(), &[handed.head()]].concat(), Some(&NONCE)));
    let mut forged = left;
    let gap = forged.iter_mut().find_map(|frame| match frame {
        Frame::Gap(gap) => Some(gap),
        _ => None,
    });
    gap.unwrap().tally.denied = 0;
    vectors.push(handed.vector("forged-gap", &forged, None));

    let small = Maker::new("p-384", Vec::new());
    let _ = small.audit.decided(&Entry {
        endpoint: Endpoint::ExecProcess,
        ruling: Ruling::Denied,
        code: "POLICY_ABSENT",
        reasons: &[],
        trace: "7",
    });
    vectors.push(small.vector("small", &[small.frames(), vec![small.head()]].concat(), Some(&NONCE)));
    let written = serde_json::to_string_pretty(&vectors).unwrap();
    std::fs::write(path(), written + "\n").unwrap();
}
