//! The KBS client against a broker that lies, breaks or is somebody else: the code, and that nothing was kept.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use attestation_agent::kbs::{
    Dated, ExportableKeyKind, Hop, KbsClient, KbsError, TeeKey, TeeKeyKind, TokenExporter, VerifierEvidence,
};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::broker::{self, Broker, ERRORS, Reply, Request, SECRET};
use crate::guest::{Sample, client, get, later, options, sample, uri};
use crate::jose::{self, Recipe};

/// A broker that is wrong at one endpoint.
async fn wrong_at(
    endpoint: &'static str,
    wrong: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> Broker {
    Broker::start(move |request, right| if request.endpoint == endpoint { wrong(request) } else { right })
        .await
}

/// The error of a get, after which no session may be held if the handshake failed.
async fn refused(broker: &Broker) -> KbsError {
    let client = client(&broker.url());
    let error = get(&client).await.unwrap_err();
    if error.hop() != Hop::Resource {
        assert!(!client.holds_session().await, "a failed handshake left a session");
    }
    error
}

fn hop_of(endpoint: &str) -> Hop {
    match endpoint {
        "auth" => Hop::Auth,
        "attest" => Hop::Attest,
        _ => Hop::Resource,
    }
}

const ENDPOINTS: [&str; 3] = ["auth", "attest", "resource"];

#[tokio::test]
async fn one_attestation_and_one_connection_serve_many_resources() {
    let broker = Broker::right().await;
    let client = client(&format!("{}/", broker.url()));
    for _ in 0..3 {
        assert_eq!(get(&client).await.unwrap().expose(), SECRET);
    }
    assert_eq!(ENDPOINTS.map(|endpoint| broker.count(endpoint)), [1, 1, 3]);
    let agent = concat!("innerkeep-attestation-agent/", env!("CARGO_PKG_VERSION"));
    for request in broker.seen() {
        assert_eq!(request.connection, 1);
        assert_eq!(request.headers["user-agent"], agent);
        assert_eq!(request.headers["host"], format!("127.0.0.1:{}", broker.port));
        assert!(!request.headers.contains_key("authorization"));
    }
    assert_eq!(broker.seen()[2].path, "/kbs/v0/resource/repository/type/tag");
}

#[tokio::test]
async fn whoever_keeps_the_clock_hears_when_a_token_was_made() {
    let broker = Broker::right().await;
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let own = Arc::clone(&heard);
    let mut options = options(&broker.url());
    options.dated = Some(Dated::new(move |issued| own.lock().unwrap().push(issued)));
    let client = KbsClient::background_check(&options, sample()).unwrap();
    for _ in 0..2 {
        get(&client).await.unwrap();
    }
    assert_eq!(*heard.lock().unwrap(), [broker::ISSUED], "one token, one time");
}

#[tokio::test]
async fn every_kind_of_key_is_served() {
    for key in [TeeKeyKind::EcP256, TeeKeyKind::EcP521, TeeKeyKind::MlKem768, TeeKeyKind::Rsa2048] {
        let broker = Broker::right().await;
        let mut options = options(&broker.url());
        options.key = key;
        let client = KbsClient::background_check(&options, sample()).unwrap();
        assert_eq!(get(&client).await.unwrap().expose(), SECRET, "{key:?}");
    }
}

#[tokio::test]
async fn callers_at_the_same_time_share_one_attestation() {
    let broker = Broker::right().await;
    let client = Arc::new(client(&broker.url()));
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { get(&client).await.map(|secret| secret.expose().to_vec()) })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), SECRET);
    }
    assert_eq!(ENDPOINTS.map(|endpoint| broker.count(endpoint)), [1, 1, 16]);
}

