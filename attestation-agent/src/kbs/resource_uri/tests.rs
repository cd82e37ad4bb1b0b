use proptest::prelude::*;

use super::*;

fn refused(uri: &str) -> bool {
    ResourceUri::parse(uri).is_err_and(|fault| fault.code() == "KBS_RESOURCE_URI_INVALID")
}

#[test]
fn uris_become_paths() {
    for (uri, path, shown) in [
        ("kbs:///a/b/c", "/kbs/v0/resource/a/b/c", "kbs:///a/b/c"),
        ("kbs://kbs.example:8080/a/b/c", "/kbs/v0/resource/a/b/c", "kbs:///a/b/c"),
        ("kbs://[::1]:80/A-1/_b/c.d", "/kbs/v0/resource/A-1/_b/c.d", "kbs:///A-1/_b/c.d"),
        ("kbs:///a/b/c?v=1", "/kbs/v0/resource/a/b/c?v=1", "kbs:///a/b/c?v=1"),
        (
            "kbs+nebula-ca:///credential?n=x%20y",
            "/kbs/v0/nebula-ca/credential?n=x%20y",
            "kbs+nebula-ca:///credential?n=x%20y",
        ),
        ("kbs+resource:///a/b/c", "/kbs/v0/resource/a/b/c", "kbs:///a/b/c"),
    ] {
        let read = ResourceUri::parse(uri).unwrap();
        assert_eq!(read.request_path(), path);
        assert_eq!(read.to_string(), shown);
        assert_eq!(ResourceUri::parse(shown).unwrap(), read);
    }
}

#[test]
fn evil_caller_leaves_the_path() {
    for uri in [
        "kbs:///../b/c",
        "kbs:///a/./c",
        "kbs:///a/b/.c",
        "kbs:///a//c",
        "kbs:///a/b/",
        "kbs:////a/b/c",
        "kbs:///a/b/c%2f..",
        "kbs:///a/b/c#d",
        "kbs:///a/b/c d",
        "kbs:///a/b/\u{e9}",
        "kbs:///a\\b/c/d",
    ] {
        assert!(refused(uri), "{uri}");
    }
    assert!(refused(&format!("kbs:///a/b/{}", "c".repeat(256))));
}

#[test]
fn evil_caller_names_another_number_of_segments() {
    for uri in ["kbs:///a", "kbs:///a/b", "kbs:///a/b/c/d", "kbs+resource:///a/b"] {
        assert!(refused(uri), "{uri}");
    }
    assert!(refused(&format!("kbs+p://{}", "/a".repeat(17))));
    assert!(!refused(&format!("kbs+p://{}", "/a".repeat(16))));
}

#[test]
fn evil_caller_leaves_the_plugin() {
    for uri in ["kbs+:///a", "kbs+../auth:///a", "kbs+A:///a", "kbs+a+b:///a", "kbs+a/b:///c"] {
        assert!(refused(uri), "{uri}");
    }
}

#[test]
fn evil_caller_hides_text_in_the_host() {
    for uri in ["kbs://a b/a/b/c", "kbs://user@host/a/b/c", "kbs://h\r\n/a/b/c", "kbs://h?x/a/b/c"] {
        assert!(refused(uri), "{uri}");
    }
}

#[test]
fn evil_caller_ends_the_request_line() {
    for uri in [
        "kbs:///a/b/c?",
        "kbs:///a/b/c?a b",
        "kbs:///a/b/c?x\r\nHost: y",
        "kbs:///a/b/c?a#b",
        "kbs:///a/b/c?a?b",
    ] {
        assert!(refused(uri), "{uri}");
    }
}

#[test]
fn evil_caller_names_a_huge_uri() {
    assert!(refused(&format!("kbs+p:///a?{}", "q".repeat(2_048))));
    assert!(!refused(&format!("kbs+p:///a?{}", "q".repeat(2_000))));
}

#[test]
fn other_schemes_are_refused() {
    for uri in ["", "kbs:/a/b/c", "http:///a/b/c", "KBS:///a/b/c", "kbsx:///a/b/c", "x+kbs:///a", "kbs://"] {
        assert!(refused(uri), "{uri}");
    }
}

proptest! {
    #[test]
    fn what_is_accepted_reads_back(uri in "kbs(\\+[a-z]{1,3})?://[a-z.]{0,4}(/[a-zA-Z._-]{1,3}){1,4}(\\?[a-z=&%]{0,4})?") {
        if let Ok(read) = ResourceUri::parse(&uri) {
            prop_assert_eq!(ResourceUri::parse(&read.to_string()).unwrap(), read);
        }
    }

    #[test]
    fn a_path_is_one_request_target(uri in "kbs(\\+[a-z-]{0,3})?://[ -~\\r\\n]{0,24}") {
        if let Ok(read) = ResourceUri::parse(&uri) {
            let path = read.request_path();
            prop_assert!(path.starts_with("/kbs/v0/"));
            prop_assert!(!path.contains("..") || !path.split(['/', '?']).any(|part| part == ".."));
            prop_assert!(path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
        }
    }
}
