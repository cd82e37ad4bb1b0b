//! Grants of every kind. Accepted bytes are the canonical encoding; a grant opens only to the content key that was granted,
//! and only as the kind that it was sealed as.

#![no_main]

use std::sync::LazyLock;

use fuzz::fixed::{ARTIFACT, RECIPIENTS, SECRET_KINDS, grant};
use fuzz::{bounded, canonical};
use libfuzzer_sys::fuzz_target;
use sealed_artifact::grant::{Grant, GrantKind};
use sealed_artifact::keys::ContentKey;
use sealed_artifact::policy::PolicyDocument;

// What the fuzzer starts from beside its seeds: grants that this process's recipients do open.
static GOOD: LazyLock<[Vec<u8>; 5]> = LazyLock::new(|| {
    let [chip, hybrid] = [0, 1].map(|i| grant(&RECIPIENTS[i]).encode());
    let [broker, guest, tpm] = SECRET_KINDS.grants().map(Grant::encode);
    [chip, hybrid, broker, guest, tpm]
});

fuzz_target!(|data: &[u8]| {
    check(data, true);
    if let Some(text) = canonical(data) {
        check(&text, true);
    }
    // The same mutations over a live grant: byte `at` replaced, for whatever the input says.
    if let [which, at0, at1, value, ..] = data {
        let mut bytes = GOOD[usize::from(*which & 7) % GOOD.len()].clone();
        let at = usize::from(u16::from_le_bytes([*at0, *at1])) % bytes.len();
        bytes[at] = *value;
        // Opening costs a thousand times what parsing does.
        check(&bytes, which & 0x70 == 0);
    }
});

fn check(data: &[u8], open: bool) {
    let Ok(parsed) = bounded(data.len(), || Grant::parse(data)) else { return };
    assert_eq!(parsed.encode(), data);
    if !open {
        return;
    }
    let Ok(policy) = PolicyDocument::parse(parsed.preimage()) else { return };
    for own in RECIPIENTS.iter() {
        granted(&parsed, GrantKind::Chip, parsed.open(own, &ARTIFACT.core, &policy).ok(), &policy);
    }
    let kinds = [GrantKind::Kbs, GrantKind::Snp, GrantKind::Tpm];
    for (kind, opened) in kinds.into_iter().zip(SECRET_KINDS.open(&parsed, &policy)) {
        granted(&parsed, kind, opened.ok(), &policy);
    }
    let of_kinds = [
        parsed.kbs_resource_path().is_some(),
        parsed.snp_selection().is_some(),
        parsed.tpm_object().is_some(),
    ];
    assert_eq!(of_kinds, kinds.map(|kind| kind == parsed.kind()));
    assert_eq!(parsed.broker().is_some(), parsed.kind() == GrantKind::Kbs);
}

fn granted(grant: &Grant, kind: GrantKind, key: Option<ContentKey>, policy: &PolicyDocument) {
    let Some(key) = key else { return };
    assert_eq!(grant.kind(), kind);
    assert_eq!(key.expose_bytes(), ARTIFACT.key.expose_bytes());
    assert_eq!(policy.digest(), ARTIFACT.policy.digest());
}
