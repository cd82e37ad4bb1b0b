use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use protocol::Endpoint;

use super::*;

struct Genuine {
    secret: OperatorSecret,
    bytes: Vec<u8>,
    frames: Vec<Frame>,
    head: Head,
}

const NONCE: &[u8] = b"sixteen bytes ok";

static GENUINE: LazyLock<Genuine> = LazyLock::new(|| {
    let secret = OperatorSecret::generate(OperatorSuite::P384).unwrap();
    let key = OperatorKey::parse(OperatorSuite::P384, &secret.public_bytes()).unwrap();
    let audit = Audit::start(Facts::default(), Some(key)).unwrap();
    for endpoint in [Endpoint::CreateContainer, Endpoint::ExecProcess] {
        let entry = Entry { endpoint, ruling: Ruling::Allowed, code: "", reasons: &[], trace: "t" };
        audit.outcome(audit.decided(&entry), Err("AGENT_X"));
    }
    audit.evidence(b"{}".to_vec()).unwrap();
    let bytes = audit.read(0, 1 << 20).unwrap().frames;
    let frames = Frame::parse_all(&bytes).unwrap();
    let head = Head::parse(&audit.head(NONCE).unwrap()).unwrap();
    Genuine { secret, bytes, frames, head }
});

fn ruling() -> impl Strategy<Value = Ruling> {
    prop_oneof![Just(Ruling::Allowed), Just(Ruling::AllowedThoughDenied), Just(Ruling::Denied)]
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,20}"
}

fn reason() -> impl Strategy<Value = RecordedReason> {
    (text(), any::<u32>(), vec(text(), 0..=8)).prop_map(|(rule, line, fields)| RecordedReason {
        rule,
        line,
        fields,
    })
}

fn record() -> impl Strategy<Value = Record> {
    let decision = (any::<u64>(), text(), ruling(), text(), text(), vec(reason(), 0..=4)).prop_map(
        |(time_ms, endpoint, ruling, code, trace, reasons)| {
            Record::Decision(RecordedDecision { time_ms, endpoint, ruling, code, trace, reasons })
        },
    );
    let repeats = (any::<[u64; 3]>(), text(), ruling(), text(), text()).prop_map(
        |([time_ms, first, count], endpoint, ruling, code, trace)| {
            Record::Repeats(Repeats { time_ms, first, count, endpoint, ruling, code, trace })
        },
    );
    let outcome = (any::<u64>(), any::<u64>(), proptest::option::of(text()))
        .prop_map(|(time_ms, of, error)| Record::Outcome { time_ms, of, error });
    let policy =
        (any::<u64>(), any::<[u8; 32]>()).prop_map(|(time_ms, digest)| Record::Policy { time_ms, digest });
    prop_oneof![decision, repeats, outcome, policy]
}

proptest! {
    #[test]
    fn records_are_read_as_they_were_written(record in record()) {
        let bytes = record.encode();
        prop_assert!(bytes.len() <= MAX_RECORD);
        prop_assert_eq!(Record::parse(&bytes).unwrap(), record);
        for end in 0..bytes.len() {
            prop_assert!(Record::parse(&bytes[..end]).is_err());
        }
    }

    /// One encoding of everything: what is accepted is written back to the byte.
    #[test]
    fn what_is_accepted_has_one_encoding(bytes in vec(any::<u8>(), 0..200), kind in 0_u8..9) {
        let bytes = [&[kind][..], &bytes].concat();
        if let Ok(record) = Record::parse(&bytes) {
            prop_assert_eq!(record.encode(), bytes.clone());
        }
        if let Ok(head) = Head::parse(&bytes) {
            prop_assert_eq!(head.encode(), bytes.clone());
        }
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        let framed = [&length[..], &bytes].concat();
        if let Ok(frames) = Frame::parse_all(&framed) {
            prop_assert_eq!(frames.iter().flat_map(Frame::encode).collect::<Vec<_>>(), framed);
        }
    }

    /// Every bit of an audit counts.
    #[test]
    fn evil_host_alters_any_bit(at in any::<prop::sample::Index>(), by in 1_u8..) {
        let genuine = &*GENUINE;
        let mut bytes = genuine.bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        let read = Frame::parse_all(&bytes).and_then(|frames| {
            let story = Story::read(&frames, Some(&genuine.secret))?;
            story.require_head(&genuine.head, Some(NONCE))
        });
        prop_assert!(read.is_err());
    }

    /// Records of the host's making behind a genuine audit are not signed for.
    #[test]
    fn evil_host_adds_any_record(record in record(), epoch in 0_u32..3) {
        let genuine = &*GENUINE;
        let next = u64::try_from(genuine.frames.len()).unwrap();
        let frame = Frame::Sealed { sequence: next, epoch, ciphertext: record.encode() };
        let all = [genuine.frames.as_slice(), &[frame]].concat();
        if let Ok(story) = Story::read(&all, None) {
            prop_assert!(story.require_signed(&[&genuine.head]).is_err());
        }
        prop_assert!(Story::read(&all, Some(&genuine.secret)).is_err() || epoch != 1);
    }
}
