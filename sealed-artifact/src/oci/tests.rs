use super::*;
use crate::carrier::{from_layout, layout_of};
use crate::fixture::{Artifact, POLICY, Recipe, grant, identity, sign};
use crate::grant::GrantSuite;

fn artifact() -> Artifact {
    Recipe { sealer: Some(1), ..Recipe::new(1, &[100, 5]) }.seal()
}

fn grants(artifact: &Artifact, count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|seed| grant(artifact, &identity(GrantSuite::P384, seed, 1), POLICY).encode()).collect()
}

fn slices(blobs: &[Vec<u8>]) -> Vec<&[u8]> {
    blobs.iter().map(Vec::as_slice).collect()
}

#[test]
fn layout_carries_everything() {
    let artifact = artifact();
    let (signature, grants) = (sign(&artifact.core, 1), grants(&artifact, 2));
    let (index, blobs) = layout_of(&artifact, "v1", Some(&signature), &grants);
    let carried = from_layout(&index.encode(), "v1", &slices(&blobs)).unwrap();
    assert_eq!(carried.core, artifact.core.bytes());
    assert_eq!(carried.payloads, artifact.payloads);
    assert_eq!(carried.tags, artifact.tags);
    assert_eq!(carried.grants, grants);
    assert_eq!(carried.signature, Some(signature));
    let manifest = std::str::from_utf8(&blobs[1]).unwrap();
    for expected in [
        "\"mediaType\":\"application/octet-stream+sealed\"",
        "\"org.opencontainers.image.title\":\"part-0.bin\"",
        ARTIFACT_TYPE,
        CORE_TYPE,
        TAGS_TYPE,
    ] {
        assert!(manifest.contains(expected), "{expected}");
    }
}

#[test]
fn adding_and_removing_a_grant_leaves_the_artifact_alone() {
    let artifact = artifact();
    let grants = grants(&artifact, 2);
    let (index, blobs) = layout_of(&artifact, "v1", None, &grants[..1]);
    let entry = index.artifact(Some("v1")).unwrap().clone();
    let mut changed = ImageIndex::parse(&index.encode()).unwrap();
    let referrer = Referrer::build(ReferrerKind::Grant, &entry, &grants[1]);
    changed.add_referrer(&referrer.descriptor);
    changed.add_referrer(&referrer.descriptor);
    assert_eq!(changed.manifests().len(), 3);
    assert_eq!(changed.artifact(Some("v1")), Ok(&entry));
    let blobs = [blobs, vec![referrer.bytes, grants[1].clone()]].concat();
    let carried = from_layout(&changed.encode(), "v1", &slices(&blobs)).unwrap();
    assert_eq!(carried.grants, grants);
    assert!(changed.remove(referrer.descriptor.digest));
    assert!(!changed.remove(referrer.descriptor.digest));
    assert_eq!(changed.encode(), index.encode());
}

#[test]
fn index_keeps_what_other_tools_wrote() {
    let text = "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\
        \"digest\":\"sha256:0000000000000000000000000000000000000000000000000000000000000000\",\"size\":2,\
        \"annotations\":{\"org.opencontainers.image.ref.name\":\"other\"},\"platform\":{\"os\":\"linux\"}}],\"annotations\":{\"a\":\"b\"}}";
    let mut index = ImageIndex::parse(text.as_bytes()).unwrap();
    index.set_artifact("v1", &Descriptor::of(MANIFEST_TYPE, b"{}"));
    index.set_artifact("v1", &Descriptor::of(MANIFEST_TYPE, b"{ }"));
    assert_eq!(index.tags().collect::<Vec<_>>(), ["other", "v1"]);
    let written = String::from_utf8(index.encode()).unwrap();
    assert!(
        written.contains("\"platform\":{\"os\":\"linux\"}")
            && written.contains("\"annotations\":{\"a\":\"b\"}")
    );
    assert_eq!(index.artifact(None).unwrap_err().code(), "NOT_FOUND");
    assert_eq!(index.artifact(Some("v2")).unwrap_err().code(), "NOT_FOUND");
}

