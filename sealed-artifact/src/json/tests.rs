use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

fn code(bytes: &[u8]) -> &'static str {
    Value::parse("object", bytes, 1_000).map_or_else(|error| error.code(), |_| "accepted")
}

#[test]
fn evil_non_canonical_json_is_refused() {
    for text in [" {}", "{}\n", "{\"b\":1,\"a\":2}", "\"\\u0061\"", "[1, 2]", "\"\\/\"", "\"\\u001F\""] {
        assert_eq!(code(text.as_bytes()), "NOT_CANONICAL", "{text}");
    }
    for text in ["{}", "[1,2]", "{\"a\":2,\"b\":1}", "\"\\u001f\"", "\"\\n\"", "\"é\u{2028}\u{7f}\""] {
        assert_eq!(code(text.as_bytes()), "accepted", "{text}");
    }
}

#[test]
fn evil_trailing_bytes_are_refused() {
    for text in ["{}x", "{}{}", "{},", "{}\0", "1 2"] {
        assert_eq!(code(text.as_bytes()), "MALFORMED", "{text}");
    }
}

#[test]
fn evil_duplicate_members_are_refused() {
    for text in ["{\"a\":1,\"a\":1}", "{\"a\":1,\"\\u0061\":2}", "{\"b\":{\"a\":1,\"a\":2}}"] {
        assert_eq!(code(text.as_bytes()), "MALFORMED", "{text}");
    }
}

#[test]
fn evil_integers_in_the_other_form_are_refused() {
    let integer =
        |text: &str| Value::parse("n", text.as_bytes(), 100).and_then(|value| value.into_integer("n"));
    for (text, value) in
        [("0", 0), ("9007199254740991", MAXIMUM_NUMBER), ("\"9007199254740992\"", MAXIMUM_NUMBER + 1)]
    {
        assert_eq!(integer(text), Ok(value));
    }
    for text in [
        "\"7\"",
        "\"9007199254740991\"",
        "9007199254740992",
        "\"09007199254740992\"",
        "\"+9007199254740992\"",
        "\"18446744073709551616\"",
        "\"\"",
        "true",
    ] {
        assert_eq!(integer(text).unwrap_err().code(), "MALFORMED", "{text}");
    }
}

#[test]
fn evil_foreign_json_is_refused() {
    let texts = [
        "",
        "null",
        "-1",
        "-0",
        "1.0",
        "1e3",
        "01",
        "+1",
        "nan",
        "'a'",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "\"\t\"",
        "\"",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\\u12\"",
        "[",
        "{\"a\"",
        "tru",
        "\u{feff}{}",
    ];
    for text in texts {
        assert_eq!(code(text.as_bytes()), "MALFORMED", "{text}");
    }
    assert_eq!(code(b"\"\xff\""), "MALFORMED");
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert_eq!(code(nested(8).as_bytes()), "accepted");
    assert_eq!(code(nested(9).as_bytes()), "LIMIT_EXCEEDED");
}

#[test]
fn evil_oversize_objects_are_refused_before_parsing() {
    assert_eq!(code(&[b' '; 1_001]), "LIMIT_EXCEEDED");
    assert_eq!(code(&[b' '; 1_000]), "MALFORMED");
}

#[test]
fn evil_unknown_members_are_refused() {
    let mut members =
        Value::object([("a", Value::Bool(true)), ("b", Value::Bool(true))]).into_members("object").unwrap();
    members.take("a").unwrap();
    assert_eq!(members.take("c").unwrap_err().code(), "MALFORMED");
    assert_eq!(members.finish().unwrap_err().code(), "MALFORMED");
}

#[test]
fn members_are_ordered_by_utf_16() {
    // U+10000 is written with surrogates, which are below U+FFFF.
    let value = Value::object([("\u{ffff}", Value::Number(1)), ("\u{10000}", Value::Number(2))]);
    assert_eq!(value.encode(), "{\"\u{10000}\":2,\"\u{ffff}\":1}".as_bytes());
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        (0..=MAXIMUM_NUMBER).prop_map(Value::Number),
        any::<String>().prop_map(Value::Text),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            btree_map(any::<String>().prop_map(Name), inner, 0..6).prop_map(Value::Object),
        ]
    })
}

proptest! {
    #[test]
    fn parse_of_encode_is_identity(value in value()) {
        let bytes = value.encode();
        prop_assert_eq!(Value::parse("object", &bytes, 1 << 30).unwrap(), value);
    }

    #[test]
    fn encoding_is_that_of_another_implementation(value in value()) {
        let bytes = value.encode();
        let parsed: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let mut other = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut other, canon_json::CanonicalFormatter::new());
        serde::Serialize::serialize(&parsed, &mut serializer).unwrap();
        prop_assert_eq!(bytes, other);
    }

    #[test]
    fn one_byte_altered_is_refused_or_another_value(value in value(), place: prop::sample::Index, byte: u8) {
        let bytes = value.encode();
        let mut altered = bytes.clone();
        let place = place.index(altered.len());
        altered[place] = byte;
        match Value::parse("object", &altered, 1 << 30) {
            Ok(parsed) => prop_assert_eq!(parsed == value, altered == bytes),
            Err(_) => prop_assert_ne!(altered, bytes),
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Value::parse("object", &bytes, 1 << 20);
    }
}
