//! Administrators, paths, methods, limits, and the end of the process.

use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use crate::client::{Guest, bearer, header};
use crate::process::{ADMIN, ALLOW, SECRET, Setup};

fn policy(text: &str) -> Vec<u8> {
    json!({"policy": URL_SAFE_NO_PAD.encode(text), "policy_id": "default"}).to_string().into_bytes()
}

#[test]
fn evil_client_uses_the_admin_api() {
    let broker = Setup::default().flag("--insecure-allow-sample").start();
    let guest = Guest::attested(&broker);
    for headers in ["", &guest.cookie, &bearer(&guest.token), &bearer("a-wrong-admin-token")] {
        for (method, path) in [
            ("POST", "resource/a/b/c"),
            ("PUT", "resource/a/b/c"),
            ("DELETE", "resource/a/b/c"),
            ("POST", "resource-policy"),
            ("GET", "resource-policy"),
            ("POST", "attestation-policy"),
            ("POST", "reference-value"),
            ("GET", "reference-value/x"),
        ] {
            let answer = broker.call(method, path, headers, &policy(ALLOW));
            assert_eq!(answer.refused(), (401, "AdminAuthAccess".to_owned()), "{method} {path}");
        }
    }
    assert_eq!(guest.get("a/b/c").variant(), "PolicyDeny");
    assert_eq!(broker.admin("POST", "resource-policy", &policy(ALLOW)).status, 200);
    assert_eq!(guest.open(&guest.get("a/b/c")).as_deref(), Some(SECRET));
    let log = broker.log();
    for secret in [ADMIN.replace(' ', "-").as_str(), &guest.token, guest.cookie.trim(), "what only"] {
        assert!(!log.contains(secret.trim_start_matches("Cookie: kbs-session-id=")), "{secret}");
    }
}

