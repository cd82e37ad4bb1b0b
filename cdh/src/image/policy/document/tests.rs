use serde_json::json;

use super::super::testing::{Openssl, base64};
use super::*;

fn code(policy: &Value) -> &'static str {
    match Document::parse(policy.to_string().as_bytes()) {
        Ok(_) => "",
        Err(error) => error.code(),
    }
}

/// A policy with this requirement for everything.
fn with(requirement: &Value) -> Value {
    json!({"default": [requirement], "transports": {}})
}

const MALFORMED: &str = "IMAGE_POLICY_MALFORMED";
const UNSUPPORTED: &str = "IMAGE_POLICY_UNSUPPORTED";

#[test]
fn policies_as_others_write_them() {
    let key = Openssl::p256().public();
    let mut lines = base64(key.as_bytes());
    lines.insert_str(76, "\r\n");
    lines.push('\n');
    for requirement in [
        json!({"type": "sigstoreSigned", "keyData": lines}),
        json!({"type": "reject"}),
        json!({"type": "insecureAcceptAnything"}),
        json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/etc/pki/key.gpg"}),
        json!({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["/a", "kbs:///default/gpg-public-config/test"]}),
        json!({"type": "sigstoreSigned", "keyPath": "kbs:///default/cosign-public-key/test"}),
        json!({"type": "sigstoreSigned", "keyPath": "file:///etc/key.pub"}),
        json!({"type": "sigstoreSigned", "keyData": key}),
        json!({"type": "sigstoreSigned", "keyData": base64(key.as_bytes())}),
        json!({"type": "sigstoreSigned", "keyDatas": [key, base64(key.as_bytes())], "signedIdentity": {"type": "matchRepository"}}),
    ] {
        assert_eq!(code(&with(&requirement)), "", "{requirement}");
    }
    let transports = json!({
        "docker": {"": [{"type": "reject"}], "registry.example/ns": [{"type": "reject"}, {"type": "reject"}]},
        "docker-daemon": {"": [{"type": "insecureAcceptAnything"}], "any / scope": [{"type": "reject"}]},
        "oci": {},
    });
    let policy = json!({"default": [{"type": "reject"}], "transports": transports});
    let document = Document::parse(policy.to_string().as_bytes()).unwrap();
    assert_eq!(document.docker.keys().collect::<Vec<_>>(), ["", "registry.example/ns"]);
}