#[tokio::test]
async fn callers_at_the_same_time_share_one_refusal() {
    let broker = wrong_at("attest", |_| Reply::error("AttestationError")).await;
    let client = Arc::new(client(&broker.url()));
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { get(&client).await.map(drop) })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap_err().code(), "KBS_REFUSED_ATTESTATION");
    }
    assert_eq!(broker.count("attest"), 1);
    assert!(!client.holds_session().await);
    // Later callers try again.
    get(&client).await.unwrap_err();
    assert_eq!(broker.count("attest"), 2);
}

/// An answer for a key, wrong in one way.
type Spoil = fn(&Value) -> Value;

fn with_header(jwk: &Value, change: fn(&mut Map<String, Value>)) -> Value {
    jose::encrypt_as(jwk, SECRET, &Recipe { header: Box::new(change), ..Recipe::default() })
}

#[tokio::test]
async fn evil_broker_answers_with_spoiled_encryption() {
    let cases: [(&str, Spoil); 7] = [
        ("KBS_JWE_CURVE", |jwk| {
            with_header(jwk, |header| drop(header.insert("epk".to_owned(), jose::ephemeral("P-521"))))
        }),
        ("KBS_JWE_POINT_INVALID", |jwk| {
            with_header(jwk, |header| header["epk"]["y"] = header["epk"]["x"].clone())
        }),
        ("KBS_JWE_ALGORITHM", |jwk| {
            with_header(jwk, |header| drop(header.insert("alg".to_owned(), json!("dir"))))
        }),
        ("KBS_JWE_AUTHENTICATION", |jwk| {
            let mut answer = jose::encrypt(jwk, SECRET);
            answer["tag"] = json!("AAAAAAAAAAAAAAAAAAAAAA");
            answer
        }),
        ("KBS_JWE_KEY_UNWRAP", |_| {
            let other = TeeKey::generate(TeeKeyKind::EcP256).unwrap();
            jose::encrypt(&serde_json::to_value(other.public()).unwrap(), SECRET)
        }),
        ("KBS_JWE_MALFORMED", |jwk| {
            let mut answer = jose::encrypt(jwk, SECRET);
            answer.as_object_mut().unwrap().remove("encrypted_key");
            answer
        }),
        // A plugin that does not encrypt.
        ("KBS_JWE_MALFORMED", |_| json!("the secret of the test")),
    ];
    for (code, spoil) in cases {
        let jwk = Arc::new(std::sync::Mutex::new(Value::Null));
        let broker = Broker::start(move |request, right| {
            if request.endpoint == "attest" {
                *jwk.lock().unwrap() = request.body["runtime-data"]["tee-pubkey"].clone();
            }
            if request.endpoint == "resource" { Reply::json(&spoil(&jwk.lock().unwrap())) } else { right }
        })
        .await;
        let error = refused(&broker).await;
        assert_eq!((error.code(), error.hop()), (code, Hop::Resource));
        assert_eq!(ENDPOINTS.map(|endpoint| broker.count(endpoint)), [1, 1, 1], "{code}: final");
    }
}

#[tokio::test]
async fn evil_broker_redirects() {
    let elsewhere = Broker::right().await;
    for endpoint in ENDPOINTS {
        for status in [301, 302, 303, 307, 308] {
            let to = format!("Location: {}/kbs/v0/{endpoint}", elsewhere.url());
            let broker =
                wrong_at(endpoint, move |_| Reply::Answer(status, vec![to.clone()], Vec::new())).await;
            let error = refused(&broker).await;
            assert_eq!((error.code(), error.hop()), ("KBS_REDIRECT_REFUSED", hop_of(endpoint)));
            assert_eq!(broker.count(endpoint), 1, "final");
        }
    }
    assert!(elsewhere.seen().is_empty(), "nothing went elsewhere");
}

#[tokio::test]
async fn evil_broker_announces_a_huge_body() {
    for endpoint in ENDPOINTS {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40);
        let broker = wrong_at(endpoint, move |_| Reply::Stall(head.clone().into_bytes())).await;
        let error = refused(&broker).await;
        assert_eq!((error.code(), error.hop()), ("KBS_BODY_TOO_LARGE", hop_of(endpoint)));
        assert_eq!(broker.count(endpoint), 1, "final");
    }
}

