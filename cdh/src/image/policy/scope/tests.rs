use super::*;

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

#[test]
fn scopes_come_in_the_documented_order() {
    assert_eq!(
        scopes(&name("a.b.example:5000/ns/sub/app:v1")),
        [
            "a.b.example:5000/ns/sub/app:v1",
            "a.b.example:5000/ns/sub/app",
            "a.b.example:5000/ns/sub",
            "a.b.example:5000/ns",
            "a.b.example:5000",
            "*.b.example",
            "*.example",
        ]
    );
    assert_eq!(
        scopes(&name("busybox:1")),
        [
            "docker.io/library/busybox:1",
            "docker.io/library/busybox",
            "docker.io/library",
            "docker.io",
            "*.io"
        ]
    );
    assert_eq!(scopes(&name("localhost/a")), ["localhost/a", "localhost"]);
    assert_eq!(scopes(&name("[fd00::1]:5000/a")), ["[fd00::1]:5000/a", "[fd00::1]:5000"]);
}

#[test]
fn a_tag_beside_a_digest_opens_no_scope() {
    let digest = Digest::sha256(b"x");
    let all = scopes(&name(&format!("registry.example/app:trusted@{digest}")));
    assert_eq!(all.first().unwrap(), &format!("registry.example/app@{digest}"));
    assert!(all.iter().all(|scope| !scope.contains("trusted")));
}

#[test]
fn scopes_that_an_image_can_be_in() {
    let digest = format!("registry.example/a/b@{}", Digest::sha256(b"x"));
    for scope in [
        "registry.example",
        "registry.example:5000",
        "localhost/a",
        "*.example",
        "registry.example/a/b:v1",
        &digest,
    ] {
        assert!(is_scope(scope), "{scope}");
    }
    for scope in [
        "*",
        "*.",
        "a*.example",
        "*.example:5000",
        "*.example/a",
        // Names that are not expanded: both are on the default registry.
        "busybox",
        "team/app",
        // Another name of it, which no image keeps.
        "index.docker.io/library/busybox",
        "registry.example/",
        "registry.example/a/",
        "registry.example//a",
        "registry.example/A",
        "Registry.example",
        "registry.example/a:",
        "registry.example/a@sha256:1",
        "https://registry.example",
        "registry.example/a b",
    ] {
        assert!(!is_scope(scope), "{scope}");
    }
}
