use super::*;

fn refusal(name: &str) -> Refusal {
    let body = serde_json::json!({"type": format!("{PREFIX}{name}"), "detail": "why"});
    Refusal::parse(401, body.to_string().as_bytes()).unwrap()
}

const NAMES: [(&str, &str); 14] = [
    ("AdminAuthAccess", "KBS_REFUSED_OTHER"),
    ("AttestationError", "KBS_REFUSED_ATTESTATION"),
    ("InvalidRequestPath", "KBS_REFUSED_PATH"),
    ("JweError", "KBS_REFUSED_KEY"),
    ("ParsePolicyError", "KBS_REFUSED_OTHER"),
    ("PluginInternalError", "KBS_REFUSED_RESOURCE"),
    ("PluginNotFound", "KBS_REFUSED_PATH"),
    ("PolicyDeny", "KBS_REFUSED_POLICY"),
    ("PolicyEngineError", "KBS_REFUSED_OTHER"),
    ("PrometheusError", "KBS_REFUSED_OTHER"),
    ("RvpsError", "KBS_REFUSED_OTHER"),
    ("SerdeError", "KBS_REFUSED_OTHER"),
    ("TokenNotFound", "KBS_REFUSED_NO_TOKEN"),
    ("TokenVerifierError", "KBS_REFUSED_TOKEN"),
];

#[test]
fn every_variant_is_known() {
    for (name, code) in NAMES {
        let refusal = refusal(name);
        assert_eq!(refusal.variant().to_string(), name);
        assert!(!matches!(refusal.variant(), Variant::Other(_)), "{name}");
        assert_eq!(refusal.code(), code, "{name}");
    }
    assert_eq!(refusal("Brand/New").variant(), &Variant::Other("Brand/New".to_owned()));
}

#[test]
fn only_a_lost_session_is_worth_a_handshake() {
    for (name, _) in NAMES {
        let lost = name == "TokenNotFound" || name == "TokenVerifierError";
        let expected = if lost { Class::Reattest } else { Class::Denied };
        assert_eq!(refusal(name).class(Hop::Resource), expected, "{name}");
        for hop in [Hop::Auth, Hop::Attest] {
            assert_eq!(refusal(name).class(hop), Class::Denied, "{name}");
        }
    }
}

#[test]
fn evil_broker_writes_into_the_log() {
    let detail = format!("line\n\u{1b}[31mred\u{202e}{}", "x".repeat(10_000));
    let body = serde_json::json!({"type": format!("{PREFIX}{}\n", "y".repeat(1_000)), "detail": detail});
    let refusal = Refusal::parse(404, body.to_string().as_bytes()).unwrap();
    let message = refusal.to_string();
    assert!(message.len() < 400, "{}", message.len());
    assert!(message.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{message}");
}

#[test]
fn other_bodies_are_not_errors_of_the_protocol() {
    for body in ["", "<html>{</html>", "{}", r#"{"type":"PolicyDeny","detail":""}"#, r#"{"type":7}"#] {
        assert_eq!(
            Refusal::parse(401, body.as_bytes()).unwrap_err().code(),
            "KBS_ERROR_BODY_INVALID",
            "{body}"
        );
    }
}
