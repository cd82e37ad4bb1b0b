use proptest::prelude::*;
use serde_json::Value;

use super::*;

#[test]
fn evil_broker_repeats_a_member() {
    for text in [r#"{"a":1,"a":1}"#, r#"{"a":{"b":1,"b":2}}"#, r#"[{"a":1,"\u0061":2}]"#] {
        assert!(parse::<Value>(text.as_bytes()).is_err(), "{text}");
    }
    assert!(parse::<Value>(br#"{"a":{"a":[1.5,-1,null,true,"a"]}}"#).is_ok());
}

#[test]
fn evil_broker_writes_an_array_for_an_object() {
    #[derive(serde::Deserialize)]
    struct One {
        a: u8,
    }
    assert_eq!(parse::<One>(br#"{"a":1}"#).unwrap().a, 1);
    for text in ["[1]", "1", "null", "\"a\"", ""] {
        assert!(parse::<One>(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn causes_repeat_nothing_of_the_text() {
    for text in [r#"{"token":"hunter2","token":1}"#, r#"["hunter2"]"#, r#"{"hunter2":"#, "hunter2"] {
        let cause = parse::<std::collections::BTreeMap<u8, u8>>(text.as_bytes()).unwrap_err();
        assert!(!cause.to_string().contains("hunter2"), "{cause}");
    }
}

#[test]
fn evil_broker_nests_without_end() {
    let text = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    assert!(parse::<Value>(&text).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let ours = parse::<Value>(&bytes).is_ok();
        prop_assert!(!ours || serde_json::from_slice::<Value>(&bytes).is_ok());
    }
}
