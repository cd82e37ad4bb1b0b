//! Policy preimages. Accepted bytes are the canonical encoding of what they say; evaluation and lint take everything.

#![no_main]

use std::sync::LazyLock;

use fuzz::fixed::ARTIFACT;
use fuzz::{bounded, canonical};
use libfuzzer_sys::fuzz_target;
use sealed_artifact::names::EnvironmentTag;
use sealed_artifact::policy::{LinkMode, PolicyDigest, PolicyDocument, StaticFacts};

static FACTS: LazyLock<StaticFacts> = LazyLock::new(|| {
    StaticFacts::of(&ARTIFACT.core, EnvironmentTag::parse("test").expect("a tag"), LinkMode::KeyRelease)
});

fuzz_target!(|data: &[u8]| {
    check(data);
    if let Some(text) = canonical(data) {
        check(&text);
    }
});

fn check(data: &[u8]) {
    let Ok(document) = bounded(data.len(), || PolicyDocument::parse(data)) else { return };
    assert_eq!(document.preimage(), data);
    assert_eq!(document.digest(), PolicyDigest::of(data));
    assert_eq!(PolicyDocument::new(document.policy()).as_ref(), Ok(&document));
    let weak = document.weaknesses();
    assert_eq!(document.refuse_weak().is_err(), !weak.is_empty());
    let whole = document.evaluate(&FACTS);
    assert_eq!(document.evaluate_static(&FACTS).is_ok() && document.evidence().is_none(), whole.is_ok());
    if document.evidence().is_none() {
        assert!(!weak.is_empty(), "a policy that demands nothing of the guest is weak");
    }
}
