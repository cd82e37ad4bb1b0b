//! Answers of a broker before any secret. A challenge goes back unchanged, and a cookie or token cannot end a header.
//!
//! Input: one byte (status), the cookie up to a zero byte, the body.

#![no_main]

use std::sync::LazyLock;

use attestation_agent::kbs::rcar::{Answer, AwaitingToken, Start};
use attestation_agent::kbs::{TeeKey, TeeKeyKind, fuzzing};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static KEY: LazyLock<TeeKey> = LazyLock::new(|| TeeKey::generate(TeeKeyKind::EcP256).expect("a key"));

fuzz_target!(|data: &[u8]| {
    LazyLock::force(&KEY);
    let accepted = bounded(data.len(), || fuzzing::answers(&KEY, data));
    let Some((selector, rest)) = data.split_first() else { return };
    let (cookie, body) = rest.split_at(rest.iter().position(|byte| *byte == 0).unwrap_or(0));
    let body = body.strip_prefix(&[0]).unwrap_or(body);
    bounded(body.len(), || fuzzing::refusal(body));
    let cookies = [format!("kbs-session-id={}", String::from_utf8_lossy(cookie)).into()];
    // Only 200 is an answer that says yes.
    assert!(!accepted || selector % 4 < 2);
    let answer = Answer { status: 200, set_cookie: &cookies, body };
    challenge(&answer);
    token(&answer);
});

fn challenge(answer: &Answer<'_>) {
    let (waiting, _) = Start::new("tdx").and_then(Start::request).expect("a request");
    let Ok(challenged) = waiting.answer(answer) else { return };
    let bound = challenged.bind(KEY.public()).expect("a binding");
    let (_, outgoing) = bound.attestation(&Value::Null, None).expect("a request");
    assert_eq!(outgoing.path(), "/kbs/v0/attest");
    header(outgoing.cookie().expect("a cookie"));
    let ours: Value = serde_json::from_slice(outgoing.body()).expect("our own JSON");
    let theirs: Value = serde_json::from_slice(answer.body).expect("an accepted challenge");
    assert_eq!(ours["runtime-data"]["nonce"], theirs["nonce"]);
    assert_eq!(ours["runtime-data"]["tee-pubkey"], serde_json::to_value(KEY.public()).expect("a key"));
}

fn token(answer: &Answer<'_>) {
    let Ok(attested) = waiting().answer(answer, 1) else { return };
    let (cookie, token) = attested.into_parts();
    header(&cookie.header());
    assert!(token.is_valid_at(1) && token.expires() > 1);
    header(token.expose());
}

fn waiting() -> AwaitingToken {
    let cookie = ["kbs-session-id=0".to_owned().into()];
    let first = Answer { status: 200, set_cookie: &cookie, body: br#"{"nonce":"AA==","extra-params":""}"# };
    let (waiting, _) = Start::new("tdx").and_then(Start::request).expect("a request");
    let challenged = waiting.answer(&first).expect("a challenge");
    let bound = challenged.bind(KEY.public()).expect("a binding");
    bound.attestation(&Value::Null, None).expect("a request").0
}

/// What is sent back in a header is one visible word.
fn header(value: &str) {
    assert!(!value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';'));
}
