//! An image as a registry has it.

use super::evil::{Reply, Seen};
use crate::registry::Digest;
use crate::registry::manifest::{OCI_INDEX, OCI_MANIFEST};

pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) layers: Vec<Vec<u8>>,
    pub(super) config: Vec<u8>,
    pub(super) manifest: Vec<u8>,
    pub(super) index: Vec<u8>,
}

pub(super) fn descriptor(media_type: &str, bytes: &[u8], extra: &str) -> String {
    format!(
        r#"{{"mediaType":"{media_type}","digest":"{}","size":{}{extra}}}"#,
        Digest::of(bytes),
        bytes.len()
    )
}

/// Bytes that are not zeros.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[4]
        })
        .collect()
}

impl Image {
    pub(super) fn new(layers: Vec<Vec<u8>>) -> Self {
        Self::of_architecture(layers, "amd64")
    }

    pub(super) fn of_architecture(layers: Vec<Vec<u8>>, architecture: &str) -> Self {
        let ids: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", Digest::of(layer))).collect();
        let config = format!(
            r#"{{"os":"linux","architecture":"{architecture}","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            ids.join(",")
        );
        let described: Vec<String> = layers.iter().map(|layer| descriptor(LAYER, layer, "")).collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[{}]}}"#,
            descriptor(OCI_CONFIG, config.as_bytes(), ""),
            described.join(",")
        );
        let platform = r#","platform":{"os":"linux","architecture":"amd64"}"#;
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#,
            descriptor(OCI_MANIFEST, manifest.as_bytes(), platform)
        );
        Self { layers, config: config.into(), manifest: manifest.into(), index: index.into() }
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// What an honest registry answers.
    pub(super) fn reply(&self, seen: &Seen) -> Reply {
        let last = seen.path.rsplit('/').next().unwrap_or_default();
        if seen.path.contains("/manifests/") {
            return match last {
                "index" => Reply::new(200, self.index.clone()).with("Content-Type", OCI_INDEX),
                tag if tag.contains(':') && tag != self.digest().to_string() => Reply::new(404, ""),
                _ => Reply::new(200, self.manifest.clone()).with("Content-Type", OCI_MANIFEST),
            };
        }
        let blobs = self.layers.iter().chain([&self.config]);
        match blobs.into_iter().find(|blob| Digest::of(blob).to_string() == last) {
            None => Reply::new(404, ""),
            Some(blob) => match seen.start() {
                None => Reply::new(200, blob.clone()),
                Some(start) => Reply::new(206, &blob[start..])
                    .with("Content-Range", &format!("bytes {start}-{}/{}", blob.len() - 1, blob.len())),
            },
        }
    }
}
