//! Encrypted answers. Nothing that a stranger wrote opens; of an altered answer comes the secret that was sent, or none.
//!
//! Input: an answer; or one byte (which key, which member), then edits of an answer that the key does open.

#![no_main]

use std::sync::LazyLock;

use attestation_agent::kbs::{Jwe, TeeKey, TeeKeyKind, fuzzing};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fuzz::bounded;
use fuzz::stream::Choices;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

#[expect(dead_code, reason = "the broker's side as the tests of attestation-agent have it")]
#[path = "../../attestation-agent/tests/kbs/jose.rs"]
mod jose;

const SECRET: &[u8] = b"the secret that was sent";
const MEMBERS: [&str; 5] = ["protected", "encrypted_key", "iv", "ciphertext", "tag"];
const KINDS: [TeeKeyKind; 4] =
    [TeeKeyKind::EcP256, TeeKeyKind::EcP521, TeeKeyKind::MlKem768, TeeKeyKind::Rsa2048];

/// A key of each kind, and an answer to it.
static GOOD: LazyLock<Vec<(TeeKey, Value)>> = LazyLock::new(|| {
    let made = KINDS.map(|kind| {
        let key = TeeKey::generate(kind).expect("a key");
        let answer = jose::encrypt(&serde_json::to_value(key.public()).expect("a JWK"), SECRET);
        let opened = Jwe::parse(answer.to_string().as_bytes()).expect("an answer").open(&key);
        assert_eq!(opened.expect("our own answer").expose(), SECRET);
        (key, answer)
    });
    made.into()
});

fuzz_target!(|data: &[u8]| {
    let good = &*GOOD;
    let mut choices = Choices::new(data);
    let which = choices.u8();
    let (key, answer) = &good[usize::from(which & 3)];
    assert!(!bounded(data.len(), || fuzzing::jwe(key, data)), "a stranger's answer opens");
    let mut answer = answer.clone();
    let text = match MEMBERS.get(usize::from(which >> 2) % 8) {
        Some(name) => {
            let encoded = answer[*name].as_str().expect("a text");
            let mut member = URL_SAFE_NO_PAD.decode(encoded).expect("base64url");
            choices.edit(&mut member);
            answer[*name] = URL_SAFE_NO_PAD.encode(member).into();
            answer.to_string().into_bytes()
        }
        None => {
            let mut text = answer.to_string().into_bytes();
            choices.edit(&mut text);
            text
        }
    };
    bounded(text.len(), || {
        let Ok(jwe) = Jwe::parse(&text) else { return };
        if let Ok(secret) = jwe.open(key) {
            assert_eq!(secret.expose(), SECRET);
        }
    });
});