#[tokio::test]
async fn evil_broker_sends_an_endless_body() {
    for endpoint in ENDPOINTS {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let broker = wrong_at(endpoint, move |_| Reply::Endless(head.to_vec())).await;
        let error = refused(&broker).await;
        assert_eq!((error.code(), error.hop()), ("KBS_BODY_TOO_LARGE", hop_of(endpoint)));
        assert_eq!(broker.count(endpoint), 1, "final");
    }
}

#[tokio::test]
async fn evil_broker_sends_endless_headers() {
    let broker = wrong_at("auth", |_| {
        Reply::Bytes([b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat())
    })
    .await;
    let client = client(&broker.url());
    let error = client.get(&uri(), Instant::now() + Duration::from_millis(400)).await.unwrap_err();
    assert_eq!((error.code(), error.hop()), ("KBS_HTTP_BROKEN", Hop::Auth));
    assert!(!client.holds_session().await);
}

#[tokio::test]
async fn evil_broker_never_ends_an_answer() {
    for endpoint in ENDPOINTS {
        let part = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"nonce\":".to_vec();
        let broker = wrong_at(endpoint, move |_| Reply::Stall(part.clone())).await;
        let client = client(&broker.url());
        let error = client.get(&uri(), Instant::now() + Duration::from_millis(300)).await.unwrap_err();
        assert_eq!((error.code(), error.hop()), ("KBS_DEADLINE", hop_of(endpoint)));
        assert_eq!(client.holds_session().await, endpoint == "resource");
    }
}

#[tokio::test]
async fn one_late_answer_is_asked_for_again() {
    let broker = Broker::start(|request, right| {
        if request.endpoint == "resource" && request.before == 0 { Reply::Stall(Vec::new()) } else { right }
    })
    .await;
    let mut options = options(&broker.url());
    options.attempt = Duration::from_millis(500);
    let client = KbsClient::background_check(&options, sample()).unwrap();
    assert_eq!(get(&client).await.unwrap().expose(), SECRET);
    assert_eq!(ENDPOINTS.map(|endpoint| broker.count(endpoint)), [1, 1, 2]);
}

#[tokio::test]
async fn nothing_is_sent_after_the_deadline() {
    let broker = Broker::right().await;
    let error = client(&broker.url()).get(&uri(), Instant::now()).await.unwrap_err();
    assert_eq!((error.code(), error.hop()), ("KBS_DEADLINE", Hop::Auth));
    assert!(broker.seen().is_empty());
}

#[tokio::test]
async fn evil_broker_swaps_the_nonce() {
    let broker = wrong_at("auth", |_| {
        let cookie = "Set-Cookie: kbs-session-id=00000000000000000000000000000001".to_owned();
        Reply::Answer(200, vec![cookie], br#"{"nonce":"of another session","extra-params":""}"#.to_vec())
    })
    .await;
    let error = refused(&broker).await;
    assert_eq!((error.code(), error.hop()), ("KBS_REFUSED_ATTESTATION", Hop::Attest));
    assert_eq!((broker.count("attest"), broker.count("resource")), (1, 0));
}

#[tokio::test]
async fn evil_broker_gives_no_session() {
    let broker = wrong_at("auth", |_| Reply::json(&json!({"nonce": "n", "extra-params": ""}))).await;
    let error = refused(&broker).await;
    assert_eq!((error.code(), error.hop()), ("KBS_COOKIE_MISSING", Hop::Auth));
    assert_eq!(broker.count("attest"), 0, "no evidence goes to a broker without a session");
}

#[tokio::test]
async fn evil_broker_sends_an_old_token() {
    let broker = wrong_at("attest", |_| {
        // {"exp":1000000000}
        Reply::json(&json!({"token": "e30.eyJleHAiOjEwMDAwMDAwMDB9.c2ln"}))
    })
    .await;
    let error = refused(&broker).await;
    assert_eq!((error.code(), error.hop()), ("KBS_TOKEN_EXPIRED", Hop::Attest));
    assert_eq!((broker.count("attest"), broker.count("resource")), (1, 0));
}

#[tokio::test]
async fn a_token_that_expired_is_not_used() {
    let broker = Broker::with_tokens_of(2).await;
    let client = client(&broker.url());
    get(&client).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    get(&client).await.unwrap();
    assert_eq!(ENDPOINTS.map(|endpoint| broker.count(endpoint)), [2, 2, 2]);
    assert_ne!(broker.seen()[1].body, broker.seen()[4].body, "another key, another nonce");
}

#[tokio::test]
async fn refusals_are_final_but_for_lost_sessions() {
    for variant in [
        "AdminAuthAccess",
        "AttestationError",
        "InvalidRequestPath",
        "JweError",
        "PluginNotFound",
        "PluginInternalError",
        "PolicyDeny",
        "ParsePolicyError",
        "PolicyEngineError",
        "SerdeError",
        "NeverHeardOf",
    ] {
        for endpoint in ENDPOINTS {
            let broker = wrong_at(endpoint, move |_| Reply::error(variant)).await;
            let error = refused(&broker).await;
            assert!(error.code().starts_with("KBS_REFUSED_"), "{variant} {}", error.code());
            assert_eq!(error.hop(), hop_of(endpoint));
            assert_eq!(broker.count(endpoint), 1, "{variant} at {endpoint} is final");
        }
    }
    for (variant, code) in
        [("TokenNotFound", "KBS_REFUSED_NO_TOKEN"), ("TokenVerifierError", "KBS_REFUSED_TOKEN")]
    {
        for endpoint in ["auth", "attest"] {
            let broker = wrong_at(endpoint, move |_| Reply::error(variant)).await;
            assert_eq!(refused(&broker).await.code(), code);
            assert_eq!(broker.count(endpoint), 1, "{variant} at {endpoint} is final");
        }
        let broker = wrong_at("resource", move |_| Reply::error(variant)).await;
        assert_eq!(refused(&broker).await.code(), code);
        assert_eq!(ENDPOINTS.map(|endpoint| broker.count(endpoint)), [2, 2, 2], "one new handshake");

        let broker = Broker::start(move |request, right| {
            if request.endpoint == "resource" && request.before == 0 { Reply::error(variant) } else { right }
        })
        .await;
        assert_eq!(get(&client(&broker.url())).await.unwrap().expose(), SECRET);
        assert_eq!(ENDPOINTS.map(|endpoint| broker.count(endpoint)), [2, 2, 2]);
    }
}

#[tokio::test]
async fn callers_share_the_new_handshake_too() {
    let broker = Broker::start(|request, right| {
        let old = request.headers.get("cookie").is_some_and(|cookie| cookie.ends_with("01"));
        if request.endpoint == "resource" && old { Reply::error("TokenNotFound") } else { right }
    })
    .await;
    let client = Arc::new(client(&broker.url()));
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { get(&client).await.map(drop) })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(broker.count("attest"), 2);
}

#[tokio::test]
async fn an_outage_is_waited_for_with_a_fresh_key() {
    for status in [500, 502, 503, 429] {
        for endpoint in ENDPOINTS {
            let broker = Broker::start(move |request, right| {
                if request.endpoint == endpoint && request.before < 2 { Reply::status(status) } else { right }
            })
            .await;
            let client = client(&broker.url());
            assert_eq!(get(&client).await.unwrap().expose(), SECRET, "{status} at {endpoint}");
            let counts = ENDPOINTS.map(|endpoint| broker.count(endpoint));
            match endpoint {
                "auth" => assert_eq!(counts, [3, 1, 1]),
                "attest" => assert_eq!(counts, [3, 3, 1]),
                _ => assert_eq!(counts, [1, 1, 3]),
            }
            let keys: std::collections::BTreeSet<String> = broker
                .seen()
                .iter()
                .filter(|request| request.endpoint == "attest")
                .map(|request| request.body["runtime-data"].to_string())
                .collect();
            assert_eq!(keys.len(), counts[1], "each handshake has its own key and nonce");
        }
    }
}

#[tokio::test]
async fn an_outage_that_stays_is_named() {
    let broker = wrong_at("auth", |_| Reply::status(503)).await;
    let client = client(&broker.url());
    let error = client.get(&uri(), Instant::now() + Duration::from_millis(500)).await.unwrap_err();
    assert_eq!((error.code(), error.hop()), ("KBS_BROKER_UNAVAILABLE", Hop::Auth));
    assert!(broker.count("auth") >= 2);
    assert!(!client.holds_session().await);
}

#[tokio::test]
async fn a_connection_that_was_closed_is_opened_again() {
    let broker = Broker::start(|request, right| match right {
        // Closed without a word about it.
        Reply::Answer(200, _, body) if request.endpoint == "resource" => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            Reply::Bytes([head.as_bytes(), &body].concat())
        }
        right => right,
    })
    .await;
    let client = client(&broker.url());
    for _ in 0..3 {
        assert_eq!(get(&client).await.unwrap().expose(), SECRET);
    }
    assert_eq!((broker.count("auth"), broker.count("attest")), (1, 1));
}

