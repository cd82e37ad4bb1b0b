use proptest::prelude::*;

use super::*;

const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn names_are_expanded_as_tools_expand_them() {
    let digest = format!("sha256:{HEX}");
    for (text, expanded) in [
        ("busybox", "docker.io/library/busybox".to_owned()),
        ("busybox:1.36", "docker.io/library/busybox:1.36".to_owned()),
        ("index.docker.io/busybox", "docker.io/library/busybox".to_owned()),
        ("docker.io/a/b", "docker.io/a/b".to_owned()),
        ("a/b", "docker.io/a/b".to_owned()),
        ("localhost/a", "localhost/a".to_owned()),
        ("host:5000/a:v1", "host:5000/a:v1".to_owned()),
        ("host:5000", "docker.io/library/host:5000".to_owned()),
        ("[fd00::1]:5000/a", "[fd00::1]:5000/a".to_owned()),
        ("registry.example/a__b/c-d.e---f:V_1.2-3", "registry.example/a__b/c-d.e---f:V_1.2-3".to_owned()),
    ] {
        assert_eq!(ImageName::parse(text).unwrap().to_string(), expanded);
        let pinned = format!("{text}@{digest}");
        assert_eq!(ImageName::parse(&pinned).unwrap().to_string(), format!("{expanded}@{digest}"));
    }
}

#[test]
fn evil_names_of_images() {
    let long = format!("registry.example/{}", "a".repeat(NAME_MAX));
    let longer = format!("registry.example/a:{}", "a".repeat(REFERENCE_MAX));
    for text in [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "A",
        "a b",
        "a\n",
        "a\0",
        "../a",
        "registry.example/..",
        "registry.example/a/../b",
        "registry.example/a..b",
        "registry.example/a___b",
        "registry.example/-a",
        "registry.example/a-",
        "registry.example/Upper",
        // A second spelling of a host would be another scope.
        "Registry.example/a",
        "registry.example./a",
        "-registry.example/a",
        "registry.example:/a",
        "registry.example:port/a",
        "registry.example:123456/a",
        "user@registry.example/a",
        "registry.example/a:",
        "registry.example/a:-x",
        "registry.example/a:b:c",
        "registry.example/a@",
        "registry.example/a@sha256:abc",
        "registry.example/a@md5:d41d8cd98f00b204e9800998ecf8427e",
        "https://registry.example/a",
        "registry.example:05000/a",
        "registry.example:70000/a",
        "127.1/a",
        "[fd00:0::1]/a",
        "[FD00::1]/a",
        "registry.example/ä",
        "[fd00::1/a",
        "[]/a",
        "[fd00::1]x/a",
        &long,
        &longer,
    ] {
        assert!(ImageName::parse(text).is_err(), "{text}");
    }
    let upper = format!("registry.example/a@sha256:{}", HEX.to_uppercase());
    assert!(ImageName::parse(&upper).is_err());
    assert_eq!(ImageName::parse(&longer).unwrap_err(), NameFault { expected: "at most 1024 bytes" });
}

#[test]
fn evil_second_spelling_of_a_name() {
    // However a name is made, it is looked up under one scope.
    let name = |registry, repository| ImageName::new(registry, repository, None, None);
    let expected = ImageName::parse("busybox").unwrap();
    for (registry, repository) in [
        ("docker.io", "busybox"),
        ("index.docker.io", "busybox"),
        ("registry-1.docker.io", "busybox"),
        ("index.docker.io", "library/busybox"),
    ] {
        assert_eq!(name(registry, repository).unwrap(), expected);
    }
    for registry in ["team", "", "docker.io/team", "docker.io/", "Docker.io"] {
        assert!(name(registry, "busybox").is_err(), "{registry}");
    }
}

proptest! {
    #[test]
    fn what_is_printed_reads_back(text in "[a-zA-Z0-9./:@_\\[\\]-]{0,40}") {
        if let Ok(name) = ImageName::parse(&text) {
            prop_assert_eq!(ImageName::parse(&name.to_string()), Ok(name));
        }
    }

    #[test]
    fn what_is_made_of_parts_reads_back(
        registry in "[a-z]{1,5}(\\.[a-z][a-z0-9]{0,4}){1,2}(:[1-9][0-9]{0,3})?",
        path in "[a-z0-9]{1,4}(/[a-z0-9]{1,4}){0,3}",
        tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}"),
    ) {
        let name = ImageName::new(&registry, &path, tag, None).unwrap();
        prop_assert_eq!(ImageName::parse(&name.to_string()), Ok(name));
    }
}
