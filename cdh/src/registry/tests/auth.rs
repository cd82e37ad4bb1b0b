use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

const PASSWORD: &str = "correct horse";

fn with_login(evil: &Evil) -> Registry {
    let mut credentials = Credentials::default();
    credentials.insert(&evil.authority(), Login::new("user", PASSWORD).unwrap()).unwrap();
    Registry::new(RegistryOptions { credentials, ..options(&[evil]) })
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode(format!("user:{PASSWORD}")))
}

fn image() -> Image {
    Image::new(vec![b"layer".to_vec()])
}

async fn pull(registry: &Registry, evil: &Evil) -> Result<VerifiedManifest, RegistryError> {
    registry.pull_manifest(&reference(evil, ":v1"), &linux(), soon()).await
}

/// Whether the password came here in any request.
fn got_password(evil: &Evil) -> bool {
    evil.seen().iter().any(|seen| seen.header("authorization") == Some(&basic()))
}

/// Asks for a token of `realm`, and serves who has `Bearer good`.
fn token_registry(realm: &'static str) -> impl Fn(&Seen) -> Reply + Send + Sync {
    let served = image();
    move |seen| {
        if seen.path.starts_with("/token") {
            return Reply::new(200, r#"{"token":"good","expires_in":300}"#);
        }
        if seen.header("authorization") == Some("Bearer good") {
            return served.reply(seen);
        }
        let realm = realm.replace("HOST", seen.header("host").unwrap());
        let challenge =
            format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:secret/y:pull,push\"");
        Reply::new(401, "{}").with("WWW-Authenticate", &challenge)
    }
}

#[tokio::test]
async fn passwords_go_to_the_registry_that_asks() {
    let served = image();
    let evil = Evil::start(move |seen| match seen.header("authorization") {
        Some(found) if found == basic() => served.reply(seen),
        _ => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
    })
    .await;
    pull(&with_login(&evil), &evil).await.unwrap();
    assert_eq!(evil.seen()[0].header("authorization"), None, "nothing is sent before it was asked for");
    let error = pull(&client(&evil), &evil).await.unwrap_err();
    assert_eq!(error.code(), "REGISTRY_DENIED");
}

#[tokio::test]
async fn tokens_are_asked_for_with_our_own_scope() {
    let evil = Evil::start(token_registry("http://HOST/token")).await;
    let registry = with_login(&evil);
    pull(&registry, &evil).await.unwrap();
    pull(&registry, &evil).await.unwrap();
    let tokens: Vec<Seen> = evil.seen().into_iter().filter(|seen| seen.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1, "a token is used again");
    assert_eq!(tokens[0].path, "/token?service=s&scope=repository:acme/x:pull");
    assert_eq!(tokens[0].header("authorization"), Some(basic().as_str()));
    // The registry itself never got the password.
    assert!(
        !evil
            .seen()
            .iter()
            .any(|seen| seen.path.starts_with("/v2/") && seen.header("authorization") == Some(&basic()))
    );
    pull(&client(&evil), &evil).await.unwrap();
}

#[tokio::test]
async fn evil_realm_is_refused() {
    let evil = Evil::start(token_registry("http://HOST/token")).await;
    let port = evil.port();
    for realm in [
        // Another host in plain http, not absolute, with a user, another scheme.
        format!("http://localhost:{port}/token"),
        "/token".to_owned(),
        format!("http://user@127.0.0.1:{port}/token"),
        "file:///etc/passwd".to_owned(),
    ] {
        let realm: &'static str = realm.leak();
        let registry = Evil::start(token_registry(realm)).await;
        let error = pull(&with_login(&registry), &registry).await.unwrap_err();
        assert_eq!(error.code(), "REGISTRY_CREDENTIALS", "{realm}");
        assert!(!got_password(&registry) && evil.seen().is_empty());
        let error = pull(&client(&registry), &registry).await.unwrap_err();
        assert_eq!(error.code(), "REGISTRY_CREDENTIALS", "{realm}, without a login");
    }
    let registry = Evil::start(token_registry("https://evil.example/token")).await;
    let error = pull(&with_login(&registry), &registry).await.unwrap_err();
    assert_eq!(error.code(), "REGISTRY_CREDENTIALS");
    assert!(error.to_string().contains("https://evil.example/token"), "{error}");
    assert!(!error.to_string().contains(PASSWORD));
}

#[tokio::test]
async fn evil_registry_downgrades_authentication() {
    let tokens = token_registry("http://HOST/token");
    let evil = Evil::start(move |seen| {
        if seen.path.contains("/blobs/") {
            return Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\"");
        }
        tokens(seen)
    })
    .await;
    let error = pull(&with_login(&evil), &evil).await.unwrap_err();
    assert_eq!(error.code(), "REGISTRY_AUTH_DOWNGRADE");
    let leaked = evil
        .seen()
        .iter()
        .any(|seen| seen.path.starts_with("/v2/") && seen.header("authorization") == Some(&basic()));
    assert!(!leaked, "the registry that wants tokens got no password");
}

#[tokio::test]
async fn evil_registry_asks_for_ever() {
    let evil = Evil::start(|seen| {
        if seen.path.starts_with("/token") {
            return Reply::new(200, r#"{"access_token":"bad"}"#);
        }
        let realm = format!("Bearer realm=\"http://{}/token\"", seen.header("host").unwrap());
        Reply::new(401, "").with("WWW-Authenticate", &realm)
    })
    .await;
    assert_eq!(pull(&client(&evil), &evil).await.unwrap_err().code(), "REGISTRY_DENIED");
    assert_eq!(evil.seen().len(), 3, "request, token, request");
}

#[tokio::test]
async fn evil_token_service() {
    for (answer, expected) in [
        (Reply::new(200, r#"{"token":""}"#), "REGISTRY_ANSWER"),
        (Reply::new(200, r#"{"token":"a\r\nX-Injected: 1"}"#), "REGISTRY_ANSWER"),
        (Reply::new(200, format!(r#"{{"token":"{}"}}"#, "a".repeat(40_000))), "REGISTRY_ANSWER"),
        (Reply::new(200, "{}"), "REGISTRY_ANSWER"),
        (Reply::new(200, "<html>"), "REGISTRY_ANSWER"),
        (Reply::new(200, vec![b' '; 300_000]), "REGISTRY_TOO_LARGE"),
        (Reply::new(302, "").with("Location", "/other"), "REGISTRY_STATUS"),
        (Reply::new(403, ""), "REGISTRY_DENIED"),
    ] {
        let evil = Evil::start(move |seen| {
            if seen.path.starts_with("/token") {
                return answer.clone();
            }
            let realm = format!("Bearer realm=\"http://{}/token\"", seen.header("host").unwrap());
            Reply::new(401, "").with("WWW-Authenticate", &realm)
        })
        .await;
        assert_eq!(pull(&client(&evil), &evil).await.unwrap_err().code(), expected);
        assert_eq!(evil.count("/other"), 0);
    }
}

#[tokio::test]
async fn evil_challenges_are_told() {
    for header in ["Digest realm=\"x\"", "Bearer", "\"\"\""] {
        let evil = Evil::start(move |_| Reply::new(401, "").with("WWW-Authenticate", header)).await;
        assert_eq!(pull(&with_login(&evil), &evil).await.unwrap_err().code(), "REGISTRY_CHALLENGE");
        assert!(!got_password(&evil));
    }
}