#[tokio::test]
async fn no_broker_is_an_error_of_the_connection() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let client = client(&format!("http://localhost:{port}"));
    let error = client.get(&uri(), Instant::now() + Duration::from_millis(250)).await.unwrap_err();
    assert_eq!((error.code(), error.hop()), ("KBS_CONNECT_FAILED", Hop::Auth));
    assert!(error.source().is_some());
}

#[tokio::test]
async fn evil_broker_speaks_something_else() {
    for endpoint in ENDPOINTS {
        for (status, body) in
            [(401, ""), (401, "<html>{</html>"), (404, "{}"), (401, "{\"type\":\"x\",\"type\":\"y\"}")]
        {
            let broker = wrong_at(endpoint, move |_| Reply::Answer(status, Vec::new(), body.into())).await;
            assert_eq!(refused(&broker).await.code(), "KBS_ERROR_BODY_INVALID");
        }
        let broker = wrong_at(endpoint, |_| Reply::status(413)).await;
        assert_eq!(refused(&broker).await.code(), "KBS_STATUS_UNEXPECTED");
        for body in ["", "<html>{</html>", "[]", "{\"token\":\"a\",\"token\":\"b\"}"] {
            let broker = wrong_at(endpoint, move |_| Reply::Answer(200, Vec::new(), body.into())).await;
            let expected = if endpoint == "resource" { "KBS_JWE_MALFORMED" } else { "KBS_JSON_INVALID" };
            assert_eq!(refused(&broker).await.code(), expected, "{endpoint} {body}");
        }
    }
}

