use proptest::prelude::*;

use super::*;
use crate::fixture::Recipe;

fn text() -> String {
    let core = Recipe { digests: false, ..Recipe::new(1, &[5, 6]) }.seal().core;
    String::from_utf8(core.bytes().to_vec()).unwrap()
}

fn code_after(from: &str, to: &str) -> &'static str {
    let text = text();
    assert!(text.contains(from), "{from}");
    Core::parse(text.replacen(from, to, 1).as_bytes()).map_or_else(|error| error.code(), |_| "accepted")
}

#[test]
fn core_parses_to_what_was_sealed() {
    let sealed = Recipe::new(1, &[5, 6]).seal().core;
    let parsed = Core::parse(sealed.bytes()).unwrap();
    assert_eq!(parsed, sealed);
    assert_eq!(parsed.payload_named("part-1.bin").map(PayloadIndex::value), Some(1));
    assert_eq!(parsed.payload_named("part-2.bin"), None);
    let bytes = parsed.parameters().to_value().encode();
    assert!(text().contains("innerkeep parameters v1"));
    assert!(
        sealed.bytes().windows(bytes.len()).any(|window| window == bytes),
        "parameters stand verbatim in the core"
    );
}

#[test]
fn evil_object_of_another_type_is_refused() {
    assert_eq!(code_after("innerkeep core v1", "innerkeep core v2"), "MALFORMED");
    assert_eq!(code_after("innerkeep parameters v1", "innerkeep core v1"), "MALFORMED");
    let policy = crate::fixture::policy(crate::fixture::POLICY);
    let other = String::from_utf8(policy.preimage().to_vec()).unwrap().replacen("policy v1", "policy v2", 1);
    assert_eq!(crate::policy::PolicyDocument::parse(other.as_bytes()).unwrap_err().code(), "MALFORMED");
}

#[test]
fn evil_unknown_suite_is_refused() {
    assert_eq!(code_after("AES-256-GCM HKDF-SHA-512", "AES-256-GCM-SIV HKDF-SHA-512"), "MALFORMED");
}

#[test]
fn evil_two_payloads_of_one_name_are_refused() {
    assert_eq!(code_after("part-1.bin", "part-0.bin"), "MALFORMED");
}

#[test]
fn evil_core_with_another_number_of_seals_is_refused() {
    let text = text();
    let second = text.find(",{\"commitment\"").unwrap();
    let fewer = format!("{}]}}", &text[..second]);
    assert_eq!(Core::parse(fewer.as_bytes()).unwrap_err().code(), "MALFORMED");
}

#[test]
fn evil_core_with_some_payload_digests_is_refused() {
    let digest = format!("{{\"blake3\":\"{}\",\"commitment\"", "0".repeat(64));
    assert_eq!(code_after("{\"commitment\"", &digest), "MALFORMED");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn one_byte_altered_is_refused_or_another_core(place: prop::sample::Index, byte: u8) {
        let bytes = text().into_bytes();
        let mut altered = bytes.clone();
        let place = place.index(altered.len());
        altered[place] = byte;
        if let Ok(core) = Core::parse(&altered) {
            prop_assert_eq!(core.bytes(), altered.as_slice());
            prop_assert_eq!(core.digest() == CoreDigest::of(&bytes), altered == bytes);
        }
    }
}
