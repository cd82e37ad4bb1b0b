//! Keys, payloads and manifests of cosign. A payload is of one kind only.

#![no_main]

use cdh::image::policy::cosign::{CosignKey, CosignLayer, SignatureLayer};
use cdh::image::policy::{Payload, PayloadKind};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(layers) = bounded(data.len(), || SignatureLayer::parse_manifest(data)) {
        assert!(layers.len() <= 64 && layers.iter().all(|layer| layer.size <= 64 << 10));
    }
    let atomic = bounded(data.len(), || Payload::parse(PayloadKind::Atomic, data));
    let cosign = bounded(data.len(), || Payload::parse(PayloadKind::Cosign, data));
    assert!(atomic.is_err() || cosign.is_err());
    if let Ok(key) = bounded(data.len(), || CosignKey::parse(data)) {
        let layer =
            CosignLayer { payload: data.to_vec(), signature: String::from_utf8_lossy(data).into_owned() };
        assert!(layer.verify(&[key]).is_err());
    }
});
