//! What is asked for and answered.

use sha2::{Digest as _, Sha512};

use super::*;

const APP: &str = "/cdh/resource/default/app/token";
const DB: &str = "/cdh/resource/default/db/password";
const EVENT: &str = r#"{"domain":"example.org","operation":"start","content":"model","more":1}"#;

fn json(body: &[u8]) -> serde_json::Value {
    serde_json::from_slice(body).unwrap()
}

#[tokio::test]
async fn answers_are_upstreams() {
    let running = Running::new("app").await;
    let answer = running.get(APP).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"app's own".as_slice()));
    let head = answer.head.to_ascii_lowercase();
    assert!(head.contains("\r\ncontent-type: application/octet-stream"), "{head}");
    assert!(head.contains("\r\nconnection: close") && head.contains("\r\ncache-control: no-store"), "{head}");
    let answer = running.get("/info").await;
    assert!(answer.head.to_ascii_lowercase().contains("\r\ncontent-type: application/json"));
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!("{{\"version\":\"{version}\",\"tee\":\"sample\",\"feature\":\"all\"}}");
    assert_eq!(String::from_utf8(answer.body).unwrap(), expected);
    let answer = running.get("/aa/additional-evidence?runtime_data=x").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0), "no devices, no bytes");
    assert_eq!(running.reached(), ["kbs:///default/app/token", "devices workload"]);
}

#[tokio::test]
async fn evidence_is_about_the_container_and_its_data() {
    let running = Running::new("app").await;
    // The formula of the specification, from nothing but the name.
    let mut identity = sha2::Sha256::new();
    identity.update(b"innerkeep workload identity v1");
    identity.update(9_u32.to_le_bytes());
    identity.update(b"container");
    identity.update(0_u32.to_le_bytes());
    identity.update(3_u32.to_le_bytes());
    identity.update(b"app");
    let about = |data: &[u8]| {
        let hash = Sha512::new_with_prefix(b"innerkeep workload evidence v1");
        let hash = hash.chain_update(identity.clone().finalize()).chain_update(Sha512::digest(data));
        let evidence = running
            .back_end
            .guest
            .evidence(Claim::Workload { identity: container("app").identity(), runtime_data: data.to_vec() });
        (hash.finalize().to_vec(), evidence)
    };
    for (query, data) in [
        ("runtime_data=abc", b"abc".as_slice()),
        ("runtime_data=a%20b", b"a b"),
        ("encoding=base64&runtime_data=_-8", &[0xff, 0xef]),
        ("runtime_data=first&runtime_data=last", b"last"),
    ] {
        let answer = running.get(&format!("/aa/evidence?{query}")).await;
        assert_eq!(answer.status, 200, "{query}");
        let (digest, evidence) = about(data);
        assert_eq!(json(&answer.body), json(&evidence.await.unwrap()), "{query}");
        use base64::Engine as _;
        let text = String::from_utf8(answer.body).unwrap();
        let encoded = base64::engine::general_purpose::STANDARD.encode(&digest);
        assert!(text.contains(&encoded) || text.contains(&hex::encode(&digest)), "{text}");
    }
    assert_ne!(container("app").identity(), container("db").identity());
    for query in ["", "?runtime_data=%ff", "?runtime_data=a&encoding=hex"] {
        let answer = running.get(&format!("/aa/evidence{query}")).await;
        assert_eq!(answer.refusal(), refused(400, "REST_QUERY"), "{query}");
    }
}

