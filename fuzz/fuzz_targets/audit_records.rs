//! Files and answers with an audit's records, which the host carries. Accepted ⇒ encodes to the same bytes; what is altered or added behind a genuine
//! audit is not taken for a part of it.

#![no_main]

use std::sync::LazyLock;

use fuzz::bounded;
use libfuzzer_sys::fuzz_target;
use policy_engine::audit::{
    Audit, Entry, Facts, Frame, Head, OperatorKey, OperatorSecret, OperatorSuite, Record, Ruling, Story,
};
use protocol::Endpoint;

struct Genuine {
    secret: OperatorSecret,
    bytes: Vec<u8>,
    frames: Vec<Frame>,
    head: Head,
}

const NONCE: &[u8] = b"sixteen bytes ok";

static GENUINE: LazyLock<Genuine> = LazyLock::new(|| {
    let secret = OperatorSecret::generate(OperatorSuite::P384).expect("random bytes");
    let key = OperatorKey::parse(OperatorSuite::P384, &secret.public_bytes()).expect("a key");
    let audit = Audit::start(Facts::default(), Some(key)).expect("an audit");
    for endpoint in [Endpoint::CreateContainer, Endpoint::ExecProcess] {
        let entry = Entry { endpoint, ruling: Ruling::Allowed, code: "", reasons: &[], trace: "t" };
        audit.outcome(audit.decided(&entry), Err("AGENT_X"));
    }
    audit.evidence(b"{}".to_vec()).expect("evidence");
    let bytes = audit.read(0, 1 << 20).expect("records").frames;
    let frames = Frame::parse_all(&bytes).expect("frames");
    let head = Head::parse(&audit.head(NONCE).expect("a head")).expect("a head");
    Genuine { secret, bytes, frames, head }
});

fuzz_target!(|data: &[u8]| {
    let genuine = &*GENUINE;
    if let Ok(record) = bounded(data.len(), || Record::parse(data)) {
        assert_eq!(record.encode(), data);
    }
    if let Ok(head) = bounded(data.len(), || Head::parse(data)) {
        assert_eq!(head.encode(), data);
        let story = Story::read(&genuine.frames, None).expect("a genuine audit");
        assert!(story.require_head(&head, None).is_err());
    }
    if let Ok(frames) = bounded(data.len(), || Frame::parse_all(data)) {
        assert_eq!(frames.iter().flat_map(Frame::encode).collect::<Vec<_>>(), data);
        let _ = Story::read(&frames, Some(&genuine.secret));
        // Behind a genuine audit: nothing of the host's is signed for. Of few frames, for the same reason.
        if frames.is_empty() || frames.len() > 2 {
            return;
        }
        let all = [genuine.frames.as_slice(), &frames].concat();
        if let Ok(story) = Story::read(&all, None) {
            let known = u64::try_from(genuine.frames.len()).expect("few");
            assert!(story.next() == known || story.require_signed(&[&genuine.head]).is_err());
        }
    }
    // Altered: three bytes say where, and by what. Only these: each reading verifies every signature, and longer inputs are for the parsers.
    if let [high, low, by] = *data {
        let mut bytes = genuine.bytes.clone();
        let at = (usize::from(high) << 8 | usize::from(low)) % bytes.len();
        bytes[at] ^= by;
        let read = Frame::parse_all(&bytes).and_then(|frames| {
            let story = Story::read(&frames, Some(&genuine.secret))?;
            story.require_head(&genuine.head, Some(NONCE))
        });
        assert_eq!(read.is_ok(), by == 0);
    }
});
