use super::super::testing::{atomic_payload, cosign_payload};
use super::*;

#[test]
fn payloads_of_both_kinds() {
    let digest = Digest::sha256(b"manifest");
    let payload = Payload::parse(PayloadKind::Atomic, &atomic_payload(&digest, "busybox:1")).unwrap();
    assert_eq!(
        (payload.digest, payload.identity.to_string().as_str()),
        (digest.clone(), "docker.io/library/busybox:1")
    );
    // As cosign writes it, byte for byte.
    let text = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"registry.example/app"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
    );
    assert_eq!(text.as_bytes(), cosign_payload(&digest, "registry.example/app"));
    let with = text.replace("null", r#"{"creator":"x","timestamp":1,"team":{"a":[1]}}"#);
    for text in [&text, &with, &text.replace(r#","optional":null"#, "")] {
        let payload = Payload::parse(PayloadKind::Cosign, text.as_bytes()).unwrap();
        assert_eq!(
            (&payload.digest, payload.identity.to_string().as_str()),
            (&digest, "registry.example/app")
        );
    }
}

#[test]
fn evil_signature_of_another_type() {
    let digest = Digest::sha256(b"manifest");
    let expected = |kind, payload: Vec<u8>| Payload::parse(kind, &payload).unwrap_err().expected;
    let atomic = atomic_payload(&digest, "busybox:1");
    assert_eq!(expected(PayloadKind::Cosign, atomic), "cosign container image signature");
    let cosign = cosign_payload(&digest, "busybox:1");
    assert_eq!(expected(PayloadKind::Atomic, cosign), "atomic container signature");
}

#[test]
fn evil_payloads_that_say_two_things() {
    let digest = Digest::sha256(b"manifest");
    let other = Digest::sha256(b"other");
    let good = String::from_utf8(cosign_payload(&digest, "registry.example/app")).unwrap();
    let entry = format!(r#""docker-manifest-digest":"{digest}""#);
    for text in [
        good.replace(&entry, &format!(r#"{entry},"docker-manifest-digest":"{other}""#)),
        good.replace(&entry, &format!(r#"{entry},"docker-manifest-diges\u0074":"{other}""#)),
        good.replace(&entry, &format!(r#"{entry},"x":1"#)),
        good.replace(r#""critical":{"#, r#""critical":{"expires":1,"#),
        good.replace(r#"{"critical":"#, r#"{"x":1,"critical":"#),
        good.replace(r#""docker-reference":"#, r#""x":1,"docker-reference":"#),
        good.replace(&digest.to_string(), &digest.to_string().to_uppercase()),
        good.replace(&digest.to_string(), digest.hex()),
        good.replace("sha256", "md5"),
        good.replace("registry.example/app", ""),
        good.replace("\"registry.example/app\"", "[\"registry.example/app\"]"),
        good.replace("null", "1"),
        format!("{good}{good}"),
        format!("[{good}]"),
        format!("{good}{}", " ".repeat(PAYLOAD_MAX)),
        String::new(),
    ] {
        assert!(Payload::parse(PayloadKind::Cosign, text.as_bytes()).is_err(), "{text}");
    }
}
