use p384::ecdsa::{Signature as P384Signature, VerifyingKey, signature::Verifier as _};

use super::*;
use crate::fixture::{Artifact, Recipe, sealer_public, sign, signature_object};

/// A key for this test alone, written by OpenSSL 3.0.
const PRIVATE_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDAJGNpkMzqsa/Zhxo92\n\
JlNeqCaykV34lG/RZBXhjW6zMRgsnWQarvfkamuUyHRtCJOhZANiAAQYIrIKcv0R\n\
Rnuaqak+AL8EaJr78FFJ/RGXD8Lsd+F31Wx5CCjRL1lQc4fsAUitqKBu4oATWiVu\n\
5Yd+c/ygXmsTI4oiTOOJVhZABY6FbmsbgBML4dU2YSV/CIwLk7hsX6Y=\n\
-----END PRIVATE KEY-----\n\
";
const PUBLIC_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEGCKyCnL9EUZ7mqmpPgC/BGia+/BRSf0R\n\
lw/C7Hfhd9VseQgo0S9ZUHOH7AFIraigbuKAE1olbuWHfnP8oF5rEyOKIkzjiVYW\n\
QAWOhW5rG4ATC+HVNmElfwiMC5O4bF+m\n\
-----END PUBLIC KEY-----\n\
";
const P256_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEw6w6CeaiGn+ss03m+NdMYs+uYjMR\n\
N2KUwPLMkPWJiKJAXVuESYdCteDgvI/h+dzudV3F58jerJ9VxZav+LxrLw==\n\
-----END PUBLIC KEY-----\n\
";

/// The 96 bytes inside a signature object.
pub(crate) fn raw_signature(object: &[u8]) -> [u8; 96] {
    Signature::parse(object).unwrap().signature
}

fn signed(counter: u64) -> Artifact {
    Recipe { counter, sealer: Some(1), ..Recipe::new(1 + counter, &[3]) }.seal()
}

fn pin(seed: u64, family: &str, counter: u64) -> Pin {
    let family = Family::parse(family).unwrap();
    Pin::Sealer { key: sealer_public(seed).digest(), family, min_counter: Counter::new(counter) }
}

fn decide(core: &Core, signature: Option<&[u8]>, pins: &[Pin]) -> Result<Origin, ArtifactError> {
    let signature = signature.map(|bytes| Signature::parse(bytes).unwrap());
    verify_origin(core, signature.as_ref(), pins, &Floors::new())
}

#[test]
fn keys_are_read_from_and_written_to_pem() {
    let key = SealerSigningKey::from_pem(PRIVATE_PEM).unwrap();
    assert_eq!(key.public_key(), SealerPublicKey::from_pem(PUBLIC_PEM).unwrap());
    assert_eq!(key.public_key().to_pem(), PUBLIC_PEM);
    let again = SealerSigningKey::from_pem(&key.to_pem().unwrap()).unwrap();
    assert_eq!(again.public_key(), key.public_key());
    let fresh = SealerSigningKey::generate().unwrap();
    let read = SealerSigningKey::from_pem(&fresh.to_pem().unwrap()).unwrap();
    assert_eq!(read.public_key(), fresh.public_key());
}

#[test]
fn evil_sealer_key_of_another_form_is_refused() {
    assert_eq!(SealerPublicKey::from_pem(P256_PEM).unwrap_err().code(), "KEY_INVALID");
    assert_eq!(SealerPublicKey::from_pem(PRIVATE_PEM).unwrap_err().code(), "MALFORMED");
    assert_eq!(SealerSigningKey::from_pem(PUBLIC_PEM).err().unwrap().code(), "MALFORMED");
    let shown =
        SealerSigningKey::from_pem(&PRIVATE_PEM.replace("RWJ", "!!!")).err().map(|error| error.to_string());
    assert!(!shown.unwrap_or_default().contains("Mzqs"), "no key material in messages");
    let der = sealer_public(1).spki_der().to_vec();
    // The same point in compressed form, a longer one, and one that is not on the curve.
    let mut compressed = der[..der.len() - 48].to_vec();
    compressed[23] = 2 + (der[119] & 1);
    let mut off_curve = der.clone();
    off_curve[119] ^= 1;
    for other in [compressed, [der.as_slice(), &[0]].concat(), off_curve, Vec::new()] {
        assert_eq!(SealerPublicKey::from_spki_der(&other).unwrap_err().code(), "KEY_INVALID");
    }
}

#[test]
fn signatures_verify_with_another_implementation() {
    let key = SealerSigningKey::from_pem(PRIVATE_PEM).unwrap();
    let mut request = Recipe::new(1, &[3]).request();
    request.sealer = Some(key.public_key().digest());
    let sealer = crate::seal::Sealer::new(&request).unwrap();
    sealer.payloads()[0].seal_in_place(crate::fixture::segment(0), &mut [1, 2, 3]).unwrap();
    let core = sealer.finish().unwrap().core;
    let signature = Signature::parse(&Signature::sign(&core, &key).unwrap().encode()).unwrap();
    assert_eq!(signature.verify(&core), Ok(key.public_key().digest()));
    let other = VerifyingKey::from_sec1_bytes(&signature.key.spki_der()[23..]).unwrap();
    let bytes = P384Signature::from_slice(&signature.signature).unwrap();
    assert!(other.verify(&signed_message(core.digest()), &bytes).is_ok());
    let unnamed = Recipe::new(1, &[3]).seal().core;
    assert_eq!(Signature::sign(&unnamed, &key).unwrap_err().code(), "SIGNATURE_INVALID");
}

