#![expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]

use chip_client::abi::limits::MAX_HANDLES;
use chip_client::abi::*;
use sealed_artifact::policy::PolicyDocument;
use sealed_artifact::signature::SealerSigningKey;

use crate::firmware::Modes;
use crate::testing::{Artifact, ArtifactOptions, Bench, Guest, GuestOptions, INSECURE, policy};

const P384: u16 = Unwrap::SUITE_P384;
const X_WING: u16 = Unwrap::SUITE_X_WING;

fn guest(bench: &mut Bench) -> Guest {
    Guest::open(bench, GuestOptions::default()).unwrap()
}

fn present(bench: &mut Bench, guest: &mut Guest, policy: &PolicyDocument) {
    let input = Present { evidence: b"", preimage: policy.preimage() }.encode();
    assert_eq!(guest.ask(bench, Opcode::Present, &input).unwrap(), policy.digest().as_bytes());
}

fn unwrap(bench: &mut Bench, guest: &mut Guest, input: &[u8]) -> Result<Vec<u8>, (Status, u32)> {
    guest.ask(bench, Opcode::Unwrap, input)
}

/// Opens a session, presents a policy and asks for the key of an artifact granted under the same policy.
fn release(
    bench: &mut Bench,
    artifact: &Artifact,
    policy: &PolicyDocument,
) -> Result<Vec<u8>, (Status, u32)> {
    let mut guest = guest(bench);
    present(bench, &mut guest, policy);
    let grant = artifact.grant(&bench.keys(), policy, P384);
    unwrap(bench, &mut guest, &grant.encode())
}

#[test]
fn keys_of_both_suites_are_released() {
    let mut bench = Bench::new(INSECURE);
    let artifact = Artifact::seal(&ArtifactOptions::default());
    let policy = policy(&[]);
    let mut guest = guest(&mut bench);
    present(&mut bench, &mut guest, &policy);
    for suite in [P384, X_WING] {
        let grant = artifact.grant(&bench.keys(), &policy, suite);
        assert_eq!(unwrap(&mut bench, &mut guest, &grant.encode()).unwrap(), artifact.key.expose_bytes());
    }
}

#[test]
fn nothing_is_released_without_a_policy() {
    let mut bench = Bench::new(INSECURE);
    let artifact = Artifact::seal(&ArtifactOptions::default());
    let grant = artifact.grant(&bench.keys(), &policy(&[]), P384).encode();
    let mut guest = guest(&mut bench);
    assert_eq!(unwrap(&mut bench, &mut guest, &grant), Err((Status::PolicyMalformed, 0)));
    for bad in [&b"{}"[..], b"", b"{\"@type\":\"innerkeep policy v1\"}"] {
        let input = Present { evidence: b"", preimage: bad }.encode();
        assert_eq!(guest.ask(&mut bench, Opcode::Present, &input), Err((Status::PolicyMalformed, 0)));
    }
    assert_eq!(unwrap(&mut bench, &mut guest, &grant), Err((Status::PolicyMalformed, 0)));
}

