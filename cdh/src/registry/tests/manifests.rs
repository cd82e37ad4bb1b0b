use super::evil::Manner;
use super::image::{LAYER, OCI_CONFIG, descriptor};
use super::*;
use crate::registry::manifest::{OCI_INDEX, OCI_MANIFEST};

fn image() -> Image {
    Image::new(vec![b"first layer".to_vec(), b"second layer".to_vec()])
}

async fn code_of(evil: &Evil, rest: &str) -> &'static str {
    client(evil).pull_manifest(&reference(evil, rest), &linux(), soon()).await.unwrap_err().code()
}

#[tokio::test]
async fn images_are_pulled_by_tag_digest_and_index() {
    let image = image();
    let served = image.clone();
    let evil = Evil::start(move |seen| served.reply(seen)).await;
    let registry = client(&evil);
    let by_tag = registry.pull_manifest(&reference(&evil, ":v1"), &linux(), soon()).await.unwrap();
    assert_eq!((by_tag.digest, by_tag.index_digest), (image.digest(), None));
    assert_eq!((by_tag.bytes, by_tag.config), (image.manifest.clone(), image.config.clone()));
    assert_eq!(by_tag.image.unwrap().diff_ids.len(), 2);
    let pinned = reference(&evil, &format!(":other@{}", image.digest()));
    let by_digest = registry.pull_manifest(&pinned, &linux(), soon()).await.unwrap();
    assert_eq!(by_digest.digest, image.digest());
    let by_index = registry.pull_manifest(&reference(&evil, ":index"), &linux(), soon()).await.unwrap();
    assert_eq!(by_index.index_digest, Some(Digest::of(&image.index)));
    assert_eq!(by_index.digest, image.digest());
    let arm = Platform::parse("linux/arm64").unwrap();
    let error = registry.pull_manifest(&reference(&evil, ":index"), &arm, soon()).await.unwrap_err();
    assert_eq!(error.code(), "REGISTRY_PLATFORM");
    let core = registry.pull_artifact(&reference(&evil, ":v1"), soon()).await.unwrap();
    assert!(core.image.is_none());
    let bytes = registry.fetch_bytes(&core, &core.layers()[0], 64, soon()).await.unwrap();
    assert_eq!(bytes, b"first layer");
    let error = registry.fetch_bytes(&core, &core.layers()[0], 3, soon()).await.unwrap_err();
    assert_eq!(error.code(), "REGISTRY_TOO_LARGE");
    assert_eq!(
        registry.pull_artifact(&reference(&evil, ":index"), soon()).await.unwrap_err().code(),
        "REGISTRY_MANIFEST"
    );
}

#[tokio::test]
async fn evil_registry_serves_other_bytes() {
    let served = image();
    let evil = Evil::start(move |seen| {
        let mut reply = served.reply(seen);
        // One bit of whatever was asked for by digest.
        if seen.path.contains(':')
            && let Some(byte) = reply.body.last_mut()
        {
            *byte ^= 1;
        }
        reply
    })
    .await;
    let pinned = format!("@{}", image().digest());
    assert_eq!(code_of(&evil, &pinned).await, "REGISTRY_DIGEST");
    assert_eq!(code_of(&evil, ":index").await, "REGISTRY_DIGEST");
    // The manifest itself is taken by its tag, its configuration is not.
    assert_eq!(code_of(&evil, ":v1").await, "REGISTRY_DIGEST");
}

#[tokio::test]
async fn evil_registry_states_another_digest() {
    let served = image();
    let evil = Evil::start(move |seen| {
        served.reply(seen).with("Docker-Content-Digest", &Digest::of(b"another").to_string())
    })
    .await;
    assert_eq!(code_of(&evil, ":v1").await, "REGISTRY_DIGEST");
}

#[tokio::test]
async fn evil_registry_sends_an_endless_manifest() {
    let evil = Evil::start(|_| {
        Reply::new(200, vec![b' '; 1 << 16]).with("Content-Type", OCI_MANIFEST).manner(Manner::Endless)
    })
    .await;
    assert_eq!(code_of(&evil, ":v1").await, "REGISTRY_TOO_LARGE");
    assert_eq!(evil.seen().len(), 1, "it is not asked again");
}

#[tokio::test]
async fn evil_registry_announces_a_huge_manifest() {
    let evil = Evil::start(|_| {
        let manner = Manner::Announced(1 << 40);
        Reply::new(200, "{").with("Content-Type", OCI_MANIFEST).manner(manner)
    })
    .await;
    assert_eq!(code_of(&evil, ":v1").await, "REGISTRY_TOO_LARGE");
}

