//! Tokens. What is accepted is kept as it came, holds for its time only, and cannot end a header.

#![no_main]

use attestation_agent::kbs::{Token, fuzzing};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    check(data);
    // The same bytes as claims, so that mutations reach the JSON.
    check(format!("e30.{}.AA", URL_SAFE_NO_PAD.encode(data)).as_bytes());
});

fn check(data: &[u8]) {
    let accepted = bounded(data.len(), || fuzzing::token_claims(data));
    let Some(text) = std::str::from_utf8(data).ok() else { return assert!(!accepted) };
    let token = bounded(data.len(), || Token::parse(text.to_owned().into()));
    assert_eq!(accepted, token.is_ok());
    let Ok(token) = token else { return };
    assert_eq!(token.expose(), text);
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()) && text.split('.').count() == 3);
    assert!(!token.is_valid_at(token.expires()) && !token.is_valid_at(u64::MAX));
    let claims = URL_SAFE_NO_PAD.decode(text.split('.').nth(1).expect("claims")).expect("base64url");
    let claims: serde_json::Value = serde_json::from_slice(&claims).expect("claims");
    assert_eq!(claims["exp"].as_u64(), Some(token.expires()));
    let not_before = claims["nbf"].as_u64().unwrap_or(0);
    assert_eq!(token.is_valid_at(not_before), not_before < token.expires());
    assert!(not_before == 0 || !token.is_valid_at(not_before - 1));
}
