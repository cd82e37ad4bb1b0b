//! Grants. Accepted bytes are the canonical encoding; a grant opens only to the content key that was granted.

#![no_main]

use std::sync::LazyLock;

use fuzz::fixed::{ARTIFACT, RECIPIENTS, grant};
use fuzz::{bounded, canonical};
use libfuzzer_sys::fuzz_target;
use sealed_artifact::grant::Grant;
use sealed_artifact::policy::PolicyDocument;

// What the fuzzer starts from beside its seeds: grants that this process's recipients do open.
static GOOD: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [0, 1].map(|i| grant(&RECIPIENTS[i]).encode()));

fuzz_target!(|data: &[u8]| {
    check(data, true);
    if let Some(text) = canonical(data) {
        check(&text, true);
    }
    // The same mutations over a live grant: byte `at` replaced, for whatever the input says.
    if let [which, at0, at1, value, ..] = data {
        let mut bytes = GOOD[usize::from(*which & 1)].clone();
        let at = usize::from(u16::from_le_bytes([*at0, *at1])) % bytes.len();
        bytes[at] = *value;
        // Opening costs a thousand times what parsing does.
        check(&bytes, which & 0xF0 == 0);
    }
});

fn check(data: &[u8], open: bool) {
    let Ok(parsed) = bounded(data.len(), || Grant::parse(data)) else { return };
    assert_eq!(parsed.encode(), data);
    if !open {
        return;
    }
    for own in RECIPIENTS.iter() {
        let policy = PolicyDocument::parse(parsed.preimage());
        let Ok(policy) = policy else { continue };
        if let Ok(key) = parsed.open(own, &ARTIFACT.core, &policy) {
            assert_eq!(key.expose_bytes(), ARTIFACT.key.expose_bytes());
            assert_eq!(policy.digest(), ARTIFACT.policy.digest());
        }
    }
}