#[tokio::test]
async fn evil_host_breaks_the_evidence() {
    let broker = Broker::right().await;
    let source = Arc::new(Sample { broken: true, ..Sample::default() });
    let client = KbsClient::background_check(&options(&broker.url()), source.clone()).unwrap();
    let error = get(&client).await.unwrap_err();
    assert_eq!((error.code(), error.hop()), ("KBS_EVIDENCE_FAILED", Hop::Attest));
    assert_eq!(error.source().unwrap().to_string(), "the provider is gone");
    assert_eq!((broker.count("auth"), broker.count("attest")), (1, 0));
    assert_eq!(source.calls.load(Ordering::SeqCst), 1);
    assert!(!client.holds_session().await);
}

#[tokio::test]
async fn evil_configuration_uses_plain_http() {
    for url in ["http://192.0.2.1:8080", "http://kbs.example", "http://0.0.0.0", "http://[2001:db8::1]"] {
        let error = KbsClient::background_check(&options(url), sample()).unwrap_err();
        assert_eq!((error.code(), error.hop()), ("KBS_PLAIN_HTTP_REFUSED", Hop::Setup));
        let mut loud = options(url);
        loud.plain_http = attestation_agent::kbs::PlainHttp::Insecure;
        KbsClient::background_check(&loud, sample()).unwrap();
    }
}

