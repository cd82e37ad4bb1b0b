use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::kbs::tee_key::tests::{vector_key, vectors};
use crate::kbs::tee_key::{TeeKey, TeeKeyKind};
use crate::report_data::Claim;

const COOKIE: &str = "kbs-session-id=0123456789abcdef0123456789abcdef; Expires=Sun, 22 Nov 2026 02:00:00 GMT";

struct Given {
    status: u16,
    cookies: Vec<Zeroizing<String>>,
    body: Vec<u8>,
}

impl Given {
    fn ok(body: &Value) -> Self {
        Self {
            status: 200,
            cookies: vec![Zeroizing::new(COOKIE.to_owned())],
            body: body.to_string().into_bytes(),
        }
    }

    fn cookies(mut self, cookies: &[&str]) -> Self {
        self.cookies = cookies.iter().map(|text| Zeroizing::new((*text).to_owned())).collect();
        self
    }

    fn answer(&self) -> Answer<'_> {
        Answer { status: self.status, set_cookie: &self.cookies, body: &self.body }
    }
}

fn challenge(given: &Given) -> Result<Challenged, KbsError> {
    let (waiting, _) = Start::new("tdx").unwrap().request().unwrap();
    waiting.answer(&given.answer())
}

fn good_challenge() -> Given {
    Given::ok(&json!({"nonce": vectors()["runtime_data"]["nonce"], "extra-params": ""}))
}

fn awaiting_token() -> AwaitingToken {
    let bound = challenge(&good_challenge()).unwrap().bind(vector_key("P-256").public()).unwrap();
    bound.attestation(&Value::Null, None).unwrap().0
}

fn token(exp: u64) -> String {
    use base64::Engine as _;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{exp}}}"));
    format!("e30.{claims}.c2ln")
}

fn code<T: std::fmt::Debug>(result: Result<T, KbsError>) -> &'static str {
    result.unwrap_err().code()
}

#[test]
fn requests_are_those_of_the_protocol() {
    let (waiting, request) = Start::new("snp").unwrap().request().unwrap();
    assert_eq!((request.method(), request.path()), (Method::Post, "/kbs/v0/auth"));
    let expected =
        json!({"version": "0.4.0", "tee": "snp", "extra-params": {"supported-hash-algorithms": ["sha384"]}});
    assert_eq!(serde_json::from_slice::<Value>(request.body()).unwrap(), expected);
    assert_eq!((request.cookie(), request.authorization()), (None, None));

    let given = good_challenge();
    let bound = waiting.answer(&given.answer()).unwrap().bind(vector_key("P-256").public()).unwrap();
    let evidence = json!({"quote": "AA==", "cc_eventlog": null});
    let (waiting, request) = bound.attestation(&evidence, Some("algorithm = \"sha384\"\n")).unwrap();
    assert_eq!((request.method(), request.path()), (Method::Post, "/kbs/v0/attest"));
    let cookie = "kbs-session-id=0123456789abcdef0123456789abcdef";
    assert_eq!(request.cookie(), Some(cookie));
    let expected = json!({
        "init-data": {"format": "toml", "body": "algorithm = \"sha384\"\n"},
        "runtime-data": {
            "nonce": vectors()["runtime_data"]["nonce"],
            "tee-pubkey": vectors()["P-256"]["tee_pubkey_jwk"],
        },
        "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
    });
    assert_eq!(serde_json::from_slice::<Value>(request.body()).unwrap(), expected);

    let (cookie_after, token) = waiting
        .answer(&Given::ok(&json!({"token": token(100)})).cookies(&[]).answer(), 99)
        .unwrap()
        .into_parts();
    let uri = ResourceUri::parse("kbs:///a/b/c").unwrap();
    let request = resource(&uri, Credential::Session(&cookie_after));
    assert_eq!((request.method(), request.path()), (Method::Get, "/kbs/v0/resource/a/b/c"));
    assert_eq!((request.cookie(), request.authorization()), (Some(cookie), None));
    let request = resource(&uri, Credential::Bearer(&token));
    assert_eq!(request.authorization(), Some(format!("Bearer {}", token.expose()).as_str()));
    assert_eq!(request.cookie(), None);
}

