use proptest::prelude::*;

use super::*;
use crate::fixture::{Artifact, POLICY, Recipe, grant, identity, policy, recipient};

const SUITES: [GrantSuite; 2] = [GrantSuite::P384, GrantSuite::XWing];

fn artifact() -> Artifact {
    Recipe::new(1, &[10]).seal()
}

#[test]
fn grant_opens_for_its_recipient_only() {
    let artifact = artifact();
    for suite in SUITES {
        let own = identity(suite, 1, 4);
        let key = artifact.content_key();
        let made = Grant::seal(&artifact.core, &key, &recipient(&own), &policy(POLICY)).unwrap();
        let parsed = Grant::parse(&made.encode()).unwrap();
        assert_eq!(parsed, made);
        let document = PolicyDocument::parse(parsed.preimage()).unwrap();
        let opened = parsed.open(&own, &artifact.core, &document).unwrap();
        assert_eq!(opened.expose_bytes(), &artifact.key);
    }
}

#[test]
fn regranting_leaves_core_payload_and_signature_untouched() {
    let artifact = Recipe { sealer: Some(1), ..Recipe::new(2, &[10]) }.seal();
    let signature = crate::fixture::sign(&artifact.core, 1);
    let before = (artifact.core.digest(), artifact.payloads.clone(), artifact.tags.clone());
    let first = grant(&artifact, &identity(GrantSuite::P384, 1, 1), POLICY);
    let second = grant(&artifact, &identity(GrantSuite::XWing, 2, 1), &POLICY.replace("= 5", "= 6"));
    assert_ne!(first.encode(), second.encode());
    assert_eq!(before, (artifact.core.digest(), artifact.payloads.clone(), artifact.tags.clone()));
    let signature = crate::signature::Signature::parse(&signature).unwrap();
    assert!(signature.verify(&artifact.core).is_ok());
}

#[test]
fn evil_grant_for_another_recipient_is_refused() {
    let artifact = artifact();
    for suite in SUITES {
        let made = grant(&artifact, &identity(suite, 1, 4), POLICY);
        let others = [
            identity(suite, 2, 4),
            identity(suite, 1, 5),
            identity(SUITES[usize::from(suite == SUITES[0])], 1, 4),
        ];
        for other in others {
            let refused = made.open(&other, &artifact.core, &policy(POLICY)).err().unwrap();
            assert_eq!(refused.code(), "GRANT_WRONG_RECIPIENT");
        }
    }
}

#[test]
fn evil_grant_that_lies_about_its_recipient_does_not_open() {
    let artifact = artifact();
    for suite in SUITES {
        let (own, other) = (identity(suite, 1, 4), identity(suite, 2, 4));
        let mut foreign = grant(&artifact, &other, POLICY);
        foreign.recipient = own.id;
        foreign.recipient_key = own.key.public_key().digest();
        assert_eq!(
            foreign.open(&own, &artifact.core, &policy(POLICY)).err(),
            Some(ArtifactError::GrantOpenFailed)
        );
        let mut stale = grant(&artifact, &identity(suite, 1, 3), POLICY);
        stale.key_epoch = own.key_epoch;
        assert_eq!(
            stale.open(&own, &artifact.core, &policy(POLICY)).err(),
            Some(ArtifactError::GrantOpenFailed)
        );
    }
}

#[test]
fn evil_grant_for_another_core_is_refused() {
    let (artifact, other) = (artifact(), Recipe::new(2, &[10]).seal());
    let own = identity(GrantSuite::P384, 1, 4);
    let mut foreign = grant(&other, &own, POLICY);
    assert_eq!(
        foreign.open(&own, &artifact.core, &policy(POLICY)).err().unwrap().code(),
        "GRANT_WRONG_OBJECT"
    );
    foreign.core = artifact.core.digest();
    assert_eq!(
        foreign.open(&own, &artifact.core, &policy(POLICY)).err(),
        Some(ArtifactError::GrantOpenFailed)
    );
    let mut secret = grant(&artifact, &own, POLICY);
    secret.object = GrantObject::Secret;
    assert_eq!(
        secret.open(&own, &artifact.core, &policy(POLICY)).err().unwrap().code(),
        "GRANT_WRONG_OBJECT"
    );
}

