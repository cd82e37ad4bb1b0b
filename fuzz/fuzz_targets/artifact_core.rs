//! Core and parameters. Accepted bytes are the canonical encoding, give the same core again, and no other key opens them.

#![no_main]

use fuzz::{bounded, canonical};
use libfuzzer_sys::fuzz_target;
use sealed_artifact::core::Core;
use sealed_artifact::keys::ContentKey;

fuzz_target!(|data: &[u8]| {
    check(data);
    if let Some(text) = canonical(data) {
        check(&text);
    }
});

fn check(data: &[u8]) {
    let Ok(core) = bounded(data.len(), || Core::parse(data)) else { return };
    assert_eq!(core.bytes(), data);
    assert_eq!(Core::parse(core.bytes()).as_ref(), Ok(&core));
    assert_eq!(core.payloads().len(), core.parameters().payloads().len());
    for payload in core.parameters().payloads() {
        let layout = payload.layout;
        let last = sealed_artifact::names::SegmentIndex::new(layout.segments() - 1);
        let span = layout.span(last).expect("the last segment");
        assert!(span.last);
        assert_eq!(span.offset + span.length as u64, layout.size());
        assert!(layout.tag_table_length() <= 1 << 22);
        assert_eq!(core.payload_named(payload.name.as_str()), Some(layout.payload()));
    }
    let key = ContentKey::from_bytes(&[0x5A; 32]).expect("a key");
    assert_eq!(core.unlock(&key).err().map(|error| error.code()), Some("COMMITMENT_MISMATCH"));
}