#[test]
fn evidence_of_devices_is_bound_and_sent_as_it_came() {
    let published = &vectors()["runtime_data"];
    let text = published["additional_evidence_string"].as_str().unwrap();
    let evidence = text.strip_prefix(r#"{"sampledevice":"#).unwrap().strip_suffix('}').unwrap();
    let offered = challenge(&good_challenge()).unwrap().offer(vector_key("P-256").public()).unwrap();
    assert_eq!(
        hex::encode(offered.device_digest().as_bytes()),
        published["device_sha384_hex"].as_str().unwrap()
    );
    let mut devices = DeviceEvidence::default();
    devices.insert("sampledevice", evidence).unwrap();
    let bound = offered.bind(&devices).unwrap();
    assert_eq!(
        hex::encode(bound.digest().as_bytes()),
        published["primary_sha384_hex_with_device"].as_str().unwrap()
    );
    let (_, request) = bound.attestation(&json!({}), None).unwrap();
    let sent: Value = serde_json::from_slice(request.body()).unwrap();
    assert_eq!(sent["tee-evidence"]["additional_evidence"], text);
    let runtime = sent["runtime-data"].as_object().unwrap();
    assert_eq!(runtime.keys().collect::<Vec<_>>(), ["nonce", "tee-pubkey"]);
}

#[test]
fn no_initdata_is_null() {
    let bound = challenge(&good_challenge()).unwrap().bind(vector_key("P-256").public()).unwrap();
    let (_, request) = bound.attestation(&json!({}), None).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(request.body()).unwrap()["init-data"], Value::Null);
}

#[test]
fn digest_is_the_published_one() {
    let bound = challenge(&good_challenge()).unwrap().bind(vector_key("P-256").public()).unwrap();
    let data = Claim::Kbs(bound.digest()).report_data();
    let expected = vectors()["runtime_data"]["primary_sha384_hex_no_devices"].clone();
    assert_eq!(hex::encode(&data.as_bytes()[..48]), expected.as_str().unwrap());
    let text = encode(&RuntimeData { additional: "", nonce: &bound.nonce, key: &bound.key }).unwrap();
    let canonical = vectors()["runtime_data"]["primary_canonical_no_devices"].clone();
    assert_eq!(String::from_utf8(text).unwrap(), canonical.as_str().unwrap());
}

#[test]
fn nonce_is_opaque() {
    let nonce = "no base64, \"quoted\" \\ \u{20ac} \u{7f} \t";
    let bound = challenge(&Given::ok(&json!({"nonce": nonce, "extra-params": ""})))
        .unwrap()
        .bind(vector_key("P-256").public())
        .unwrap();
    let (_, request) = bound.attestation(&Value::Null, None).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(request.body()).unwrap()["runtime-data"]["nonce"], nonce);
}

#[test]
fn evil_broker_sends_a_useless_nonce() {
    for nonce in ["", &"n".repeat(NONCE_MAX + 1)] {
        assert_eq!(
            code(challenge(&Given::ok(&json!({"nonce": nonce, "extra-params": ""})))),
            "KBS_CHALLENGE_INVALID"
        );
    }
    challenge(&Given::ok(&json!({"nonce": "n".repeat(NONCE_MAX), "extra-params": ""}))).unwrap();
    for body in [
        json!({"extra-params": ""}),
        json!({"nonce": 7, "extra-params": ""}),
        json!({"nonce": "n"}),
        json!([]),
    ] {
        assert_eq!(code(challenge(&Given::ok(&body))), "KBS_JSON_INVALID", "{body}");
    }
}

#[test]
fn evil_broker_selects_another_hash() {
    for name in [
        json!("sha256"),
        json!("SHA512"),
        json!("md5"),
        json!(""),
        json!(384),
        json!(null),
        json!(["sha384"]),
    ] {
        let given = Given::ok(&json!({"nonce": "n", "extra-params": {"selected-hash-algorithm": name}}));
        assert_eq!(code(challenge(&given)), "KBS_HASH_UNSUPPORTED", "{name}");
    }
    for extra in [json!(""), json!(null), json!({}), json!({"selected-hash-algorithm": "Sha384"})] {
        challenge(&Given::ok(&json!({"nonce": "n", "extra-params": extra}))).unwrap();
    }
}

#[test]
fn evil_broker_sets_two_sessions() {
    let two = good_challenge().cookies(&["kbs-session-id=a", "kbs-session-id=a"]);
    assert_eq!(code(challenge(&two)), "KBS_COOKIE_MISSING");
    for none in [&[][..], &["session=a"], &["kbs-session-id"], &["Kbs-Session-Id=a"]] {
        assert_eq!(code(challenge(&good_challenge().cookies(none))), "KBS_COOKIE_MISSING");
    }
    challenge(&good_challenge().cookies(&["other=b; Path=/", " kbs-session-id=a ; Secure"])).unwrap();
}