#[test]
fn evil_policies_of_other_forms() {
    for policy in [
        json!([]),
        json!({}),
        json!({"default": [{"type": "reject"}]}),
        json!({"transports": {}}),
        json!({"default": [{"type": "reject"}], "transports": {}, "x": 1}),
        json!({"default": [], "transports": {}}),
        json!({"default": {"type": "reject"}, "transports": {}}),
        json!({"default": [{"type": "reject"}], "transports": []}),
        json!({"default": [{"type": "reject"}], "transports": {"docker": []}}),
        json!({"default": [{"type": "reject"}], "transports": {"docker": {"": []}}}),
        json!({"default": ["reject"], "transports": {}}),
        with(&json!({})),
        with(&json!({"type": "accept"})),
        with(&json!({"type": "Reject"})),
        with(&json!({"type": ["reject"]})),
        with(&json!({"type": "reject", "signedIdentity": {"type": "matchExact"}})),
        with(&json!({"type": "insecureAcceptAnything", "keyPath": "/a"})),
        with(&json!({"type": "signedBy", "keyPath": "/a"})),
        with(&json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/a", "x": 1})),
        with(&json!({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": []})),
        with(&json!({"type": "signedBy", "keyType": "GPGKeys", "keyDatas": ["AA=="]})),
        with(&json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/a", "signedIdentity": null})),
        with(&json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "relative"})),
        with(&json!({"type": "sigstoreSigned", "keyPath": "https://keys.example/key.pub"})),
        with(&json!({"type": "sigstoreSigned", "keyPath": "file://host/key.pub"})),
        with(&json!({"type": "sigstoreSigned", "keyPath": "/etc/../key.pub"})),
        with(&json!({"type": "sigstoreSigned", "keyPath": "kbs:///a/b"})),
        with(&json!({"type": "sigstoreSigned", "keyPath": 1})),
        with(&json!({"type": "sigstoreSigned", "keyPaths": vec!["/a"; KEYS_MAX + 1]})),
        json!({"default": vec![json!({"type": "reject"}); REQUIREMENTS_MAX + 1], "transports": {}}),
    ] {
        assert_eq!(code(&policy), MALFORMED, "{policy}");
    }
    for text in ["", "{\"default\": [{\"type\": \"reject\"}], \"default\": [], \"transports\": {}}"] {
        assert_eq!(Document::parse(text.as_bytes()).unwrap_err().code(), MALFORMED);
    }
    // A requirement with its type twice: one reader sees the one, one the other.
    let twice = r#"{"default": [{"type": "reject", "type": "insecureAcceptAnything"}], "transports": {}}"#;
    assert_eq!(Document::parse(twice.as_bytes()).unwrap_err().code(), MALFORMED);
    let long = format!("{}{}", with(&json!({"type": "reject"})), " ".repeat(POLICY_MAX));
    assert_eq!(Document::parse(long.as_bytes()).unwrap_err().code(), MALFORMED);
}

#[test]
fn evil_transport_that_nobody_knows() {
    for transport in ["dokcer", "Docker", "", "registry"] {
        let policy = json!({"default": [{"type": "reject"}], "transports": {transport: {}}});
        assert_eq!(code(&policy), MALFORMED, "{transport}");
    }
}

#[test]
fn evil_policy_with_too_many_scopes() {
    let policy = |count: usize| {
        let scopes = (0..count).map(|number| (format!("r{number}.example"), json!([{"type": "reject"}])));
        let scopes: serde_json::Map<_, _> = scopes.collect();
        json!({"default": [{"type": "reject"}], "transports": {"docker": scopes}})
    };
    assert_eq!(code(&policy(SCOPES_MAX)), "");
    assert_eq!(code(&policy(SCOPES_MAX + 1)), MALFORMED);
}

#[test]
fn evil_scope_that_matches_nothing() {
    for scope in ["Registry.example", "registry.example/", "*", "https://registry.example", " "] {
        let docker = json!({scope: [{"type": "reject"}]});
        let policy =
            json!({"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": docker}});
        assert_eq!(code(&policy), MALFORMED, "{scope}");
    }
}

#[test]
fn evil_keys_of_an_unsupported_type() {
    for key_type in ["signedByGPGKeys", "X509Certificates", "signedByX509CAs", ""] {
        let requirement = json!({"type": "signedBy", "keyType": key_type, "keyPath": "/a"});
        assert_eq!(code(&with(&requirement)), UNSUPPORTED, "{key_type}");
    }
}

#[test]
fn evil_demand_that_is_not_implemented() {
    for (name, value) in [
        ("fulcio", json!({"caPath": "/a", "oidcIssuer": "https://i.example", "subjectEmail": "a@example"})),
        ("pki", json!({"caRootsPath": "/a"})),
        ("rekorPublicKeyData", json!("AA==")),
        ("rekorPublicKeyDatas", json!(["AA=="])),
        ("rekorPublicKeyPath", json!("/a")),
        ("rekorPublicKeyPaths", json!(["/a"])),
    ] {
        let mut requirement = json!({"type": "sigstoreSigned", "keyPath": "/a"});
        requirement[name] = value;
        assert_eq!(code(&with(&requirement)), UNSUPPORTED, "{name}");
    }
    assert_eq!(code(&with(&json!({"type": "signedBaseLayer", "baseLayerIdentity": {}}))), UNSUPPORTED);
}

#[test]
fn evil_requirement_with_two_sources_of_keys() {
    let key = Openssl::p256().public();
    for requirement in [
        json!({"type": "sigstoreSigned"}),
        json!({"type": "sigstoreSigned", "keyPath": "/a", "keyData": key}),
        json!({"type": "sigstoreSigned", "keyPaths": ["/a"], "keyPath": "/a"}),
        json!({"type": "sigstoreSigned", "keyDatas": [key], "keyPaths": ["/a"]}),
        json!({"type": "signedBy", "keyType": "GPGKeys"}),
        json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/a", "keyPaths": ["/b"]}),
    ] {
        assert_eq!(code(&with(&requirement)), MALFORMED, "{requirement}");
    }
}

#[test]
fn evil_keys_in_the_policy() {
    for (requirement, expected) in [
        (json!({"type": "sigstoreSigned", "keyData": ""}), "IMAGE_COSIGN_KEY_INVALID"),
        (json!({"type": "sigstoreSigned", "keyData": "no base64!"}), "IMAGE_COSIGN_KEY_INVALID"),
        (json!({"type": "signedBy", "keyType": "GPGKeys", "keyData": ""}), "IMAGE_PGP_NO_KEY"),
        (json!({"type": "signedBy", "keyType": "GPGKeys", "keyData": "AAAA"}), "IMAGE_PGP_MALFORMED"),
    ] {
        assert_eq!(code(&with(&requirement)), expected, "{requirement}");
    }
    let private = String::from_utf8(Openssl::p256().private()).unwrap();
    assert_eq!(
        code(&with(&json!({"type": "sigstoreSigned", "keyData": private}))),
        "IMAGE_COSIGN_PRIVATE_KEY"
    );
}
