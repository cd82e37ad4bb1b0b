use proptest::prelude::*;

use super::*;

fn token(claims: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

fn parse(text: &str) -> Result<Token, &'static str> {
    Token::parse(Zeroizing::new(text.to_owned())).map_err(|fault| match fault {
        AnswerFault::TokenForm { .. } => "KBS_TOKEN_INVALID",
        _ => "another",
    })
}

#[test]
fn times_are_read_from_the_middle() {
    let read = parse(&token(r#"{"exp":100,"nbf":50,"submods":{"cpu0":{"x":[1.5]}}}"#)).unwrap();
    assert_eq!(read.expires(), 100);
    for (now, valid) in [(49, false), (50, true), (99, true), (100, false), (101, false)] {
        assert_eq!(read.is_valid_at(now), valid, "{now}");
    }
    assert!(parse(&token(r#"{"exp":100}"#)).unwrap().is_valid_at(0));
}

#[test]
fn the_time_of_issue_is_read_where_there_is_one() {
    for (claims, issued) in [
        (r#"{"exp":100,"iat":50}"#, Some(50)),
        (r#"{"exp":100,"iat":0}"#, Some(0)),
        (r#"{"exp":100}"#, None),
        (r#"{"exp":100,"iat":100}"#, None),
        (r#"{"exp":100,"iat":18446744073709551615}"#, None),
        (r#"{"exp":100,"iat":-1}"#, None),
        (r#"{"exp":100,"iat":1.5}"#, None),
        (r#"{"exp":100,"iat":"50"}"#, None),
    ] {
        assert_eq!(parse(&token(claims)).unwrap().issued(), issued, "{claims}");
    }
}

#[test]
fn evil_broker_sends_an_expired_token() {
    let read = parse(&token(r#"{"exp":100}"#)).unwrap();
    assert!(matches!(
        read.require_valid_at(3_700),
        Err(AnswerFault::TokenExpired { now: 3_700, not_before: 0, expires: 100 })
    ));
    read.require_valid_at(99).unwrap();
}

#[test]
fn tokens_of_another_form_are_refused() {
    let good = token(r#"{"exp":1}"#);
    for text in [
        String::new(),
        "not a JWT".to_owned(),
        "a.b".to_owned(),
        format!("{good}.x"),
        ".eyJleHAiOjF9.x".to_owned(),
        "e30.eyJleHAiOjF9.".to_owned(),
        "e30.eyJleHAiOjF9=.x".to_owned(),
        "e30.!!!!.x".to_owned(),
        token("{}"),
        token(r#"{"exp":"1"}"#),
        token(r#"{"exp":1.5}"#),
        token(r#"{"exp":-1}"#),
        token(r#"{"exp":1,"exp":9999999999}"#),
        token("[1]"),
    ] {
        assert_eq!(parse(&text).err(), Some("KBS_TOKEN_INVALID"), "{text}");
    }
}

#[test]
fn evil_broker_puts_a_header_into_a_token() {
    let good = token(r#"{"exp":1}"#);
    for text in [format!("{good}\r\nX: y"), format!(" {good}"), format!("{good}\0")] {
        assert_eq!(parse(&text).err(), Some("KBS_TOKEN_INVALID"));
    }
}

#[test]
fn evil_broker_sends_a_huge_token() {
    let text =
        format!("{}.{}", token(r#"{"exp":1}"#).rsplit_once('.').unwrap().0, "a".repeat(TOKEN_MAX_BYTES));
    assert_eq!(parse(&text).err(), Some("KBS_TOKEN_INVALID"));
}

#[test]
fn nothing_prints_a_token() {
    let text = token(r#"{"exp":1}"#);
    let shown = format!("{:?}", parse(&text).unwrap());
    assert_eq!(shown, "Token(expires 1)");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[a-zA-Z0-9._-]{0,64}") {
        let _ = parse(&text);
    }
}