#[test]
fn evil_blob_with_another_digest_is_refused() {
    let descriptor = Descriptor::of(CORE_TYPE, b"core");
    assert_eq!(descriptor.verify(b"core"), Ok(()));
    assert_eq!(descriptor.verify(b"cord").unwrap_err().code(), "CARRIER_CORRUPT");
}

#[test]
fn evil_manifest_of_another_artifact_type_is_refused() {
    let (_, blobs) = layout_of(&artifact(), "v1", None, &[]);
    let other = String::from_utf8(blobs[1].clone()).unwrap().replace("sealed.v1", "sealed.v2");
    assert_eq!(ArtifactManifest::parse(other.as_bytes()).unwrap_err().code(), "MALFORMED");
}

#[test]
fn evil_manifest_with_another_number_of_layers_is_refused() {
    let artifact = artifact();
    let (_, blobs) = layout_of(&artifact, "v1", None, &[]);
    let manifest = ArtifactManifest::parse(&blobs[1]).unwrap();
    assert_eq!(manifest.payloads(&artifact.core).map(|payloads| payloads.len()), Ok(2));
    let other = Recipe::new(2, &[1, 2, 3]).seal();
    assert_eq!(manifest.payloads(&other.core).unwrap_err().code(), "MALFORMED");
}

#[test]
fn evil_claims_of_size_are_capped() {
    let artifact = artifact();
    let (_, blobs) = layout_of(&artifact, "v1", None, &[]);
    let text = String::from_utf8(blobs[1].clone()).unwrap();
    let core = format!("\"size\":{}", artifact.core.bytes().len());
    let refused = ArtifactManifest::parse(text.replace(&core, "\"size\":262145").as_bytes()).unwrap_err();
    assert_eq!(refused.code(), "LIMIT_EXCEEDED");
    let lied = text.replace("\"size\":16", "\"size\":4194305");
    let manifest = ArtifactManifest::parse(lied.as_bytes()).unwrap();
    assert_eq!(manifest.payloads(&artifact.core).unwrap_err().code(), "LIMIT_EXCEEDED");
    let oversize = vec![b' '; usize::try_from(MAXIMUM_MANIFEST).unwrap() + 1];
    assert_eq!(ImageIndex::parse(&oversize).unwrap_err().code(), "LIMIT_EXCEEDED");
    assert_eq!(ArtifactManifest::parse(&oversize).unwrap_err().code(), "LIMIT_EXCEEDED");
    let grant = Referrer::build(ReferrerKind::Signature, &Descriptor::of(MANIFEST_TYPE, b"x"), &[0; 4_097]);
    assert_eq!(Referrer::parse(&grant.bytes).unwrap_err().code(), "LIMIT_EXCEEDED");
}

#[test]
fn evil_referrers_are_passed_over() {
    let artifact = artifact();
    let grants = grants(&artifact, 1);
    let (mut index, mut blobs) = layout_of(&artifact, "v1", None, &grants);
    let elsewhere = Descriptor::of(MANIFEST_TYPE, b"another artifact");
    let foreign = Referrer::build(ReferrerKind::Grant, &elsewhere, b"foreign");
    let broken = b"{\"artifactType\":\"application/vnd.innerkeep.grant.v1\"".to_vec();
    index.add_referrer(&foreign.descriptor);
    index.add_referrer(&Descriptor::of(MANIFEST_TYPE, &broken));
    index.add_referrer(&Descriptor::of(MANIFEST_TYPE, b"missing"));
    blobs.extend([foreign.bytes, b"foreign".to_vec(), broken]);
    let carried = from_layout(&index.encode(), "v1", &slices(&blobs)).unwrap();
    assert_eq!(carried.grants, grants);
    let subject = index.artifact(Some("v1")).unwrap().digest;
    for number in 0..1_025u32 {
        index.add_referrer(&Descriptor::of(MANIFEST_TYPE, &number.to_be_bytes()));
    }
    let found = referrers(&index, subject, |_| Err::<Vec<u8>, ()>(()));
    assert_eq!(found.err().map(|error| error.code()), Some("LIMIT_EXCEEDED"));
}