#[tokio::test]
async fn events_are_answered_in_upstreams_words() {
    let answer = |measured, register| async move {
        let running = Running::with(Choices { measured, register, ..Choices::of("app") }).await;
        let answer = running.ask("POST", "/aa/aael", EVENT).await;
        assert_eq!(running.reached(), ["example.org start model"]);
        (answer.status, String::from_utf8(answer.body).unwrap())
    };
    assert_eq!(answer(Some(Measured::Done), None).await, (200, r#"{"success":"true"}"#.to_owned()));
    let (status, text) = answer(None, None).await;
    assert_eq!(
        (status, text.as_str()),
        (200, r#"{"success":"false","message":"runtime measurement is not enabled"}"#)
    );
    let (status, text) = answer(None, Some(17)).await;
    assert!(
        status == 200 && text.starts_with(r#"{"success":"false","message":"runtime measurement is not supp"#),
        "{text}"
    );
}

#[tokio::test]
async fn what_is_missing_or_malformed_has_its_status() {
    let running = Running::new("app").await;
    for (method, target, body, status, code) in [
        ("GET", "/cdh/resource/default/app/none", "", 404, "CDH_OFFLINE_NO_RESOURCE"),
        ("GET", "/metrics", "", 404, "REST_ROUTE_UNKNOWN"),
        ("GET", "/info?x=1", "", 400, "REST_QUERY"),
        ("GET", "/cdh/resource/default/app/token?x=1", "", 400, "REST_QUERY"),
        ("POST", "/aa/aael", "{", 400, "REST_BODY"),
        ("POST", "/aa/aael", r#"{"domain":"a","operation":"b"}"#, 400, "REST_BODY"),
        (
            "POST",
            "/aa/aael",
            r#"{"domain":"a","domain":"b","operation":"c","content":"d"}"#,
            400,
            "REST_BODY",
        ),
        ("POST", "/aa/aael", "", 400, "REST_BODY"),
    ] {
        assert_eq!(
            running.ask(method, target, body).await.refusal(),
            refused(status, code),
            "{method} {target} {body}"
        );
    }
    assert_eq!(running.reached(), ["kbs:///default/app/none"]);
}

#[tokio::test]
async fn a_feature_that_is_off_is_off_although_it_is_listed() {
    for (features, path, name) in [
        (Features::Resource, "/aa/evidence?runtime_data=x", "resource"),
        (Features::Attestation, APP, "attestation"),
    ] {
        let running = Running::with(Choices { features, ..Choices::of("app") }).await;
        assert_eq!(running.get(path).await.refusal(), refused(404, "REST_FEATURE"), "{name}");
        assert!(running.reached().is_empty());
        let info = json(&running.get("/info").await.body);
        assert_eq!(info["feature"], name);
        assert_eq!(info.get("tee").is_some(), name == "attestation");
    }
}

#[tokio::test]
async fn evil_container_asks_for_the_secret_of_another() {
    for (name, target) in [
        ("app", DB),
        ("db", APP),
        ("stranger", DB),
        ("db", "/info"),
        ("db", "/aa/evidence?runtime_data=x"),
        ("App", APP),
    ] {
        let running = Running::new(name).await;
        let answer = running.get(target).await;
        assert_eq!(answer.refusal(), refused(403, "REST_NOT_LISTED"), "{name} {target}");
        assert!(!answer.body.windows(7).any(|part| part == b"hunter2"));
        assert!(running.reached().is_empty(), "{name} {target}");
    }
    assert_eq!(Running::new("db").await.get(DB).await.body, b"hunter2");
}

#[tokio::test]
async fn evil_process_that_nobody_knows() {
    let running = Running::with(Choices { peers: Told::new(&[None]), ..Choices::of("app") }).await;
    for target in ["/info", APP, DB, "/aa/token?token_type=kbs", "/nowhere", "/%2e"] {
        assert_eq!(running.get(target).await.refusal(), refused(403, "REST_PEER_UNKNOWN"), "{target}");
    }
    assert!(running.reached().is_empty());
}

#[tokio::test]
async fn evil_container_asks_for_the_key() {
    let running = Running::new("app").await;
    for query in ["", "?token_type=kbs", "?token_type=coco_as", "?token_type=other"] {
        let answer = running.get(&format!("/aa/token{query}")).await;
        assert_eq!(answer.refusal(), refused(403, "REST_TOKEN_KEY"), "{query}");
    }
    assert!(running.reached().is_empty());
}

#[tokio::test]
async fn evil_container_confuses_methods() {
    let running = Running::new("app").await;
    for (method, target, allowed) in [
        ("POST", APP, "GET"),
        ("PUT", APP, "GET"),
        ("DELETE", APP, "GET"),
        ("OPTIONS", APP, "GET"),
        ("get", APP, "GET"),
        ("POST", "/aa/evidence?runtime_data=x", "GET"),
        ("POST", "/info", "GET"),
        ("GET", "/aa/aael", "POST"),
        ("PATCH", "/aa/aael", "POST"),
    ] {
        let answer = running.ask(method, target, EVENT).await;
        assert_eq!(answer.refusal(), refused(405, "REST_METHOD"), "{method} {target}");
        assert!(
            answer
                .head
                .to_ascii_lowercase()
                .contains(&format!("\r\nallow: {}", allowed.to_ascii_lowercase()))
        );
    }
    let head = running.ask("HEAD", APP, "").await;
    assert_eq!((head.status, head.body.len()), (405, 0));
    let over = running
        .ask_with("POST", APP, &format!("Host: {}\r\nX-HTTP-Method-Override: GET\r\n", running.address), "")
        .await;
    assert_eq!(over.refusal(), refused(405, "REST_METHOD"));
    assert!(running.reached().is_empty());
}

#[tokio::test]
async fn evil_container_path_tricks_reach_nothing() {
    let running = Running::new("app").await;
    for target in [
        "/cdh/resource/default/app/../db/password",
        "/cdh/resource/default/app%2f..%2fdb/password",
        "/cdh/resource/default/app/%74oken",
        "//cdh/resource/default/app/token",
        "/cdh/resource/default/app/token/",
        "/cdh/resource/default/app/.token",
        "/cdh/resource/default//token",
        "/cdh//resource/default/app/token",
        "*",
    ] {
        let answer = running.get(target).await;
        assert_eq!(answer.status, 400, "{target} {:?}", answer.refusal());
    }
    assert!(running.reached().is_empty());
}

#[tokio::test]
async fn evil_container_names_another_host() {
    let running = Running::new("app").await;
    for target in [format!("http://{}{APP}", running.address), format!("http://evil.example{APP}")] {
        assert_eq!(running.get(&target).await.refusal(), refused(400, "REST_PATH"), "{target}");
    }
    assert!(running.reached().is_empty());
}

#[tokio::test]
async fn evil_site_rebinds_its_name() {
    let running = Running::new("app").await;
    let port = running.address.port();
    let hosts = [
        format!("Host: evil.example:{port}\r\n"),
        "Host: 127.0.0.1\r\n".to_owned(),
        "Host: 127.0.0.1:1\r\n".to_owned(),
        format!("Host: 127.0.0.2:{port}\r\n"),
        format!("Host: 127.0.0.1.evil.example:{port}\r\n"),
        format!("Host: localhost.evil.example:{port}\r\n"),
        format!("Host: user@127.0.0.1:{port}\r\n"),
        format!("Host: 127.1:{port}\r\n"),
        format!("Host: [::1]:{port}\r\n"),
        format!("Host: 127.0.0.1:0{port}\r\n"),
        format!("Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n"),
        "Host: \r\n".to_owned(),
        String::new(),
    ];
    for host in hosts {
        let answer = running.ask_with("GET", APP, &host, "").await;
        assert_eq!(answer.refusal(), refused(403, "REST_HOST"), "{host}");
    }
    assert!(running.reached().is_empty());
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("LOCALHOST:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
    ] {
        assert_eq!(
            running.ask_with("GET", APP, &format!("Host: {host}\r\n"), "").await.status,
            200,
            "{host}"
        );
    }
}

#[tokio::test]
async fn evil_site_asks_by_a_browser() {
    let running = Running::new("app").await;
    for origin in ["http://evil.example", "null", "http://127.0.0.1:8006"] {
        let fields = format!("Host: {}\r\nOrigin: {origin}\r\n", running.address);
        assert_eq!(
            running.ask_with("GET", APP, &fields, "").await.refusal(),
            refused(403, "REST_ORIGIN"),
            "{origin}"
        );
    }
    assert!(running.reached().is_empty());
}

#[tokio::test]
async fn evil_peer_outside_of_the_guest() {
    let running = Running::new("app").await;
    let (here, there) = ("127.0.0.1:8006", "192.0.2.1:5");
    for (peer, local) in [
        (there, here),
        (here, "192.0.2.1:8006"),
        ("[::ffff:192.0.2.1]:5", here),
        ("[2001:db8::1]:5", "[::1]:8006"),
    ] {
        let way = Way::Tcp { peer: peer.parse().unwrap(), local: local.parse().unwrap() };
        let asked = Asked {
            method: "GET".to_owned(),
            names_a_host: false,
            path: APP.to_owned(),
            query: None,
            hosts: vec![Some(local.to_owned())],
            has_origin: false,
            body: None,
        };
        let answer = running.front.answer(&asked, &way, Some(&container("app"))).await;
        assert_eq!(answer.status, 403, "{peer} {local}");
        assert_eq!(json(answer.body.bytes())["error"], "REST_PEER_REMOTE", "{peer} {local}");
    }
    assert!(running.reached().is_empty());
}

#[tokio::test]
async fn evil_container_logs_in_the_name_of_the_guest() {
    let running = Running::with(Choices { measured: Some(Measured::Done), ..Choices::of("app") }).await;
    let event = |domain: &str| format!(r#"{{"domain":"{domain}","operation":"PullImage","content":"x"}}"#);
    for domain in [
        "github.com/confidential-containers",
        "GitHub.com/Confidential-Containers",
        "github.com/confidential-containers/x",
        "innerkeep",
        "innerkeep.audit",
        "Innerkeep/x",
    ] {
        let answer = running.ask("POST", "/aa/aael", &event(domain)).await;
        assert_eq!(answer.refusal(), refused(403, "REST_EVENT_DOMAIN"), "{domain}");
    }
    assert!(running.reached().is_empty());
    for domain in ["innerkeeper", "github.com/confidential", "example.org"] {
        assert_eq!(running.ask("POST", "/aa/aael", &event(domain)).await.status, 200, "{domain}");
    }
}

#[tokio::test]
async fn evil_container_oversize_event() {
    let running = Running::with(Choices { register: Some(17), ..Choices::of("app") }).await;
    let event =
        |length: usize| format!(r#"{{"domain":"a","operation":"b","content":"{}"}}"#, "x".repeat(length));
    assert_eq!(running.ask("POST", "/aa/aael", &event(16 * 1024 - 2)).await.status, 200);
    let answer = running.ask("POST", "/aa/aael", &event(16 * 1024 - 1)).await;
    assert_eq!(answer.refusal(), refused(400, "ATTEST_REQUEST_TOO_LARGE"));
    let answer = running.ask("POST", "/aa/aael", &event(64 * 1024)).await;
    assert_eq!(answer.refusal(), refused(400, "REST_BODY"));
    assert_eq!(running.reached().len(), 2);
}

/// Says of whom it is asked, and refuses.
struct Refuses(Mutex<Vec<String>>);

impl Rule for Refuses {
    fn permit(&self, container: &ContainerId, route: &Route) -> Result<(), RestError> {
        self.0.lock().unwrap().push(format!("{} {route:?}", container.id()));
        match route {
            Route::Info => Ok(()),
            Route::Evidence => Err(RestError::NotAttested),
            _ => Err(RestError::Withheld { code: "SEALED_VALUE_ROOT" }),
        }
    }
}

#[tokio::test]
async fn evil_container_that_the_rule_refuses() {
    let rule = Arc::new(Refuses(Mutex::default()));
    let running = Running::with(Choices { rule: Some(Arc::clone(&rule) as _), ..Choices::of("app") }).await;
    assert_eq!(running.get(APP).await.refusal(), refused(403, "SEALED_VALUE_ROOT"));
    assert_eq!(running.ask("POST", "/aa/aael", EVENT).await.refusal(), refused(403, "SEALED_VALUE_ROOT"));
    let answer = running.get("/aa/evidence?runtime_data=x").await;
    assert_eq!(answer.refusal(), refused(503, "REST_NOT_ATTESTED"));
    assert!(running.reached().is_empty());
    assert_eq!(running.get("/info").await.status, 200);
    // It is not asked about what is not listed.
    assert_eq!(running.get(DB).await.refusal(), refused(403, "REST_NOT_LISTED"));
    let asked = rule.0.lock().unwrap().clone();
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|asked| asked.starts_with("app-1 ")), "{asked:?}");
}

#[tokio::test]
async fn who_asks_for_a_head_gets_no_body() {
    let running = Running::new("app").await;
    let answer = running.ask("HEAD", APP, "").await;
    assert_eq!((answer.status, answer.body.len()), (405, 0));
    assert!(answer.head.contains("\r\nallow: GET\r\n"), "{}", answer.head);
}
