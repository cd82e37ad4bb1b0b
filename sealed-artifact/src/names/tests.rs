use super::*;

#[test]
fn evil_numbers_outside_the_limits_are_refused() {
    for bytes in [0, 1, 32_768, 65_535, 65_537, 98_304, 8_388_608, 1 << 33, u64::MAX] {
        assert_eq!(SegmentSize::parse(bytes).unwrap_err().code(), "LIMIT_EXCEEDED", "{bytes}");
    }
    let sizes: Vec<u64> = (16..=22).map(|power| 1 << power).collect();
    assert!(sizes.iter().all(|bytes| SegmentSize::parse(*bytes).is_ok_and(|size| size.bytes() == *bytes)));
    for text in [String::new(), "a".repeat(129)] {
        assert_eq!(Family::parse(&text).unwrap_err().code(), "LIMIT_EXCEEDED");
        assert_eq!(EnvironmentTag::parse(&text).unwrap_err().code(), "LIMIT_EXCEEDED");
    }
    assert_eq!(PayloadName::parse(&"a".repeat(256)).unwrap_err().code(), "LIMIT_EXCEEDED");
    assert!(PayloadName::parse(&"a".repeat(255)).is_ok());
}

#[test]
fn evil_names_with_foreign_characters_are_refused() {
    for text in ["a b", "a\n", ".a", "-a", "/a", "_a", "é", "a\0", "a:b", "a\\b"] {
        assert_eq!(Family::parse(text).unwrap_err().code(), "MALFORMED", "{text}");
        assert_eq!(EnvironmentTag::parse(text).unwrap_err().code(), "MALFORMED", "{text}");
    }
    for text in ["a", "0", "acme/ranker", "A.b_c-d/e"] {
        assert!(Family::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn evil_payload_names_that_leave_their_directory_are_refused() {
    for text in [".", "..", "/", "a/b", "../a", "a\0", "a\u{1b}", "a\u{85}", "\n"] {
        assert_eq!(PayloadName::parse(text).unwrap_err().code(), "MALFORMED", "{text:?}");
    }
    for text in ["a", "...", ".hidden", "модель.bin", "a b"] {
        assert!(PayloadName::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn media_types_are_restricted_names() {
    for text in ["text", "text/", "/plain", "text/pl ain", "a/b/c", "a/b;c=d", "a/b+sealed", "+a/b"] {
        assert_eq!(MediaType::parse(text).unwrap_err().code(), "MALFORMED", "{text}");
    }
    for text in ["application/octet-stream", "application/vnd.a.b.v1+json", "x/y+sealed2"] {
        assert!(MediaType::parse(text).is_ok(), "{text}");
    }
}
