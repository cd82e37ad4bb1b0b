use std::collections::HashMap;

use sealed_artifact::oci::{Descriptor as Sealed, EMPTY_BLOB, Referrer, ReferrerKind};

use super::image::descriptor;
use super::*;
use crate::registry::manifest::{OCI_INDEX, OCI_MANIFEST};

/// A registry with an image whose first layer is taken for a core, and with these objects beside the subjects.
async fn serving(image: &Image, objects: Vec<(Vec<u8>, ReferrerKind, Vec<u8>)>) -> Evil {
    let (mut blobs, mut manifests, mut listed) = (HashMap::new(), HashMap::new(), Vec::new());
    blobs.insert(Digest::of(EMPTY_BLOB).to_string(), EMPTY_BLOB.to_vec());
    for (subject, kind, object) in objects {
        let built = Referrer::build(kind, &Sealed::of(OCI_MANIFEST, &subject), &object);
        listed.push(descriptor(OCI_MANIFEST, &built.bytes, ""));
        manifests.insert(Digest::of(&built.bytes).to_string(), built.bytes);
        blobs.insert(Digest::of(&object).to_string(), object);
    }
    let index =
        format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#, listed.join(","));
    let served = image.clone();
    Evil::start(move |seen| {
        let last = seen.path.rsplit('/').next().unwrap_or_default();
        if seen.path.contains("/referrers/") {
            return Reply::new(200, index.clone()).with("Content-Type", OCI_INDEX);
        }
        match (manifests.get(last), blobs.get(last)) {
            (Some(bytes), _) => Reply::new(200, bytes.clone()).with("Content-Type", OCI_MANIFEST),
            (None, Some(bytes)) => Reply::new(200, bytes.clone()),
            _ => served.reply(seen),
        }
    })
    .await
}

async fn beside(evil: &Evil) -> Result<crate::artifact::Beside, RegistryError> {
    let registry = client(evil);
    let manifest = registry.pull_artifact(&reference(evil, ":v1"), soon()).await.unwrap();
    registry.fetch_beside(&manifest, &manifest.layers()[0], soon()).await
}

#[tokio::test]
async fn evil_registry_lists_grants_of_another_artifact() {
    let image = Image::new(vec![b"core".to_vec()]);
    let (own, other) = (image.manifest.clone(), b"another".to_vec());
    let evil = serving(
        &image,
        vec![
            (other.clone(), ReferrerKind::Grant, b"foreign".to_vec()),
            (own.clone(), ReferrerKind::Grant, b"grant".to_vec()),
            (other, ReferrerKind::Signature, b"foreign signature".to_vec()),
            (own, ReferrerKind::Signature, b"signature".to_vec()),
        ],
    )
    .await;
    let found = beside(&evil).await.unwrap();
    assert_eq!(found.core, b"core");
    assert_eq!(found.grants, [b"grant"]);
    assert_eq!(found.signature, Some(b"signature".to_vec()));
    for foreign in [b"foreign".as_slice(), b"foreign signature"] {
        assert_eq!(evil.count(&Digest::of(foreign).to_string()), 0);
    }
}

#[tokio::test]
async fn evil_registry_lists_grants_without_end() {
    let image = Image::new(vec![b"core".to_vec()]);
    let grants = |count: u8| {
        let all = (0..count).map(|turn| (image.manifest.clone(), ReferrerKind::Grant, vec![turn; 131_072]));
        all.collect::<Vec<_>>()
    };
    let evil = serving(&image, grants(128)).await;
    assert_eq!(beside(&evil).await.unwrap().grants.len(), 128);
    let evil = serving(&image, grants(200)).await;
    assert_eq!(beside(&evil).await.unwrap_err().code(), "REGISTRY_TOO_LARGE");
    let asked = evil.seen().iter().filter(|seen| seen.path.contains("/blobs/")).count();
    assert_eq!(asked, 2 + 129, "configuration, core, and as many grants as are too many");
}