#[test]
fn administrators_set_and_delete() {
    let broker = Setup::sample().start();
    let guest = Guest::attested(&broker);
    assert_eq!(broker.admin("POST", "resource/x/y/z", b"\0\xff").status, 200);
    let file = broker.state().join("resources/x/y/z");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(guest.open(&guest.get("x/y/z")).as_deref(), Some(b"\0\xff".as_slice()));
    assert_eq!(broker.admin("DELETE", "resource/x/y/z", b"").status, 200);
    assert_eq!(broker.admin("DELETE", "resource/x/y/z", b"").variant(), "PluginInternalError");
    assert_eq!(broker.admin("PUT", "resource/x/y/z", b"").variant(), "PluginInternalError");
    assert_eq!(broker.admin("POST", "resource/../y/z", b"").variant(), "PluginInternalError");
    assert_eq!(guest.get("x/y/z").refused(), (401, "PluginInternalError".to_owned()));

    for (body, variant) in [
        (b"{}".to_vec(), "SerdeError"),
        (br#"{"policy":"*"}"#.to_vec(), "ParsePolicyError"),
        (policy("package policy\nallow if {"), "ParsePolicyError"),
        (policy("package other\ndefault allow = true"), "ParsePolicyError"),
    ] {
        assert_eq!(broker.admin("POST", "resource-policy", &body).refused(), (401, variant.to_owned()));
    }
    let shown = broker.admin("GET", "resource-policy", b"");
    assert_eq!(
        (shown.body.as_slice(), header(&shown.head, "content-type")),
        (ALLOW.as_bytes(), Some("text/xml"))
    );

    let values = STANDARD.encode(r#"{"launch":["abcde"]}"#);
    let message = json!({"version": "0.1.0", "type": "sample", "payload": values}).to_string();
    assert_eq!(broker.admin("POST", "reference-value", message.as_bytes()).status, 200);
    assert_eq!(broker.admin("GET", "reference-value/launch", b"").json(), json!(["abcde"]));
    assert_eq!(broker.admin("GET", "reference-value/none", b"").json(), json!(null));
    assert_eq!(broker.admin("POST", "reference-value", b"{}").variant(), "RvpsError");
    let text = "package policy\nimport rego.v1\nexecutables := 3 if input.sample.launch_digest in query_reference_value(\"launch\")\n";
    assert_eq!(broker.admin("POST", "attestation-policy", &policy(text)).status, 200);
    let other = json!({"policy_id": "x", "policy": ""}).to_string();
    assert_eq!(broker.admin("POST", "attestation-policy", other.as_bytes()).variant(), "PolicyEngineError");
    let claims = Guest::attested(&broker).claims();
    assert_eq!(claims["submods"]["cpu0"]["ear.status"], "affirming");
}

#[test]
fn paths_and_methods_are_those_of_the_protocol() {
    let broker = Setup::sample().start();
    let guest = Guest::attested(&broker);
    for (method, path, status, variant) in [
        ("GET", "auth", 404, "PluginNotFound"),
        ("PUT", "attest", 404, "PluginNotFound"),
        ("GET", "nothing/a/b", 404, "PluginNotFound"),
        ("GET", "", 404, "InvalidRequestPath"),
        ("GET", "resource/a/b", 401, "PluginInternalError"),
        ("GET", "resource/a/b/c/d", 401, "PluginInternalError"),
        ("GET", "resource/a/../c", 401, "PluginInternalError"),
        ("GET", "resource/.a/b/c", 401, "PluginInternalError"),
        ("GET", "resource/a/b/%63", 401, "PluginInternalError"),
    ] {
        let answer = broker.call(method, path, &guest.cookie, b"");
        assert_eq!(answer.refused(), (status, variant.to_owned()), "{method} {path}");
        assert_eq!(header(&answer.head, "content-type"), None);
    }
    assert_eq!(broker.call("GET", "resource/a/b/c", "", b"").variant(), "TokenNotFound");
    assert_eq!(broker.try_call("GET", "/healthz", "", b"").unwrap().status, 200);
    assert_eq!(broker.try_call("GET", "/other", "", b"").unwrap().status, 404);
    let body = |version: &str| format!(r#"{{"version":"{version}","tee":"tdx","extra-params":""}}"#);
    let answer = broker.call("POST", "auth", "", body("0.3.0").as_bytes());
    assert_eq!(answer.refused(), (401, "AttestationError".to_owned()));
    assert!(answer.json()["detail"].as_str().unwrap().contains("0.3.0"));
    let answer = broker.call("POST", "auth", "", b"{}");
    assert!(answer.json()["detail"].as_str().unwrap().contains("deserialize Request"));
}

#[test]
fn evil_client_sends_an_endless_body() {
    let broker = Setup::sample().start();
    let body = vec![b' '; (2 << 20) + 1];
    let answer = broker.call("POST", "auth", "", &body);
    assert_eq!((answer.status, answer.body.as_slice()), (413, b"payload reached size limit".as_slice()));
    assert!(header(&answer.head, "content-type").unwrap().starts_with("text/plain"));
    let token = bearer(&ADMIN.replace(' ', "-"));
    assert_eq!(broker.call("POST", "resource/x/y/z", &token, &body).status, 413);
    assert!(!broker.state().join("resources/x").exists());
    assert_eq!(broker.call("POST", "resource/x/y/z", &token, &body[1..]).status, 200);
}

#[test]
fn the_process_ends_cleanly_and_keeps_what_it_was_told() {
    let broker = Setup::sample().start();
    assert_eq!(broker.admin("POST", "resource/x/y/z", b"kept").status, 200);
    let guest = Guest::attested(&broker);
    let (old, cookie) = (guest.token.clone(), guest.cookie.clone());
    let state = broker.state();
    assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    let (code, directory) = broker.end();
    assert_eq!(code, Some(0));
    // Key, policy and resources are those of the directory.
    let broker =
        Setup::default().flag("--insecure-allow-sample").state(directory.path().join("state")).start();
    assert_eq!(broker.call("GET", "resource/x/y/z", &bearer(&old), b"").status, 200);
    assert_eq!(broker.admin("GET", "resource-policy", b"").body, ALLOW.as_bytes());
    // A session is not kept.
    assert_eq!(broker.call("GET", "resource/x/y/z", &cookie, b"").variant(), "TokenNotFound");
}