#[tokio::test]
async fn evil_registry_sends_a_million_layers() {
    let layers = vec![descriptor(LAYER, b"x", ""); 1_000_000].join(",");
    let short = vec![descriptor(LAYER, b"x", ""); 10_000].join(",");
    let document = move |layers: &str| {
        format!(r#"{{"schemaVersion":2,"config":{},"layers":[{layers}]}}"#, descriptor(OCI_CONFIG, b"{}", ""))
    };
    let (million, many) = (document(&layers), document(&short));
    let evil = Evil::start(move |seen| {
        let body = if seen.path.ends_with("million") { million.clone() } else { many.clone() };
        Reply::new(200, body).with("Content-Type", OCI_MANIFEST)
    })
    .await;
    assert_eq!(code_of(&evil, ":million").await, "REGISTRY_TOO_LARGE");
    assert_eq!(code_of(&evil, ":many").await, "REGISTRY_MANIFEST");
    assert_eq!(evil.count("/blobs/"), 0);
}

#[tokio::test]
async fn evil_configuration_is_huge() {
    let config = descriptor(OCI_CONFIG, b"{}", "").replace("\"size\":2", "\"size\":99999999999");
    let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
    let evil =
        Evil::start(move |_| Reply::new(200, manifest.clone()).with("Content-Type", OCI_MANIFEST)).await;
    assert_eq!(code_of(&evil, ":v1").await, "REGISTRY_TOO_LARGE");
    assert_eq!(evil.count("/blobs/"), 0);
}

#[tokio::test]
async fn evil_image_without_end() {
    let layer = descriptor(LAYER, b"x", "").replace("\"size\":1", "\"size\":9223372036854775807");
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{layer},{layer},{layer}]}}"#,
        descriptor(OCI_CONFIG, b"{}", "")
    );
    let evil =
        Evil::start(move |_| Reply::new(200, manifest.clone()).with("Content-Type", OCI_MANIFEST)).await;
    assert_eq!(code_of(&evil, ":v1").await, "REGISTRY_TOO_LARGE");
    assert_eq!(evil.count("/blobs/"), 0);
}

#[tokio::test]
async fn evil_configuration_is_for_another_machine() {
    let served = Image::of_architecture(vec![b"layer".to_vec()], "arm64");
    let evil = Evil::start(move |seen| served.reply(seen)).await;
    assert_eq!(code_of(&evil, ":v1").await, "REGISTRY_PLATFORM");
    assert_eq!(code_of(&evil, ":index").await, "REGISTRY_PLATFORM");
}

#[tokio::test]
async fn evil_index_describes_another_manifest() {
    for (from, to) in [("\"size\":", "\"size\":1"), (OCI_MANIFEST, manifest::DOCKER_MANIFEST)] {
        let mut served = image();
        let index = String::from_utf8(served.index.clone()).unwrap();
        served.index = index.replace(from, to).into();
        let evil = Evil::start(move |seen| served.reply(seen)).await;
        assert_eq!(code_of(&evil, ":index").await, "REGISTRY_MANIFEST");
    }
    let mut served = image();
    served.index =
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(OCI_INDEX, &served.index, "")).into();
    let evil = Evil::start(move |seen| served.reply(seen)).await;
    assert_eq!(code_of(&evil, ":index").await, "REGISTRY_PLATFORM");
}

#[tokio::test]
async fn evil_registry_encodes_its_answer() {
    let served = image();
    let evil = Evil::start(move |seen| served.reply(seen).with("Content-Encoding", "gzip")).await;
    assert_eq!(code_of(&evil, ":v1").await, "REGISTRY_ANSWER");
}

