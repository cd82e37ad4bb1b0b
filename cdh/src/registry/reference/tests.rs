use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn references_are_normalised() {
    for (text, normal) in [
        ("busybox", "docker.io/library/busybox:latest"),
        ("acme/ranker", "docker.io/acme/ranker:latest"),
        ("docker.io/busybox:1", "docker.io/library/busybox:1"),
        ("index.docker.io/acme/x", "docker.io/acme/x:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x:v1", "localhost:5000/x:v1"),
        ("Registry.Example/a/b__c.d-e--f:V_1.2-x", "registry.example/a/b__c.d-e--f:V_1.2-x"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        ("[0:0::1]/a", "[::1]/a:latest"),
    ] {
        assert_eq!(Reference::parse(text).unwrap().to_string(), normal, "{text}");
    }
    let pinned = Reference::parse(&format!("r.example/a@sha256:{HEX}")).unwrap();
    assert_eq!((pinned.tag(), pinned.digest()), (None, Some(&Digest::of(b""))));
    let both = Reference::parse(&format!("r.example/a:v1@sha256:{HEX}")).unwrap();
    assert_eq!((both.tag(), both.selector()), (Some("v1"), format!("sha256:{HEX}")));
}

/// A host in upper case is one to Docker; written in its one form it would be a directory at another registry.
#[test]
fn evil_reference_that_changes_its_meaning() {
    for text in
        ["vDA/j", "ACME/server:v1", "Localhost/a", "LOCALHOST:5000/a", "R.example/a", "[2001:DB8::1]/a"]
    {
        match Reference::parse(text) {
            Ok(reference) => {
                assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference, "{text}")
            }
            Err(error) => assert_eq!(error.code(), "REGISTRY_REFERENCE", "{text}"),
        }
    }
    assert_eq!(Reference::parse("vDA/j").unwrap_err().code(), "REGISTRY_REFERENCE");
    assert_eq!(Reference::parse("Localhost/a").unwrap().registry(), "localhost");
}

#[test]
fn evil_references_are_refused() {
    let long = "a".repeat(256);
    let huge = format!("r.example/{}", "a/".repeat(600));
    for refused in [
        "",
        ":",
        "@",
        "/",
        "a/",
        "/a",
        "a//b",
        "r.example/",
        "r.example/A",
        "r.example/a:",
        "r.example/a:.x",
        "r.example/a:b/c:d e",
        "r.example/a b",
        "r.example/../b",
        "r.example/a/./b",
        "r.example/a_",
        "r.example/_a",
        "r.example/a..b",
        "r.example/a___b",
        "r.example/a?x=1",
        "r.example/a#b",
        "r.example/a%2e",
        "r.example:0/a",
        "r.example:70000/a",
        "r.example:05/a",
        "user:pass@r.example/a",
        "user@r.example/a",
        "https://r.example/a",
        "r..example/a",
        "-r.example/a",
        "127.1:80/a",
        "0x7f.1/a",
        "2130706433.1/a",
        "127.0.0.01:5/a",
        "[::1/a",
        "[::1]x/a",
        "[fe80::1%25eth0]/a",
        "r.example/a@sha256:00",
        "r.example/a@",
        "r.exämple/a",
        "r.example/a\n",
        "r.example/a\0",
        long.as_str(),
        huge.as_str(),
    ] {
        assert_eq!(Reference::parse(refused).unwrap_err().code(), "REGISTRY_REFERENCE", "{refused:?}");
    }
}

#[test]
fn names_change_and_tags_stay() {
    let original = Reference::parse("docker.io/acme/x:v2").unwrap();
    let mirrored = original.renamed("mirror.example:5000/hub/acme/x").unwrap();
    assert_eq!(mirrored.to_string(), "mirror.example:5000/hub/acme/x:v2");
    assert_eq!(original.pinned(Digest::of(b"")).to_string(), format!("docker.io/acme/x@sha256:{HEX}"));
}

proptest! {
    #[test]
    fn what_is_printed_is_read_again(
        host in "([a-z][a-z0-9]{0,5}\\.){1,2}[a-z]{2,4}(:[1-9][0-9]{0,3})?",
        path in "[a-z0-9]{1,5}((\\.|_|__|-{1,3}|/)[a-z0-9]{1,5}){0,4}",
        tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
        pinned in any::<bool>(),
    ) {
        let mut text = format!("{host}/{path}");
        if let Some(tag) = &tag {
            text.push_str(&format!(":{tag}"));
        }
        if pinned {
            text.push_str(&format!("@sha256:{HEX}"));
        }
        let reference = Reference::parse(&text).unwrap();
        prop_assert_eq!(reference.name(), format!("{host}/{path}"));
        prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
    }

    #[test]
    fn evil_text_never_panics_and_never_leaves_its_grammar(text in "\\PC{0,80}") {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert!(is_repository(reference.repository()));
            prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
        }
    }
}
