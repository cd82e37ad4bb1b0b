use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use super::*;
use crate::registry::manifest::OCI_MANIFEST;

/// What a registry holds: path of a blob or manifest, and its bytes.
type Held = Arc<Mutex<HashMap<String, Vec<u8>>>>;

fn accepting(held: &Held, location: &'static str) -> impl Fn(&Seen) -> Reply + Send + Sync + use<> {
    let held = Arc::clone(held);
    move |seen| {
        let mut held = held.lock().unwrap();
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        match seen.method.as_str() {
            "HEAD" if held.contains_key(path) => Reply::new(200, ""),
            "POST" if query.contains("from=acme/y") => {
                held.insert(format!("/v2/acme/x/blobs/{}", Digest::of(b"elsewhere")), b"elsewhere".to_vec());
                Reply::new(201, "")
            }
            "POST" => {
                Reply::new(202, "").with("Location", &location.replace("HOST", seen.header("host").unwrap()))
            }
            "PUT" if path.contains("/manifests/") => {
                held.insert(path.to_owned(), seen.body.clone());
                Reply::new(201, "").with("Docker-Content-Digest", &Digest::of(&seen.body).to_string())
            }
            "PUT" => {
                let digest = query.rsplit_once("digest=").unwrap().1;
                assert!(query.starts_with("state=1&"), "{query}");
                held.insert(format!("/v2/acme/x/blobs/{digest}"), seen.body.clone());
                Reply::new(201, "")
            }
            _ => Reply::new(404, ""),
        }
    }
}

fn bytes(bytes: &[u8]) -> PushSource {
    PushSource::Bytes(bytes.into())
}

#[tokio::test]
async fn blobs_and_manifests_are_pushed_once() {
    let held = Held::default();
    let evil = Evil::start(accepting(&held, "http://HOST/upload?state=1")).await;
    let registry = pusher(&evil);
    let push = registry.push(&reference(&evil, ":v1"), &[]).unwrap();
    let big = image::noise(3, 1_000_000);
    let digest = Digest::of(&big);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[b"head".as_slice(), &big].concat()).unwrap();
    let source = PushSource::File { file: Arc::new(file), offset: 4 };
    let sent = push.blob(&digest, 1_000_000, &source, &|_| (), soon()).await.unwrap();
    assert_eq!(sent, Pushed::Sent);
    assert_eq!(held.lock().unwrap()[&format!("/v2/acme/x/blobs/{digest}")], big);
    let again = push.blob(&digest, 1_000_000, &source, &|_| (), soon()).await.unwrap();
    assert_eq!(again, Pushed::Present);
    let stored = push.manifest(b"{}", OCI_MANIFEST, Some("v1"), soon()).await.unwrap();
    assert_eq!(
        (stored, held.lock().unwrap()["/v2/acme/x/manifests/v1"].as_slice()),
        (Digest::of(b"{}"), b"{}".as_slice())
    );
    let empty = push.blob(&Digest::of(b""), 0, &bytes(b""), &|_| (), soon()).await.unwrap();
    assert_eq!(empty, Pushed::Sent);
}

#[tokio::test]
async fn blobs_of_other_repositories_are_mounted() {
    let held = Held::default();
    let evil = Evil::start(accepting(&held, "/upload?state=1")).await;
    let other = Reference::parse(&format!("{}/acme/y", evil.authority())).unwrap();
    let registry = pusher(&evil);
    let push = registry.push(&reference(&evil, ":v1"), &[other]).unwrap();
    let digest = Digest::of(b"elsewhere");
    let source = bytes(b"elsewhere");
    assert_eq!(push.blob(&digest, 9, &source, &|_| (), soon()).await.unwrap(), Pushed::Mounted);
    assert_eq!(evil.seen().iter().filter(|seen| seen.method == "PUT").count(), 0);
}

#[tokio::test]
async fn a_changed_file_is_not_pushed() {
    let held = Held::default();
    let evil = Evil::start(accepting(&held, "/upload?state=1")).await;
    let registry = pusher(&evil);
    let push = registry.push(&reference(&evil, ":v1"), &[]).unwrap();
    let error = push.blob(&Digest::of(b"before"), 6, &bytes(b"AFTER!"), &|_| (), soon()).await.unwrap_err();
    assert_eq!(error.code(), "REGISTRY_DIGEST");
    assert!(held.lock().unwrap().is_empty());
    let error = push.blob(&Digest::of(b"before"), 9, &bytes(b"before"), &|_| (), soon()).await.unwrap_err();
    assert_eq!(error.code(), "STORE_IO");
}

#[tokio::test]
async fn evil_registry_sends_the_upload_elsewhere() {
    let elsewhere = Evil::start(|_| Reply::new(201, "")).await;
    let location: &'static str = format!("http://{}/upload?state=1", elsewhere.authority()).leak();
    let evil = Evil::start(accepting(&Held::default(), location)).await;
    let registry = pusher(&evil);
    let push = registry.push(&reference(&evil, ":v1"), &[]).unwrap();
    let error = push.blob(&Digest::of(b"abc"), 3, &bytes(b"abc"), &|_| (), soon()).await.unwrap_err();
    assert_eq!(error.code(), "REGISTRY_REDIRECT");
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn evil_registry_stores_another_manifest() {
    let evil = Evil::start(|seen| match seen.method.as_str() {
        "PUT" => Reply::new(201, "").with("Docker-Content-Digest", &Digest::of(b"another").to_string()),
        _ => Reply::new(404, ""),
    })
    .await;
    let registry = pusher(&evil);
    let push = registry.push(&reference(&evil, ":v1"), &[]).unwrap();
    let error = push.manifest(b"{}", OCI_MANIFEST, Some("v1"), soon()).await.unwrap_err();
    assert_eq!(error.code(), "REGISTRY_DIGEST");
}
