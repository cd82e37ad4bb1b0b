use super::*;
use crate::registry::client::{Access, Repository};
use crate::registry::http::Transport;
use crate::registry::url::Url;

fn image() -> Image {
    Image::new(vec![b"layer".to_vec()])
}

fn redirect(to: String) -> Reply {
    Reply::new(307, "").with("Location", &to)
}

/// A client that reaches `r.example` through a proxy: the proxy is the registry, which is then not on this machine.
fn through_proxy(proxy: &Evil) -> Registry {
    let proxies = Proxies::new(None, Some(&format!("http://u:p@{}", proxy.authority())), None).unwrap();
    let mut sources = Sources::default();
    sources.insert_insecure("r.example").unwrap();
    Registry::new(RegistryOptions { proxies, sources, ..options(&[]) })
}

#[tokio::test]
async fn evil_redirect_to_loopback_is_refused() {
    let inside = Evil::start(|_| Reply::new(200, "secret of this machine")).await;
    let port = inside.port();
    for host in ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "169.254.169.254"] {
        let outside = Evil::start(move |seen| {
            assert!(seen.path.starts_with("http://r.example/v2/"), "{}", seen.path);
            assert_eq!(seen.header("proxy-authorization"), Some("Basic dTpw"));
            redirect(format!("http://{host}:{port}/"))
        })
        .await;
        let registry = through_proxy(&outside);
        let reference = Reference::parse("r.example/acme/x:v1").unwrap();
        let error = registry.pull_manifest(&reference, &linux(), soon()).await.unwrap_err();
        assert_eq!(error.code(), "REGISTRY_ADDRESS", "{host}");
    }
    assert_eq!(inside.seen().len(), 0);
}

#[tokio::test]
async fn evil_redirect_gets_no_credentials() {
    let served = image();
    let store = Evil::start(move |seen| served.reply(seen)).await;
    let (to, served) = (store.authority(), image());
    let evil = Evil::start(move |seen| match seen.header("authorization") {
        None => Reply::new(401, "").with("WWW-Authenticate", "Basic"),
        Some(_) if seen.path.contains("/blobs/") => redirect(format!("http://{to}{}?signature=1", seen.path)),
        Some(_) => served.reply(seen),
    })
    .await;
    let mut credentials = Credentials::default();
    credentials.insert(&evil.authority(), Login::new("user", "password").unwrap()).unwrap();
    let registry = Registry::new(RegistryOptions { credentials, ..options(&[&evil]) });
    // The path of the store ends with a query: it has no such blob.
    let error = registry.pull_manifest(&reference(&evil, ":v1"), &linux(), soon()).await.unwrap_err();
    assert_eq!(error.code(), "REGISTRY_MISSING");
    assert_eq!(store.seen().len(), 1);
    assert_eq!(store.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn redirects_are_followed_and_bounded() {
    let served = image();
    let evil = Evil::start(move |seen| {
        let (path, turn) = seen
            .path
            .split_once('~')
            .map_or((seen.path.as_str(), 0), |(path, turn)| (path, turn.parse::<usize>().unwrap()));
        let wanted = if path.contains("/blobs/") { 5 } else { 99 };
        if turn < wanted && (path.contains("/blobs/") || path.ends_with("/round")) {
            return redirect(format!("{path}~{}", turn + 1));
        }
        served.reply(&Seen { path: path.to_owned(), ..seen.clone() })
    })
    .await;
    client(&evil).pull_manifest(&reference(&evil, ":v1"), &linux(), soon()).await.unwrap();
    let error = client(&evil).pull_manifest(&reference(&evil, ":round"), &linux(), soon()).await.unwrap_err();
    assert_eq!(error.code(), "REGISTRY_REDIRECT");
    assert_eq!(evil.count("/round"), 6);
}

#[tokio::test]
async fn evil_redirect_asks_for_credentials() {
    let phisher = Evil::start(|_| Reply::new(401, "").with("WWW-Authenticate", "Basic")).await;
    let to = phisher.authority();
    let evil = Evil::start(move |_| redirect(format!("http://{to}/"))).await;
    let error = client(&evil).pull_manifest(&reference(&evil, ":v1"), &linux(), soon()).await.unwrap_err();
    assert_eq!(error.code(), "REGISTRY_REDIRECT");
    assert!(phisher.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

#[tokio::test]
async fn evil_redirect_to_plain_http_is_refused() {
    let transport = Transport::new(None, Proxies::default(), Patience::default(), None);
    let authorizations = super::super::auth::Authorizations::default();
    let source = Source { reference: Reference::parse("r.example/acme/x").unwrap(), insecure: false };
    let repository = Repository::new(&transport, &authorizations, None, &source, Access::Pull).unwrap();
    let from = Url::parse("https://r.example/v2/", None).unwrap();
    let plain = repository.redirected(&from, Some("http://cdn.example/x?signature=secret")).unwrap_err();
    assert_eq!(plain.code(), "REGISTRY_REDIRECT");
    assert!(!plain.to_string().contains("secret"), "{plain}");
    for refused in [
        None,
        Some(""),
        Some("//cdn.example/x"),
        Some("https://u:p@cdn.example/"),
        Some("ftp://cdn.example/"),
    ] {
        assert_eq!(repository.redirected(&from, refused).unwrap_err().code(), "REGISTRY_REDIRECT");
    }
    assert!(repository.redirected(&from, Some("https://cdn.example/x")).is_ok());
}

#[tokio::test]
async fn https_goes_through_a_tunnel() {
    let proxy = Evil::start(|seen| Reply::new(if seen.method == "CONNECT" { 407 } else { 200 }, "")).await;
    let proxies = Proxies::new(Some(&format!("http://u:p@{}", proxy.authority())), None, None).unwrap();
    let trust = Some(RegistryTrust::new(&[]).unwrap());
    let registry = Registry::new(RegistryOptions { proxies, trust, ..options(&[]) });
    let reference = Reference::parse("r.example/acme/x:v1").unwrap();
    let error = registry.pull_manifest(&reference, &linux(), soon()).await.unwrap_err();
    assert_eq!(error.code(), "REGISTRY_DENIED");
    let seen = proxy.seen();
    assert_eq!((seen.len(), seen[0].path.as_str()), (1, "r.example:443"));
    assert_eq!(seen[0].header("proxy-authorization"), Some("Basic dTpw"));
}
