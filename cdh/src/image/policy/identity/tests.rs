use serde_json::json;

use super::super::Digest;
use super::*;

fn accepts(rule: &Value, intended: &str, signed: &str) -> bool {
    let digest = Digest::sha256(b"x").to_string();
    let name = |text: &str| ImageName::parse(&text.replace("DIGEST", &digest)).unwrap();
    Identity::parse(Some(rule.clone())).unwrap().accepts(&name(intended), &name(signed))
}

#[test]
fn each_kind_accepts_what_the_page_says() {
    let exact = json!({"type": "matchExact"});
    let default = json!({"type": "matchRepoDigestOrExact"});
    let repository = json!({"type": "matchRepository"});
    let reference = json!({"type": "exactReference", "dockerReference": "r.example/a:v1"});
    let other = json!({"type": "exactRepository", "dockerRepository": "r.example/a"});
    // Columns: asked for, signed; then matchExact, matchRepoDigestOrExact, matchRepository, exactReference, exactRepository.
    for (intended, signed, expected) in [
        ("r.example/a:v1", "r.example/a:v1", [true, true, true, true, true]),
        ("r.example/a:v1", "r.example/a:v2", [false, false, true, false, true]),
        ("r.example/a:v1", "r.example/a", [false, false, true, false, true]),
        ("r.example/a:v1", "r.example/b:v1", [false, false, false, false, false]),
        ("r.example/b:v1", "r.example/a:v1", [false, false, false, true, true]),
        ("r.example/a:v1", "r.example/a/b:v1", [false, false, false, false, false]),
        ("r.example/a:v1", "r.example/a@DIGEST", [false, false, true, false, true]),
        ("r.example/a@DIGEST", "r.example/a:v1", [false, true, true, true, true]),
        ("r.example/a@DIGEST", "r.example/a@DIGEST", [true, true, true, false, true]),
        ("r.example/a@DIGEST", "r.example/a", [false, false, true, false, true]),
        ("r.example/a:v2@DIGEST", "r.example/a:v1", [false, true, true, true, true]),
        ("busybox:1", "docker.io/library/busybox:1", [true, true, true, false, false]),
        ("r.example:5000/a:v1", "r.example/a:v1", [false, false, false, true, true]),
    ] {
        let found = [&exact, &default, &repository, &reference, &other];
        let found = found.map(|rule| accepts(rule, intended, signed));
        assert_eq!(found, expected, "{intended} {signed}");
    }
}

#[test]
fn without_a_rule_it_is_repo_digest_or_exact() {
    assert_eq!(Identity::parse(None), Ok(Identity::MatchRepoDigestOrExact));
}

#[test]
fn prefixes_are_replaced() {
    let rule = |prefix, signed| json!({"type": "remapIdentity", "prefix": prefix, "signedPrefix": signed});
    let mirror = rule("mirror:5000/vendor", "vendor.example");
    assert!(accepts(&mirror, "mirror:5000/vendor/product/app:v1", "vendor.example/product/app:v1"));
    assert!(!accepts(&mirror, "mirror:5000/vendor/product/app:v1", "mirror:5000/vendor/product/app:v1"));
    assert!(!accepts(&mirror, "mirror:5000/vendor/product/app:v1", "vendor.example/product/app:v2"));
    assert!(accepts(&mirror, "mirror:5000/vendor/product/app@DIGEST", "vendor.example/product/app:v2"));
    // Elsewhere nothing is replaced.
    assert!(accepts(&mirror, "other.example/app:v1", "other.example/app:v1"));
    // A whole repository.
    let whole = rule("mirror:5000/app", "vendor.example/product/app");
    assert!(accepts(&whole, "mirror:5000/app:v1", "vendor.example/product/app:v1"));
    // What would be no name is accepted for nothing.
    let nothing = rule("mirror:5000/app", "vendor.example");
    assert!(!accepts(&nothing, "mirror:5000/app:v1", "vendor.example/app:v1"));
}

#[test]
fn evil_prefix_that_ends_inside_a_component() {
    let rule =
        json!({"type": "remapIdentity", "prefix": "mirror.example/vendor", "signedPrefix": "v.example/x"});
    assert!(accepts(&rule, "mirror.example/vendor/app:v1", "v.example/x/app:v1"));
    assert!(!accepts(&rule, "mirror.example/vendorevil/app:v1", "v.example/xevil/app:v1"));
    // A host that only begins like the other.
    let rule = json!({"type": "remapIdentity", "prefix": "mirror.example", "signedPrefix": "v.example"});
    assert!(accepts(&rule, "mirror.example/app:v1", "v.example/app:v1"));
    assert!(!accepts(&rule, "mirror.example.evil.example/app:v1", "v.example.evil.example/app:v1"));
    let rule = json!({"type": "remapIdentity", "prefix": "localhost", "signedPrefix": "v.example"});
    assert!(!accepts(&rule, "localhost:5000/app:v1", "v.example:5000/app:v1"));
}

#[test]
fn evil_rules_about_names() {
    for rule in [
        json!("matchExact"),
        json!({}),
        json!({"type": "matchAnything"}),
        json!({"type": "matchexact"}),
        json!({"type": "matchExact", "x": 1}),
        json!({"type": "exactReference"}),
        json!({"type": "exactReference", "dockerReference": "r.example/a"}),
        json!({"type": "exactReference", "dockerReference": "r.example/a:v1", "dockerRepository": "r.example/a"}),
        json!({"type": "exactRepository", "dockerRepository": "r.example/a:v1"}),
        json!({"type": "exactRepository", "dockerRepository": ""}),
        json!({"type": "remapIdentity", "prefix": "r.example"}),
        json!({"type": "remapIdentity", "prefix": "", "signedPrefix": "r.example"}),
        json!({"type": "remapIdentity", "prefix": "r.example/", "signedPrefix": "r.example"}),
        json!({"type": "remapIdentity", "prefix": "r.example/a:v1", "signedPrefix": "r.example"}),
    ] {
        assert!(Identity::parse(Some(rule.clone())).is_err(), "{rule}");
    }
}