#[test]
fn pinned_core_needs_no_signature() {
    let core = signed(7).core;
    assert_eq!(decide(&core, None, &[Pin::Core(core.digest())]), Ok(Origin::PinnedCore));
}

#[test]
fn pinned_sealer_is_accepted_from_the_minimum_on() {
    let core = signed(7).core;
    let origin = decide(&core, Some(&sign(&core, 1)), &[pin(2, "a", 1), pin(1, "acme/ranker", 7)]);
    assert!(matches!(origin, Ok(Origin::PinnedSealer { counter, .. }) if counter.value() == 7));
}

#[test]
fn evil_unpinned_unsigned_core_is_refused() {
    let core = signed(7).core;
    for pins in [vec![], vec![pin(1, "acme/ranker", 0)], vec![Pin::Core(signed(6).core.digest())]] {
        assert_eq!(decide(&core, None, &pins).unwrap_err().code(), "ORIGIN_UNPROVEN");
    }
    assert_eq!(decide(&core, Some(&sign(&core, 1)), &[]).unwrap_err().code(), "ORIGIN_UNPROVEN");
}

#[test]
fn evil_core_by_an_unpinned_sealer_is_refused() {
    let core = signed(7).core;
    let refused = decide(&core, Some(&sign(&core, 1)), &[pin(2, "acme/ranker", 0)]).unwrap_err();
    assert_eq!(refused.code(), "ORIGIN_UNPROVEN");
}

#[test]
fn evil_core_of_an_unpinned_family_is_refused() {
    let core = signed(7).core;
    let refused = decide(&core, Some(&sign(&core, 1)), &[pin(1, "acme/embedder", 0)]).unwrap_err();
    assert_eq!(refused.code(), "ORIGIN_UNPROVEN");
}

#[test]
fn evil_signature_of_another_core_is_refused() {
    let core = signed(7).core;
    let honest = sign(&core, 1);
    // A valid signature in an object that names another core.
    let relabelled = signature_object(
        &signed(6).core.digest().to_string(),
        sealer_public(1).spki_der(),
        &raw_signature(&honest),
    );
    for object in [relabelled, sign(&signed(6).core, 1)] {
        let refused = decide(&core, Some(&object), &[pin(1, "acme/ranker", 0)]).unwrap_err();
        assert_eq!(refused.code(), "SIGNATURE_INVALID");
    }
}

#[test]
fn evil_signature_by_a_key_that_the_core_does_not_name_is_refused() {
    let core = signed(7).core;
    let refused = decide(&core, Some(&sign(&core, 2)), &[pin(2, "acme/ranker", 0)]).unwrap_err();
    assert_eq!(refused.code(), "SIGNATURE_INVALID");
    let unnamed = Recipe::new(9, &[3]).seal().core;
    let refused = decide(&unnamed, Some(&sign(&unnamed, 1)), &[pin(1, "acme/ranker", 0)]).unwrap_err();
    assert_eq!(refused.code(), "SIGNATURE_INVALID");
}

#[test]
fn evil_forged_signature_is_refused() {
    let core = signed(7).core;
    let digest = core.digest().to_string();
    let mut flipped = raw_signature(&sign(&core, 1));
    flipped[95] ^= 1;
    for forged in [flipped, [0; 96], [0xff; 96]] {
        let object = signature_object(&digest, sealer_public(1).spki_der(), &forged);
        let refused = decide(&core, Some(&object), &[pin(1, "acme/ranker", 0)]).unwrap_err();
        assert_eq!(refused.code(), "SIGNATURE_INVALID");
    }
}

#[test]
fn evil_older_counter_is_refused() {
    let core = signed(7).core;
    let object = sign(&core, 1);
    let refused = decide(&core, Some(&object), &[pin(1, "acme/ranker", 8)]).unwrap_err();
    assert!(matches!(refused, ArtifactError::Rollback { expected: 8, found: 7, .. }));
    // Of several pins that match, the highest counts; a known floor counts as well.
    assert_eq!(
        decide(&core, Some(&object), &[pin(1, "acme/ranker", 8), pin(1, "acme/ranker", 1)])
            .unwrap_err()
            .code(),
        "ROLLBACK"
    );
    let mut floors = Floors::new();
    floors.raise(sealer_public(1).digest(), Family::parse("acme/ranker").unwrap(), Counter::new(9));
    floors.raise(sealer_public(1).digest(), Family::parse("acme/ranker").unwrap(), Counter::new(2));
    let signature = Signature::parse(&object).unwrap();
    let refused = verify_origin(&core, Some(&signature), &[pin(1, "acme/ranker", 1)], &floors).unwrap_err();
    assert!(matches!(refused, ArtifactError::Rollback { expected: 9, found: 7, .. }));
}

#[test]
fn evil_pin_by_key_alone_is_refused() {
    let key = sealer_public(1).digest();
    let family = Family::parse("a").unwrap();
    let pin = |family, counter| Pin::sealer(key, family, counter).map_err(|error| error.code());
    assert_eq!(pin(None, Some(Counter::new(1))), Err("PIN_INCOMPLETE"));
    assert_eq!(pin(Some(family.clone()), None), Err("PIN_INCOMPLETE"));
    assert!(pin(Some(family), Some(Counter::new(0))).is_ok());
}
