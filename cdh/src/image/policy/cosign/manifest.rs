//! The manifest that holds the signatures of an image.

use serde_json::Value;

use super::super::digest::Digest;
use super::super::json::{self, Members};
use super::super::payload::PAYLOAD_MAX;
use super::{CosignFault, PAYLOAD_TYPE, SIGNATURE_ANNOTATION, SIGNATURE_TEXT_MAX};

/// Longest manifest of signatures, in bytes.
pub const SIGNATURE_MANIFEST_MAX: usize = 256 << 10;
/// Most layers of one.
const LAYERS_MAX: usize = 64;

/// The tag of the signatures of this manifest: `sha256-<hex>.sig`.
#[must_use]
pub fn signature_tag(digest: &Digest) -> String {
    format!("{}-{}.sig", digest.algorithm().name(), digest.hex())
}

/// A layer of the manifest: where a payload is, and what signs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureLayer {
    /// Digest of the payload.
    pub digest: Digest,
    /// Its length in bytes, at most [`super::super::PAYLOAD_MAX`].
    pub size: usize,
    /// The signature, as it stands in the annotation.
    pub signature: String,
}

impl SignatureLayer {
    /// Reads an untrusted manifest (OCI image specification, manifest.md). Layers that are no signed payload are left out.
    ///
    /// # Errors
    ///
    /// `IMAGE_COSIGN_MALFORMED`, `IMAGE_COSIGN_TOO_LARGE`.
    pub fn parse_manifest(bytes: &[u8]) -> Result<Vec<Self>, CosignFault> {
        let malformed = |_| CosignFault::Malformed { expected: "an image manifest of at most 256 KiB" };
        let manifest = json::parse(bytes, SIGNATURE_MANIFEST_MAX).map_err(malformed)?;
        let mut manifest = Members::of(manifest, "a manifest").map_err(malformed)?;
        let layers = manifest.take("layers").map_err(malformed)?;
        let layers = json::items(layers, "layers", LAYERS_MAX)
            .map_err(|_| CosignFault::Malformed { expected: "1 to 64 layers" })?;
        layers.into_iter().filter_map(|layer| layer_of(layer).transpose()).collect()
    }
}

/// A layer, unless it is something else than a signed payload.
fn layer_of(layer: Value) -> Result<Option<SignatureLayer>, CosignFault> {
    let malformed = |_| CosignFault::Malformed { expected: "a layer with media type, digest and size" };
    let mut layer = Members::of(layer, "a layer").map_err(malformed)?;
    if layer.text("mediaType").map_err(malformed)? != PAYLOAD_TYPE {
        return Ok(None);
    }
    let digest = layer.text("digest").map_err(malformed)?;
    let digest =
        Digest::parse(&digest).ok_or(CosignFault::Malformed { expected: "the digest of a layer" })?;
    let size = layer.take("size").map_err(malformed)?.as_u64().and_then(|size| usize::try_from(size).ok());
    let size = size.ok_or(CosignFault::Malformed { expected: "the size of a layer" })?;
    // GUARD: cosign-layer-size -> evil_signature_manifests
    if size > PAYLOAD_MAX {
        return Err(CosignFault::TooLarge { most: PAYLOAD_MAX, what: "a payload" });
    }
    let Some(annotations) = layer.optional("annotations") else { return Ok(None) };
    let mut annotations = Members::of(annotations, "annotations").map_err(malformed)?;
    let Some(signature) = annotations.optional_text(SIGNATURE_ANNOTATION).map_err(malformed)? else {
        return Ok(None);
    };
    // GUARD: cosign-annotation-size -> evil_signature_manifests
    if signature.len() > SIGNATURE_TEXT_MAX {
        return Err(CosignFault::TooLarge { most: SIGNATURE_TEXT_MAX, what: "a signature" });
    }
    Ok(Some(SignatureLayer { digest, size, signature }))
}
