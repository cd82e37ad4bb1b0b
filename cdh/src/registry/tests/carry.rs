use super::evil::Manner;
use super::image::{OCI_CONFIG, descriptor};
use super::*;
use crate::registry::graph::{Graph, fallback_tag};
use crate::registry::manifest::{OCI_INDEX, OCI_MANIFEST};

fn about(subject: &[u8], layer: &[u8]) -> Vec<u8> {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","artifactType":"application/x","config":{},"layers":[{}],"subject":{}}}"#,
        descriptor(OCI_CONFIG, b"{}", ""),
        descriptor("application/x", layer, ""),
        descriptor(OCI_MANIFEST, subject, "")
    )
    .into()
}

fn index(of: &[&[u8]]) -> Vec<u8> {
    let entries: Vec<String> = of.iter().map(|bytes| descriptor(OCI_MANIFEST, bytes, "")).collect();
    format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#, entries.join(",")).into()
}

#[tokio::test]
async fn evil_referrer_of_another_manifest() {
    let image = Image::new(vec![b"layer".to_vec()]);
    let (ours, theirs) = (about(&image.manifest, b"grant"), about(b"another", b"foreign"));
    let tag = fallback_tag(&image.digest());
    let (served, own) = (image.clone(), ours.clone());
    let evil = Evil::start(move |seen| {
        let last = seen.path.rsplit('/').next().unwrap_or_default();
        let manifest = |bytes: &[u8], kind| Reply::new(200, bytes).with("Content-Type", kind);
        if seen.path.contains("/referrers/") {
            return Reply::new(404, "");
        }
        if last == tag {
            return manifest(&index(&[&own, &theirs]), OCI_INDEX);
        }
        if let Some(found) = [&own, &theirs].into_iter().find(|bytes| Digest::of(bytes).to_string() == last) {
            return manifest(found, OCI_MANIFEST);
        }
        let small = [b"{}".as_slice(), b"grant", b"foreign"];
        if let Some(found) = small.into_iter().find(|bytes| Digest::of(bytes).to_string() == last) {
            return Reply::new(200, found);
        }
        served.reply(seen)
    })
    .await;
    let layout = tempfile::tempdir().unwrap();
    let registry = client(&evil);
    let from = reference(&evil, ":v1");
    let carried = registry.pull_layout(&from, layout.path(), "here", &(), soon()).await.unwrap();
    assert_eq!((carried.manifests, carried.referrers, carried.digest), (2, 1, image.digest()));
    assert_eq!(evil.count(&Digest::of(b"foreign").to_string()), 0);
    let read = Graph::read(layout.path(), Some("here")).unwrap();
    assert_eq!(read.root.bytes, image.manifest);
    assert_eq!(read.referrers.iter().map(|member| member.bytes.clone()).collect::<Vec<_>>(), [ours]);
    assert_eq!(Graph::read(layout.path(), None).unwrap().root.bytes, image.manifest);
    assert_eq!(Graph::read(layout.path(), Some("there")).unwrap_err().code(), "REGISTRY_MISSING");
    // Once more is the same; nothing was left beside it.
    let again = registry.pull_layout(&from, layout.path(), "here", &(), soon()).await.unwrap();
    assert_eq!(again.bytes, 0);
    let mut names: Vec<_> =
        std::fs::read_dir(layout.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["blobs", "index.json", "oci-layout"]);
}

#[tokio::test]
async fn evil_layout_of_other_bytes_is_not_pushed() {
    let image = Image::new(vec![b"layer".to_vec()]);
    let served = image.clone();
    let good = Evil::start(move |seen| match seen.path.contains("/referrers/") {
        true => Reply::new(200, index(&[])).with("Content-Type", OCI_INDEX),
        false => served.reply(seen),
    })
    .await;
    let layout = tempfile::tempdir().unwrap();
    let from = reference(&good, ":v1");
    client(&good).pull_layout(&from, layout.path(), "v1", &(), soon()).await.unwrap();
    let blob = |bytes: &[u8]| layout.path().join("blobs/sha256").join(Digest::of(bytes).hex());
    let to = Evil::start(|seen| match seen.method.as_str() {
        "POST" => Reply::new(202, "").with("Location", "/upload"),
        "PUT" => Reply::new(201, ""),
        _ => Reply::new(404, ""),
    })
    .await;
    for (bytes, code) in [(b"layer".as_slice(), "REGISTRY_DIGEST"), (&image.manifest, "REGISTRY_DIGEST")] {
        let mut changed = bytes.to_vec();
        changed[0] ^= 1;
        std::fs::write(blob(bytes), changed).unwrap();
        let pushed =
            pusher(&to).push_layout(layout.path(), Some("v1"), &reference(&to, ":v1"), &(), soon()).await;
        assert_eq!(pushed.unwrap_err().code(), code);
        std::fs::write(blob(bytes), bytes).unwrap();
    }
    assert!(!to.seen().iter().any(|seen| seen.method == "PUT" && seen.path.contains("/manifests/")));
    let pushed = pusher(&to)
        .push_layout(layout.path(), Some("v1"), &reference(&to, ":v1"), &(), soon())
        .await
        .unwrap();
    assert_eq!((pushed.blobs, pushed.digest), (2, image.digest()));
    let last = to.seen().pop().unwrap();
    assert_eq!((last.method.as_str(), last.body), ("PUT", image.manifest));
}

#[tokio::test]
async fn evil_index_of_endless_manifests() {
    let padding = " ".repeat(4_000_000);
    let many: Vec<Vec<u8>> = (0..20)
        .map(|turn| {
            format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[],"x":{turn}}}{padding}"#, descriptor(OCI_CONFIG, b"{}", ""))
                .into()
        })
        .collect();
    let all = index(&many.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let by_digest: std::collections::HashMap<String, Vec<u8>> =
        many.into_iter().map(|bytes| (Digest::of(&bytes).to_string(), bytes)).collect();
    let evil = Evil::start(move |seen| {
        let last = seen.path.rsplit('/').next().unwrap_or_default();
        match by_digest.get(last) {
            Some(bytes) => Reply::new(200, bytes.clone()).with("Content-Type", OCI_MANIFEST),
            None => Reply::new(200, all.clone()).with("Content-Type", OCI_INDEX).manner(Manner::Plain),
        }
    })
    .await;
    let layout = tempfile::tempdir().unwrap();
    let pulled = client(&evil).pull_layout(&reference(&evil, ":v1"), layout.path(), "v1", &(), soon()).await;
    assert_eq!(pulled.unwrap_err().code(), "REGISTRY_TOO_LARGE");
    assert_eq!(evil.seen().len(), 1 + 17, "seventeen of four megabytes are more than 64 MiB");
}