#[test]
fn evil_policy_replaced_in_a_grant_does_not_open() {
    let artifact = artifact();
    for suite in SUITES {
        let own = identity(suite, 1, 4);
        let made = grant(&artifact, &own, POLICY);
        let weaker = policy(&POLICY.replace("min_counter = 5", "min_counter = 0"));
        assert_eq!(made.open(&own, &artifact.core, &weaker).err(), Some(ArtifactError::GrantOpenFailed));
    }
}

#[test]
fn evil_grant_with_foreign_lengths_is_refused() {
    let mut made = grant(&artifact(), &identity(GrantSuite::P384, 1, 4), POLICY);
    let Form::Chip { encapsulated, .. } = &mut made.form else { panic!("another kind") };
    encapsulated.pop();
    assert_eq!(Grant::parse(&made.encode()).unwrap_err().code(), "MALFORMED");
}

#[test]
fn evil_unknown_grant_kind_has_its_own_code() {
    let text =
        String::from_utf8(grant(&artifact(), &identity(GrantSuite::P384, 1, 4), POLICY).encode()).unwrap();
    for kind in ["sgx", "KBS", "chip ", ""] {
        let other = text.replace("\"kind\":\"chip\"", &format!("\"kind\":\"{kind}\""));
        assert_eq!(Grant::parse(other.as_bytes()).unwrap_err().code(), "GRANT_KIND_UNKNOWN");
    }
}

#[test]
fn evil_second_recipient_without_payload_digests_is_refused() {
    let bare = Recipe { digests: false, ..Recipe::new(3, &[10]) }.seal();
    let first = grant(&bare, &identity(GrantSuite::P384, 1, 1), POLICY);
    let second = grant(&bare, &identity(GrantSuite::P384, 2, 1), POLICY);
    assert_eq!(refuse_forgeable(&bare.core, &[], &first), Ok(()));
    assert_eq!(refuse_forgeable(&bare.core, std::slice::from_ref(&first), &first), Ok(()));
    let refused = refuse_forgeable(&bare.core, &[first], &second).unwrap_err();
    assert_eq!(refused.code(), "GRANT_FORGEABLE");
    let sound = artifact();
    let first = grant(&sound, &identity(GrantSuite::P384, 1, 1), POLICY);
    let second = grant(&sound, &identity(GrantSuite::P384, 2, 1), POLICY);
    assert_eq!(refuse_forgeable(&sound.core, &[first], &second), Ok(()));
}

#[test]
fn evil_key_of_another_core_is_not_granted() {
    let (artifact, other) = (artifact(), Recipe::new(2, &[10]).seal());
    let own = identity(GrantSuite::P384, 1, 4);
    let refused = Grant::seal(&artifact.core, &other.content_key(), &recipient(&own), &policy(POLICY));
    assert_eq!(refused.err().unwrap().code(), "COMMITMENT_MISMATCH");
}

#[test]
fn recipient_keys_are_validated() {
    for suite in SUITES {
        let own = identity(suite, 1, 4);
        let public = own.key.public_key();
        assert_eq!(RecipientPublicKey::parse(suite, public.bytes()), Ok(public.clone()));
        assert_eq!(RecipientPublicKey::parse(suite, &public.bytes()[1..]).unwrap_err().code(), "KEY_INVALID");
        let again = RecipientSecretKey::parse(suite, &own.key.expose_bytes()).unwrap();
        assert_eq!(again.public_key(), public);
        assert!(RecipientSecretKey::generate(suite).is_ok_and(|fresh| fresh.public_key() != public));
    }
    assert_eq!(RecipientPublicKey::parse(GrantSuite::P384, &[4; 97]).unwrap_err().code(), "KEY_INVALID");
    assert_eq!(RecipientSecretKey::parse(GrantSuite::P384, &[0; 48]).err().unwrap().code(), "KEY_INVALID");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn one_byte_altered_is_refused_or_another_grant(place: prop::sample::Index, byte: u8) {
        let bytes = grant(&artifact(), &identity(GrantSuite::XWing, 1, 4), POLICY).encode();
        let mut altered = bytes.clone();
        let place = place.index(altered.len());
        altered[place] = byte;
        if let Ok(parsed) = Grant::parse(&altered) {
            prop_assert_eq!(parsed.encode(), altered);
        }
    }
}