#[tokio::test]
async fn demanded_verifier_evidence_is_refused() {
    let broker = Broker::right().await;
    let mut options = options(&broker.url());
    options.verifier_evidence = VerifierEvidence::Demanded;
    let error = KbsClient::background_check(&options, sample()).unwrap_err();
    assert_eq!(error.code(), "KBS_VERIFIER_EVIDENCE_UNSUPPORTED");
    assert_eq!(
        TokenExporter::new(&options, sample()).unwrap_err().code(),
        "KBS_VERIFIER_EVIDENCE_UNSUPPORTED"
    );
    assert!(broker.seen().is_empty());
}

#[tokio::test]
async fn passports_are_shown_as_bearer() {
    let verifier = Broker::right().await;
    let source = Arc::new(client(&verifier.url()));
    // One broker for both, so that it knows the token.
    let client = KbsClient::passport(&options(&verifier.url()), source).unwrap();
    assert_eq!(get(&client).await.unwrap().expose(), SECRET);
    let shown = verifier.seen().into_iter().find(|request| request.endpoint == "resource").unwrap();
    assert!(shown.headers["authorization"].starts_with("Bearer e30."));
    assert!(!shown.headers.contains_key("cookie"));
}

#[tokio::test]
async fn a_passport_that_is_refused_is_renewed_once() {
    let verifier = Broker::right().await;
    let broker = wrong_at("resource", |_| Reply::error("TokenVerifierError")).await;
    let client = KbsClient::passport(&options(&broker.url()), Arc::new(client(&verifier.url()))).unwrap();
    let error = get(&client).await.unwrap_err();
    assert_eq!((error.code(), error.hop()), ("KBS_REFUSED_TOKEN", Hop::Resource));
    assert_eq!((verifier.count("attest"), broker.count("resource")), (2, 2));
    assert_eq!(broker.count("auth"), 0, "the broker of a passport is not attested to");
}

#[tokio::test]
async fn exported_keys_are_made_for_one_call() {
    for kind in [ExportableKeyKind::EcP256, ExportableKeyKind::EcP521, ExportableKeyKind::Rsa2048] {
        let broker = Broker::right().await;
        let exporter = TokenExporter::new(&options(&broker.url()), sample()).unwrap();
        let mut keys = Vec::new();
        for _ in 0..2 {
            let (token, key) = exporter.export(kind, later()).await.unwrap();
            assert!(token.is_valid_at(broker::now()));
            keys.push(serde_json::to_value(key.public()).unwrap());
            assert!(key.into_pem().contains("PRIVATE KEY"));
        }
        assert_ne!(keys[0], keys[1]);
        let attested: Vec<Value> = broker
            .seen()
            .into_iter()
            .filter(|request| request.endpoint == "attest")
            .map(|request| request.body["runtime-data"]["tee-pubkey"].clone())
            .collect();
        assert_eq!(attested, keys);
    }
}

#[tokio::test]
async fn errors_repeat_no_credentials() {
    let broker = Broker::start(|request, right| {
        if request.endpoint != "resource" {
            return right;
        }
        let detail = "x".repeat(5_000);
        let body = json!({"type": format!("{ERRORS}PolicyDeny"), "detail": detail}).to_string();
        Reply::Answer(401, Vec::new(), body.into_bytes())
    })
    .await;
    let client = client(&broker.url());
    let error = get(&client).await.unwrap_err();
    let shown = format!("{error} {error:?} {client:?}");
    assert!(!shown.contains("00000000000000000000000000000001") && !shown.contains("e30."), "{shown}");
    assert!(shown.len() < 2_000);
}