#[tokio::test]
async fn evil_tag_moves_between_checks() {
    let (first, second) = (image(), Image::new(vec![b"another layer".to_vec()]));
    let served = [first.clone(), second];
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let evil = Evil::start(move |seen| {
        if seen.path.ends_with("/v1") {
            let turn = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            return served[turn.min(1)].reply(seen);
        }
        let replies = served.iter().map(|image| image.reply(seen));
        replies.into_iter().find(|reply| reply.status != 404).unwrap_or(Reply::new(404, ""))
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(store::Store::open(directory.path(), store::StoreOptions::default()).unwrap());
    let registry = client(&evil);
    let pulled = registry.pull_manifest(&reference(&evil, ":v1"), &linux(), soon()).await.unwrap();
    let fetched = registry.fetch_blobs(&pulled, &store, &(), soon()).await.unwrap();
    let digests: Vec<Digest> = fetched.layers.iter().map(|blob| *blob.digest()).collect();
    assert_eq!(digests, first.layers.iter().map(|layer| Digest::of(layer)).collect::<Vec<_>>());
    assert_eq!(evil.count("/manifests/"), 1, "nothing asks for the tag again");
}

#[tokio::test]
async fn mirrors_are_asked_in_order_and_their_lies_cost_nothing() {
    let served = image();
    let liar = Evil::start(|_| Reply::new(200, "{}").with("Content-Type", OCI_MANIFEST)).await;
    let absent = Evil::start(|_| Reply::new(404, "")).await;
    let good = Evil::start(move |seen| served.reply(seen)).await;
    let sources = format!(
        "[[registry]]\nlocation='r.example'\n\
         [[registry.mirror]]\nlocation='{}'\ninsecure=true\n[[registry.mirror]]\nlocation='{}'\ninsecure=true\n\
         [[registry.mirror]]\nlocation='{}'\ninsecure=true\n",
        liar.authority(),
        absent.authority(),
        good.authority()
    );
    let registry =
        Registry::new(RegistryOptions { sources: Sources::parse(&sources).unwrap(), ..options(&[]) });
    let original = Reference::parse("r.example/acme/x:v1").unwrap();
    let pulled = registry.pull_manifest(&original, &linux(), soon()).await.unwrap();
    assert_eq!((pulled.reference, pulled.source), (original, reference(&good, ":v1")));
    assert_eq!((liar.seen().len(), absent.seen().len()), (1, 1));
}

#[tokio::test]
async fn all_failures_are_told() {
    let liar = Evil::start(|_| Reply::new(200, "{}").with("Content-Type", OCI_MANIFEST)).await;
    let absent = Evil::start(|_| Reply::new(404, "")).await;
    let sources = format!(
        "[[registry]]\nlocation='{}'\ninsecure=true\n[[registry.mirror]]\nlocation='{}'\ninsecure=true\n",
        liar.authority(),
        absent.authority()
    );
    let registry =
        Registry::new(RegistryOptions { sources: Sources::parse(&sources).unwrap(), ..options(&[]) });
    let error = registry.pull_manifest(&reference(&liar, ":v1"), &linux(), soon()).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.code(), "REGISTRY_NO_SOURCE");
    assert!(text.contains("[REGISTRY_MISSING]") && text.contains("[REGISTRY_MANIFEST]"), "{text}");
}

#[tokio::test]
async fn outages_are_waited_for_and_https_is_never_given_up() {
    let served = image();
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let evil = Evil::start(move |seen| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => Reply::new(503, ""),
        1 => Reply::new(429, ""),
        _ => served.reply(seen),
    })
    .await;
    client(&evil).pull_manifest(&reference(&evil, ":v1"), &linux(), soon()).await.unwrap();
    let before = evil.seen().len();
    // Not marked as insecure: https, for which there are no roots.
    let strict = Registry::new(options(&[]));
    let error = strict.pull_manifest(&reference(&evil, ":v1"), &linux(), soon()).await.unwrap_err();
    assert_eq!(error.code(), "REGISTRY_CONFIG");
    let trust = Some(RegistryTrust::new(&[]).unwrap());
    let strict = Registry::new(RegistryOptions { trust, ..options(&[]) });
    let short = Instant::now() + Duration::from_secs(1);
    let error = strict.pull_manifest(&reference(&evil, ":v1"), &linux(), short).await.unwrap_err();
    assert!(matches!(error.code(), "REGISTRY_TLS" | "REGISTRY_CONNECT" | "REGISTRY_DEADLINE"), "{error}");
    assert_eq!(evil.count("/v2/"), before, "nothing was sent in the clear");
}

#[tokio::test]
async fn nothing_is_sent_after_the_deadline() {
    let served = image();
    let evil = Evil::start(move |seen| served.reply(seen)).await;
    let past = Instant::now();
    let error = client(&evil).pull_manifest(&reference(&evil, ":v1"), &linux(), past).await.unwrap_err();
    assert_eq!((error.code(), evil.seen().len()), ("REGISTRY_DEADLINE", 0));
}