#[test]
fn each_condition_of_the_policy_is_evaluated() {
    let mut bench = Bench::new(INSECURE);
    let any = |environment, family| {
        Artifact::seal(&ArtifactOptions { environment, family, ..ArtifactOptions::default() })
    };
    let lab = any("lab", "acme/ranker");
    for (artifact, member, value, detail) in [
        (&any("dev", "acme/ranker"), "environment", r#"{"exactly":"lab"}"#, 1),
        (&any("dev", "acme/ranker"), "environment", r#"{"exactly":"dev"}"#, 2),
        (&lab, "family", r#"{"one_of":["acme/other","acme/rankers"]}"#, 3),
        (&lab, "link_mode", r#"{"one_of":["dma-direct","dma-sealed"]}"#, 4),
        (&lab, "min_counter", "6", 5),
    ] {
        let denied = release(&mut bench, artifact, &policy(&[(member, value)]));
        assert_eq!(denied, Err((Status::PolicyDenied, detail)), "{member}");
    }
    let all = policy(&[
        ("environment", r#"{"exactly":"lab"}"#),
        ("family", r#"{"exactly":"acme/ranker"}"#),
        ("link_mode", r#"{"exactly":"key-release"}"#),
        ("min_counter", "5"),
    ]);
    assert_eq!(release(&mut bench, &lab, &all).unwrap(), lab.key.expose_bytes());
}

const EVIDENCE: &str = concat!(
    r#"{"certificate_chain":"any","debug":"any","initdata":"any","snp":{"author_key_digest":"any","generation":"any","#,
    r#""guest_policy":"any","id_key_digest":"any","max_vmpl":3,"measurement":"any","min_crl_number":0,"#,
    r#""min_tcb":"0000000000000000"},"unsigned_manifest":"any"}"#
);

#[test]
fn evil_policy_that_demands_evidence_is_not_satisfied_without() {
    let mut bench = Bench::new(INSECURE);
    let artifact = Artifact::seal(&ArtifactOptions::default());
    let demanding = policy(&[("evidence", EVIDENCE)]);
    assert_eq!(release(&mut bench, &artifact, &demanding), Err((Status::EvidenceRequired, 0)));
    // Bytes that are no evidence are refused, and do not take the place of what was presented before.
    let mut guest = guest(&mut bench);
    present(&mut bench, &mut guest, &demanding);
    let input = Present { evidence: &[1; 1000], preimage: policy(&[]).preimage() }.encode();
    let unsupported = (Status::EvidenceRefused, EvidenceDetail::Unsupported.as_u32());
    assert_eq!(guest.ask(&mut bench, Opcode::Present, &input), Err(unsupported));
    let grant = artifact.grant(&bench.keys(), &demanding, P384).encode();
    assert_eq!(unwrap(&mut bench, &mut guest, &grant), Err((Status::EvidenceRequired, 0)));
}

#[test]
fn evil_chip_without_insecure_mode_releases_nothing_without_evidence() {
    let mut bench = Bench::new(Modes::default());
    let artifact = Artifact::seal(&ArtifactOptions::default());
    let mut guest =
        Guest::open(&mut bench, GuestOptions { insecure: InsecureFlags::NONE, ..GuestOptions::default() })
            .unwrap();
    let policy = policy(&[]);
    present(&mut bench, &mut guest, &policy);
    let grant = artifact.grant(&bench.keys(), &policy, P384).encode();
    assert_eq!(unwrap(&mut bench, &mut guest, &grant), Err((Status::EvidenceRequired, 0)));
}

#[test]
fn evil_other_policy_or_core_or_wrapping_opens_nothing() {
    let mut bench = Bench::new(INSECURE);
    let artifact = Artifact::seal(&ArtifactOptions::default());
    let other = Artifact::seal(&ArtifactOptions::default());
    let granted = policy(&[("min_counter", "1")]);
    let weaker = policy(&[]);
    let mut guest = guest(&mut bench);
    let grant = artifact.grant(&bench.keys(), &granted, P384);
    present(&mut bench, &mut guest, &weaker);
    assert_eq!(unwrap(&mut bench, &mut guest, &grant.encode()), Err((Status::UnwrapFailed, 0)));
    present(&mut bench, &mut guest, &granted);
    let mut swapped = grant.clone();
    swapped.core = other.core.bytes().to_vec();
    assert_eq!(unwrap(&mut bench, &mut guest, &swapped.encode()), Err((Status::UnwrapFailed, 0)));
    for part in 0..2 {
        let mut bad = grant.clone();
        if part == 0 {
            bad.wrapped[7] ^= 1
        } else {
            bad.enc[50] ^= 1
        }
        assert_eq!(unwrap(&mut bench, &mut guest, &bad.encode()), Err((Status::UnwrapFailed, 0)));
    }
    let mut bad = grant.clone();
    bad.core.push(b' ');
    assert_eq!(unwrap(&mut bench, &mut guest, &bad.encode()), Err((Status::CoreMalformed, 0)));
    assert_eq!(unwrap(&mut bench, &mut guest, &grant.encode()).unwrap(), artifact.key.expose_bytes());
}

#[test]
fn evil_other_chip_cannot_open_the_grant() {
    let mut bench = Bench::new(INSECURE);
    let other = Bench::new(INSECURE);
    let artifact = Artifact::seal(&ArtifactOptions::default());
    let policy = policy(&[]);
    let mut guest = guest(&mut bench);
    present(&mut bench, &mut guest, &policy);
    for suite in [P384, X_WING] {
        let grant = artifact.grant(&other.keys(), &policy, suite).encode();
        assert_eq!(unwrap(&mut bench, &mut guest, &grant), Err((Status::UnwrapFailed, 0)));
    }
}

#[test]
fn evil_grant_of_another_epoch_is_refused() {
    let mut bench = Bench::new(INSECURE);
    let artifact = Artifact::seal(&ArtifactOptions::default());
    let policy = policy(&[]);
    let mut guest = guest(&mut bench);
    present(&mut bench, &mut guest, &policy);
    for epoch in [0, 2, u64::MAX] {
        let mut grant = artifact.grant(&bench.keys(), &policy, P384);
        grant.key_epoch = epoch;
        assert_eq!(unwrap(&mut bench, &mut guest, &grant.encode()), Err((Status::Epoch, 0)));
    }
}

#[test]
fn evil_post_quantum_grant_in_a_classical_session_is_refused() {
    let mut bench = Bench::new(INSECURE);
    let artifact = Artifact::seal(&ArtifactOptions::default());
    let policy = policy(&[]);
    let mut guest = Guest::open(&mut bench, GuestOptions { suites: 1, ..GuestOptions::default() }).unwrap();
    present(&mut bench, &mut guest, &policy);
    let grant = artifact.grant(&bench.keys(), &policy, X_WING).encode();
    assert_eq!(unwrap(&mut bench, &mut guest, &grant), Err((Status::Suite, 0)));
}

#[test]
fn evil_forged_sealer_signature_is_refused() {
    let mut bench = Bench::new(INSECURE);
    let (sealer, stranger) = (SealerSigningKey::generate().unwrap(), SealerSigningKey::generate().unwrap());
    let sealed = |key| Artifact::seal(&ArtifactOptions { sealer: Some(key), ..ArtifactOptions::default() });
    let (artifact, foreign) = (sealed(&sealer), sealed(&stranger));
    let policy = policy(&[]);
    let mut guest = guest(&mut bench);
    present(&mut bench, &mut guest, &policy);
    let grant = artifact.grant(&bench.keys(), &policy, P384);
    let foreign = foreign.grant(&bench.keys(), &policy, P384);
    let mut altered = grant.clone();
    altered.signature[20] ^= 1;
    let mut other_key = grant.clone();
    (other_key.spki, other_key.signature) = (foreign.spki, foreign.signature);
    let mut no_key = grant.clone();
    no_key.spki = vec![1; 120];
    for bad in [altered, other_key, no_key] {
        assert_eq!(unwrap(&mut bench, &mut guest, &bad.encode()), Err((Status::SignatureInvalid, 0)));
    }
    let floors = Floors::parse(&guest.ask(&mut bench, Opcode::Floors, &[]).unwrap()).unwrap();
    assert_eq!(floors.floors, [], "no floor rose");
}

#[test]
fn evil_core_below_the_floor_is_refused() {
    let mut bench = Bench::new(INSECURE);
    let sealer = SealerSigningKey::generate().unwrap();
    let sealed = |counter, family| {
        Artifact::seal(&ArtifactOptions {
            counter,
            family,
            sealer: Some(&sealer),
            ..ArtifactOptions::default()
        })
    };
    let (old, new, other) = (sealed(5, "acme/ranker"), sealed(6, "acme/ranker"), sealed(1, "acme/other"));
    let policy = policy(&[]);
    assert!(release(&mut bench, &old, &policy).is_ok());
    assert!(release(&mut bench, &new, &policy).is_ok());
    assert_eq!(release(&mut bench, &old, &policy), Err((Status::Rollback, 0)));
    assert!(release(&mut bench, &other, &policy).is_ok(), "floors are per family");
    // Also without the signature, and after power was lost.
    bench.power_cycle(INSECURE);
    let mut guest = guest(&mut bench);
    present(&mut bench, &mut guest, &policy);
    let mut unsigned = old.grant(&bench.keys(), &policy, P384);
    (unsigned.spki, unsigned.signature) = (Vec::new(), Vec::new());
    assert_eq!(unwrap(&mut bench, &mut guest, &unsigned.encode()), Err((Status::Rollback, 0)));
    let floors = Floors::parse(&guest.ask(&mut bench, Opcode::Floors, &[]).unwrap()).unwrap().floors;
    let found: Vec<(&str, u64)> = floors.iter().map(|f| (f.family.as_str(), f.counter)).collect();
    assert_eq!(found, [("acme/ranker", 6), ("acme/other", 1)]);
}

#[test]
fn evil_unsigned_core_raises_no_floor() {
    let mut bench = Bench::new(INSECURE);
    let sealer = SealerSigningKey::generate().unwrap();
    let high = ArtifactOptions { counter: u64::MAX, sealer: Some(&sealer), ..ArtifactOptions::default() };
    let mut high = Artifact::seal(&high);
    high.signature = None;
    let policy = policy(&[]);
    assert!(release(&mut bench, &high, &policy).is_ok());
    let low = Artifact::seal(&ArtifactOptions { sealer: Some(&sealer), ..ArtifactOptions::default() });
    assert!(release(&mut bench, &low, &policy).is_ok());
}

#[test]
fn handles_are_limited_and_given_back() {
    let mut bench = Bench::new(INSECURE);
    let artifact = Artifact::seal(&ArtifactOptions::default());
    let policy = policy(&[]);
    let sealed = GuestOptions::path(DataPath::DmaSealed);
    let mut guest = Guest::open(&mut bench, sealed).unwrap();
    present(&mut bench, &mut guest, &policy);
    let grant = artifact.grant(&bench.keys(), &policy, P384).encode();
    for number in 1..=MAX_HANDLES as u32 {
        assert_eq!(unwrap(&mut bench, &mut guest, &grant), Ok(number.to_le_bytes().to_vec()));
    }
    assert_eq!(unwrap(&mut bench, &mut guest, &grant), Err((Status::NoResources, 0)));
    let left = SessionStatus::parse(&guest.ask(&mut bench, Opcode::Status, &[]).unwrap()).unwrap();
    assert_eq!(left.handles, MAX_HANDLES as u32);
    guest.ask(&mut bench, Opcode::Close, &[]).unwrap();
    let mut guest = Guest::open(&mut bench, sealed).unwrap();
    present(&mut bench, &mut guest, &policy);
    assert!(unwrap(&mut bench, &mut guest, &grant).is_ok());
}
