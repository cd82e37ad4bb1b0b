//! Manifests of artifacts, grants and signatures. Nothing that is accepted claims more than its cap.

#![no_main]

use fuzz::bounded;
use fuzz::fixed::ARTIFACT;
use libfuzzer_sys::fuzz_target;
use sealed_artifact::core::MAXIMUM_CORE;
use sealed_artifact::oci::{ArtifactManifest, Referrer};

fuzz_target!(|data: &[u8]| {
    if let Ok(manifest) = bounded(data.len(), || ArtifactManifest::parse(data)) {
        assert!(manifest.core().size <= MAXIMUM_CORE);
        if let Ok(blobs) = bounded(data.len(), || manifest.payloads(&ARTIFACT.core)) {
            assert_eq!(blobs.len(), ARTIFACT.core.payloads().len());
            assert!(blobs.iter().all(|blob| blob.tags.size <= 1 << 22));
        }
    }
    if let Ok(Some(referrer)) = bounded(data.len(), || Referrer::parse(data)) {
        assert!(referrer.blob.size <= referrer.kind.maximum());
    }
});
