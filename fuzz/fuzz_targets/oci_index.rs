//! `index.json`. What is accepted encodes to an index that says the same; entering and removing keeps the rest.

#![no_main]

use fuzz::bounded;
use libfuzzer_sys::fuzz_target;
use sealed_artifact::digest::BlobDigest;
use sealed_artifact::oci::{Descriptor, ImageIndex, MANIFEST_TYPE, referrers};

fuzz_target!(|data: &[u8]| {
    let Ok(mut index) = bounded(data.len(), || ImageIndex::parse(data)) else { return };
    assert_eq!(ImageIndex::parse(&index.encode()).as_ref(), Ok(&index));
    let _ = index.artifact(None);
    let tags: Vec<String> = index.tags().map(str::to_owned).collect();
    for tag in &tags {
        index.artifact(Some(tag)).expect("a tag that is listed");
    }
    let manifest = Descriptor::of(MANIFEST_TYPE, b"a manifest");
    let found = bounded(data.len(), || referrers(&index, manifest.digest, |_| Ok::<_, ()>(data.to_vec())));
    if let Ok(found) = found {
        assert!(found.grants.len() <= 1024);
    }
    index.set_artifact("fuzz", &manifest);
    assert_eq!(index.artifact(Some("fuzz")).map(|entry| entry.digest), Ok(manifest.digest));
    let other = Descriptor::of(MANIFEST_TYPE, b"a grant");
    index.add_referrer(&other);
    let length = index.manifests().len();
    index.add_referrer(&other);
    assert_eq!(index.manifests().len(), length);
    assert!(index.remove(BlobDigest::of(b"a grant")));
    assert_eq!(ImageIndex::parse(&index.encode()).as_ref(), Ok(&index));
});
