//! Entry points for fuzz targets: every reader of bytes that a stranger wrote.
//!
//! They return whether the input was accepted, so that a target can count; what they check is that nothing panics.

use serde_json::Value;
use zeroize::Zeroizing;

use super::jwe::Jwe;
use super::rcar::{Answer, Start, encrypted_resource};
use super::refusal::Refusal;
use super::resource_uri::ResourceUri;
use super::tee_key::TeeKey;
use super::token::Token;
use super::url::KbsUrl;

/// Answers of a broker: the first byte chooses the status, a zero byte ends the cookie, the rest is the body; once as
/// challenge and once as token and error.
pub fn answers(key: &TeeKey, data: &[u8]) -> bool {
    let Some((selector, rest)) = data.split_first() else { return false };
    let status = match selector % 4 {
        0 | 1 => 200,
        2 => 401,
        _ => 404,
    };
    let (cookie, body) = rest.split_at(rest.iter().position(|byte| *byte == 0).unwrap_or(0));
    let set_cookie = [Zeroizing::new(format!("kbs-session-id={}", String::from_utf8_lossy(cookie)))];
    let answer = Answer { status, set_cookie: &set_cookie, body: body.strip_prefix(&[0]).unwrap_or(body) };
    challenge(key, &answer) | token(key, &answer) | encrypted_resource(&answer).is_ok()
}

fn challenge(key: &TeeKey, answer: &Answer<'_>) -> bool {
    let Ok((waiting, _)) = Start::new("tdx").and_then(Start::request) else { return false };
    let Ok(challenged) = waiting.answer(answer) else { return false };
    let bound = challenged.bind(key.public());
    bound.and_then(|bound| bound.attestation(&Value::Null, None)).is_ok()
}

fn token(key: &TeeKey, answer: &Answer<'_>) -> bool {
    let Ok((waiting, _)) = Start::new("tdx").and_then(Start::request) else { return false };
    let cookie = [Zeroizing::new("kbs-session-id=0".to_owned())];
    let body = br#"{"nonce":"AA==","extra-params":""}"#;
    let first = Answer { status: 200, set_cookie: &cookie, body };
    let second = waiting
        .answer(&first)
        .and_then(|challenged| challenged.bind(key.public()))
        .and_then(|bound| bound.attestation(&Value::Null, None))
        .and_then(|(waiting, _)| waiting.answer(answer, 0));
    second.is_ok()
}

/// The body of an encrypted answer.
pub fn jwe(key: &TeeKey, data: &[u8]) -> bool {
    Jwe::parse(data).is_ok_and(|jwe| jwe.open(key).is_ok())
}

/// A token.
pub fn token_claims(data: &[u8]) -> bool {
    String::from_utf8(data.to_vec()).is_ok_and(|text| Token::parse(Zeroizing::new(text)).is_ok())
}

/// The URI of a resource. What is accepted reads back as itself.
pub fn resource_uri(data: &[u8]) -> bool {
    let Some(uri) = std::str::from_utf8(data).ok().and_then(|text| ResourceUri::parse(text).ok()) else {
        return false;
    };
    assert_eq!(ResourceUri::parse(&uri.to_string()).as_ref().ok(), Some(&uri), "another resource");
    true
}

/// The URL of a broker. What is accepted reads back as itself.
pub fn url(data: &[u8]) -> bool {
    let Some(url) = std::str::from_utf8(data).ok().and_then(|text| KbsUrl::parse(text).ok()) else {
        return false;
    };
    assert_eq!(KbsUrl::parse(&url.to_string()).as_ref().ok(), Some(&url), "another broker");
    true
}

/// The body of an error.
pub fn refusal(data: &[u8]) -> bool {
    Refusal::parse(401, data).is_ok()
}