#[test]
fn evil_broker_puts_a_header_into_the_cookie() {
    for value in ["", "a\r\nX: y", "a b", "a\"", "a,b", &"a".repeat(129)] {
        let given = good_challenge().cookies(&[&format!("kbs-session-id={value}")]);
        assert_eq!(code(challenge(&given)), "KBS_COOKIE_INVALID", "{value:?}");
    }
}

#[test]
fn the_broker_may_renew_the_cookie_with_the_token() {
    for (cookies, expected) in
        [(vec!["kbs-session-id=new"], "kbs-session-id=new"), (vec![], COOKIE.split(';').next().unwrap())]
    {
        let given = Given::ok(&json!({"token": token(100)})).cookies(&cookies);
        let (cookie, _) = awaiting_token().answer(&given.answer(), 0).unwrap().into_parts();
        assert_eq!(cookie.header().as_str(), expected);
    }
}

#[test]
fn tokens_are_read_or_refused() {
    let refused = |body: Value, now| code(awaiting_token().answer(&Given::ok(&body).answer(), now));
    assert_eq!(refused(json!({}), 0), "KBS_JSON_INVALID");
    assert_eq!(refused(json!({"token": 1}), 0), "KBS_JSON_INVALID");
    assert_eq!(refused(json!({"token": "not a JWT"}), 0), "KBS_TOKEN_INVALID");
    assert_eq!(refused(json!({"token": token(100)}), 100), "KBS_TOKEN_EXPIRED");
}

#[test]
fn other_statuses_abort() {
    for (status, expected) in [
        (401, "KBS_ERROR_BODY_INVALID"),
        (404, "KBS_ERROR_BODY_INVALID"),
        (413, "KBS_STATUS_UNEXPECTED"),
        (201, "KBS_STATUS_UNEXPECTED"),
        (403, "KBS_STATUS_UNEXPECTED"),
    ] {
        let mut given = good_challenge();
        given.status = status;
        assert_eq!(code(challenge(&given)), expected, "{status}");
        assert_eq!(code(awaiting_token().answer(&given.answer(), 0)), expected, "{status}");
        assert_eq!(encrypted_resource(&given.answer()).unwrap_err().code(), expected, "{status}");
    }
}

#[test]
fn evil_host_makes_evidence_too_large() {
    let bound = challenge(&good_challenge()).unwrap().bind(vector_key("P-256").public()).unwrap();
    let error = bound.attestation(&json!("x".repeat(ATTESTATION_MAX)), None).unwrap_err();
    assert_eq!((error.code(), error.hop()), ("KBS_REQUEST_TOO_LARGE", Hop::Attest));
}

#[test]
fn tee_names_are_narrow() {
    for name in ["", "TDX", "t dx", "tdx\"", &"t".repeat(33)] {
        assert_eq!(code(Start::new(name)), "KBS_TEE_INVALID", "{name}");
    }
}

#[test]
fn nothing_prints_credentials() {
    let challenged = challenge(&good_challenge()).unwrap();
    assert!(!format!("{challenged:?}").contains("0123456789abcdef"));
    let bound = challenged.bind(vector_key("P-256").public()).unwrap();
    let (_, request) = bound.attestation(&json!({"quote": "hunter2"}), None).unwrap();
    let shown = format!("{request:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("0123456789abcdef"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_answer_is_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        let key = vector_key("P-256");
        let _ = crate::kbs::fuzzing::answers(&key, &data);
        let _ = crate::kbs::fuzzing::refusal(&data);
        let _ = crate::kbs::fuzzing::token_claims(&data);
    }
}

#[test]
fn the_entry_point_for_fuzzing_reaches_every_reader() {
    let key = TeeKey::generate(TeeKeyKind::EcP256).unwrap();
    let body = |text: &str| [b"\0cookie\0", text.as_bytes()].concat();
    assert!(crate::kbs::fuzzing::answers(&key, &body(r#"{"nonce":"n","extra-params":""}"#)));
    assert!(crate::kbs::fuzzing::answers(&key, &body(&json!({"token": token(100)}).to_string())));
    assert!(crate::kbs::fuzzing::token_claims(token(1).as_bytes()));
    assert!(crate::kbs::fuzzing::url(b"https://kbs"));
    assert!(crate::kbs::fuzzing::resource_uri(b"kbs:///a/b/c"));
    let vector = vectors()["P-256"]["response"].to_string();
    assert!(crate::kbs::fuzzing::jwe(&vector_key("P-256"), vector.as_bytes()));
    assert!(!crate::kbs::fuzzing::jwe(&key, vector.as_bytes()));
}
