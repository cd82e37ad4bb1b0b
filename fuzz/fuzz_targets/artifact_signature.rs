//! Signature objects. Accepted bytes are the canonical encoding; only the sealer's own signature makes a core acceptable.

#![no_main]

use std::sync::LazyLock;

use fuzz::fixed::ARTIFACT;
use fuzz::{bounded, canonical};
use libfuzzer_sys::fuzz_target;
use sealed_artifact::signature::{Floors, Pin, Signature, verify_origin};

static PINS: LazyLock<[Pin; 1]> = LazyLock::new(|| {
    let parameters = ARTIFACT.core.parameters();
    [Pin::sealer(
        ARTIFACT.sealer.public_key().digest(),
        Some(parameters.family().clone()),
        Some(parameters.counter()),
    )
    .expect("a whole pin")]
});
static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| ARTIFACT.signature.encode());

fuzz_target!(|data: &[u8]| {
    check(data);
    if let Some(text) = canonical(data) {
        check(&text);
    }
    if let [at0, at1, value, ..] = data {
        let mut bytes = GOOD.clone();
        let at = usize::from(u16::from_le_bytes([*at0, *at1])) % bytes.len();
        bytes[at] = *value;
        check(&bytes);
    }
});

fn check(data: &[u8]) {
    let Ok(signature) = bounded(data.len(), || Signature::parse(data)) else { return };
    assert_eq!(signature.encode(), data);
    let accepted = verify_origin(&ARTIFACT.core, Some(&signature), &PINS[..], &Floors::new()).is_ok();
    // ECDSA is malleable: (r, s) and (r, n-s) both verify. What counts is core and key.
    if accepted {
        assert_eq!(signature.core(), ARTIFACT.core.digest());
        assert_eq!(signature.key(), &ARTIFACT.sealer.public_key());
    }
}
