use proptest::prelude::*;

use super::*;

fn found(text: &str) -> String {
    parse(text.as_bytes(), 1 << 20).unwrap_err().found
}

#[test]
fn evil_members_twice() {
    assert_eq!(found(r#"{"a": 1, "a": 2}"#), "a member twice at line 1 column 16");
    // Under two spellings, and deeper.
    assert!(found(r#"{"a": 1, "\u0061": 1}"#).starts_with("a member twice"));
    assert!(found(r#"[{"x": {"type": "a", "type": "b"}}]"#).starts_with("a member twice"));
    assert!(parse(br#"{"a": {"b": 1}, "b": [1, {"a": null}]}"#, 100).is_ok());
}

#[test]
fn evil_texts_that_are_no_json() {
    for text in
        ["", "{", "{}x", "{} {}", "{'a': 1}", "{\"a\": 1,}", "// x\n{}", "nul", "\u{feff}{}", "{\"a\": NaN}"]
    {
        assert!(parse(text.as_bytes(), 100).is_err(), "{text}");
    }
    assert!(parse(b"\"\xff\"", 100).is_err());
    let deep = "[".repeat(100_000);
    assert!(parse(deep.as_bytes(), 1 << 20).is_err());
}

#[test]
fn evil_huge_texts() {
    assert_eq!(parse(b"[1, 2]", 6).unwrap(), serde_json::json!([1, 2]));
    assert_eq!(parse(b"[1, 2]", 5).unwrap_err().found, "6 bytes of at most 5");
}

#[test]
fn evil_members_that_nobody_knows() {
    let value = parse(br#"{"known": "x", "unknown\n": 1}"#, 100).unwrap();
    let mut members = Members::of(value, "an object").unwrap();
    assert_eq!(members.text("known").unwrap(), "x");
    assert_eq!(members.finish().unwrap_err().found, r#""unknown\n""#);
}

#[test]
fn evil_lists_that_are_empty_or_long() {
    let list = |text: &str| items(parse(text.as_bytes(), 100).unwrap(), "a list", 2);
    assert_eq!(list("[1, 2]").unwrap().len(), 2);
    for text in ["[]", "[1, 2, 3]", "{}", "\"12\"", "null"] {
        assert!(list(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_accepted_is_what_others_read(text in r#"[\[\]{}:,"ab1 \\.e-]{0,24}"#) {
        if let Ok(value) = parse(text.as_bytes(), 100) {
            prop_assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap());
        }
    }
}
