//! Artifacts as an OCI image layout: manifests, referrers and the index as data. Reading and writing files is the caller's.
//!
//! Nothing here is trusted: digest, size and media type of a descriptor only help to find bytes; the core decides.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::core::{Core, MAXIMUM_CORE};
use crate::digest::BlobDigest;
use crate::error::{ArtifactError, Found, length, limit};
use crate::grant::{MAXIMUM_GRANT, MAXIMUM_GRANTS};
use crate::layout::MAXIMUM_SEGMENTS;
use crate::parameters::count;
use crate::signature::MAXIMUM_SIGNATURE;

mod image;
mod index;

#[cfg(test)]
mod tests;

pub use image::{CORE_ANNOTATION, MAXIMUM_IMAGE_LAYERS, image_layers, image_payloads};
pub use index::ImageIndex;

/// Artifact type of a sealed artifact.
pub const ARTIFACT_TYPE: &str = "application/vnd.innerkeep.sealed.v1";
/// Media type of a core.
pub const CORE_TYPE: &str = "application/vnd.innerkeep.core.v1+json";
/// Media type of a tag table.
pub const TAGS_TYPE: &str = "application/vnd.innerkeep.tags.v1";
/// Media type of a manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Annotation of an index entry: the tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation of a layer: the file name.
pub const TITLE: &str = "org.opencontainers.image.title";
/// Content of the file `oci-layout`.
pub const OCI_LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";
/// Content of the empty blob that the manifests of grants and signatures have as config.
pub const EMPTY_BLOB: &[u8] = b"{}";
/// Largest `index.json` or manifest in bytes.
pub const MAXIMUM_MANIFEST: u64 = 4_194_304;

const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// A reference to a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the blob.
    pub media_type: String,
    /// SHA-256 of the blob; other algorithms are not used by this format.
    #[serde(with = "digest_text")]
    pub digest: BlobDigest,
    /// Size that the store claims; see [`Descriptor::capped_size`].
    pub size: u64,
    /// Artifact type of the manifest, in an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Annotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Members that this format does not use, kept when an index is rewritten.
    #[serde(flatten)]
    pub other: BTreeMap<String, Json>,
}

impl Descriptor {
    /// A descriptor of `bytes`.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, BlobDigest::of(bytes), length(bytes))
    }

    /// A descriptor of a blob that was hashed elsewhere.
    #[must_use]
    pub fn new(media_type: &str, digest: BlobDigest, size: u64) -> Self {
        let media_type = media_type.to_owned();
        Self { media_type, digest, size, artifact_type: None, annotations: None, other: BTreeMap::new() }
    }

    fn annotated(mut self, name: &str, value: &str) -> Self {
        self.annotations.get_or_insert_default().insert(name.to_owned(), value.to_owned());
        self
    }

    /// An annotation.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// The claimed size, refused above `maximum`: what a reader allocates before it knows better.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED`.
    pub fn capped_size(&self, maximum: u64) -> Result<u64, ArtifactError> {
        limit("size of a blob", 0, maximum, self.size)?;
        Ok(self.size)
    }

    /// Refuses bytes that are not this blob.
    ///
    /// # Errors
    /// `CARRIER_CORRUPT`.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), ArtifactError> {
        let found = BlobDigest::of(bytes);
        // GUARD: blob-digest -> evil_blob_with_another_digest_is_refused
        if found != self.digest {
            let expected = "a blob with the digest that its descriptor states";
            return Err(ArtifactError::CarrierCorrupt { expected, found: Found::value(found) });
        }
        Ok(())
    }
}

impl BlobDigest {
    /// Path of the blob in an image layout.
    #[must_use]
    pub fn layout_path(&self) -> String {
        format!("blobs/sha256/{}", hex::encode(self.as_bytes()))
    }
}

mod digest_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::digest::BlobDigest;

    pub(super) fn serialize<S: Serializer>(digest: &BlobDigest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BlobDigest, D::Error> {
        let text = String::deserialize(deserializer)?;
        BlobDigest::parse(&text).map_err(D::Error::custom)
    }
}

/// An image manifest as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    fn new(artifact_type: Option<&str>, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: MANIFEST_TYPE.to_owned(),
            artifact_type: artifact_type.map(str::to_owned),
            config,
            layers,
            subject: None,
            annotations: None,
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, ArtifactError> {
        limit("manifest", 0, MAXIMUM_MANIFEST, length(bytes))?;
        parse_json("manifest", bytes)
    }
}

/// Parses JSON of other tools: unknown members are allowed, duplicates of known ones are not.
fn parse_json<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, ArtifactError> {
    serde_json::from_slice(bytes).map_err(|error| ArtifactError::Malformed {
        what,
        expected: "JSON of the OCI image specification",
        found: Found::value(error),
    })
}

fn encode_json(value: &impl Serialize) -> Vec<u8> {
    // Maps with text keys, text and numbers: this encoding has no way to fail.
    serde_json::to_vec(value).unwrap_or_default()
}

/// A manifest that was built: its bytes, and the descriptor for the index.
#[derive(Clone, Debug)]
pub struct BuiltManifest {
    /// Bytes to store as a blob.
    pub bytes: Vec<u8>,
    /// Entry for the index.
    pub descriptor: Descriptor,
}

impl BuiltManifest {
    fn new(manifest: &Manifest) -> Self {
        let bytes = encode_json(manifest);
        let mut descriptor = Descriptor::of(MANIFEST_TYPE, &bytes);
        descriptor.artifact_type.clone_from(&manifest.artifact_type);
        Self { bytes, descriptor }
    }
}

/// The manifest of a sealed artifact, or of an image whose layers are sealed: where core, payloads and tag tables are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactManifest {
    core: Descriptor,
    layers: Vec<Descriptor>,
    /// Of an image.
    config: Option<Descriptor>,
}

/// The ciphertext of each payload.
fn ciphertexts_of(core: &Core, ciphertexts: &[BlobDigest]) -> Result<Vec<Descriptor>, ArtifactError> {
    let payloads = core.parameters().payloads();
    if ciphertexts.len() != payloads.len() {
        let expected = "one ciphertext per payload";
        return Err(ArtifactError::Malformed {
            what: "manifest",
            expected,
            found: Found::value(ciphertexts.len()),
        });
    }
    let described = payloads.iter().zip(ciphertexts).map(|(payload, digest)| {
        let media_type = format!("{}+sealed", payload.media_type);
        Descriptor::new(&media_type, *digest, payload.layout.size()).annotated(TITLE, payload.name.as_str())
    });
    Ok(described.collect())
}

/// The tag table of each payload.
fn tags_of(core: &Core) -> impl Iterator<Item = Descriptor> {
    core.parameters().payloads().iter().zip(core.payloads()).map(|(payload, seal)| {
        let digest = BlobDigest::new(*seal.tags.as_bytes());
        Descriptor::new(TAGS_TYPE, digest, payload.layout.tag_table_length())
    })
}

impl ArtifactManifest {
    /// Builds the manifest of `core`, given the SHA-256 of each ciphertext blob.
    ///
    /// # Errors
    /// `MALFORMED` when there is not one digest per payload.
    pub fn build(core: &Core, ciphertexts: &[BlobDigest]) -> Result<BuiltManifest, ArtifactError> {
        let layers = ciphertexts_of(core, ciphertexts)?.into_iter().chain(tags_of(core)).collect();
        let config = Descriptor::of(CORE_TYPE, core.bytes());
        Ok(BuiltManifest::new(&Manifest::new(Some(ARTIFACT_TYPE), config, layers)))
    }

    /// Parses an untrusted manifest.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED`, `MALFORMED`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let mut manifest = Manifest::parse(bytes)?;
        let core_named = manifest.annotations.as_mut().and_then(|all| all.remove(CORE_ANNOTATION));
        if let (None, Some(core)) = (&manifest.artifact_type, core_named) {
            return Self::of_image(manifest, &core);
        }
        let artifact_type = manifest.artifact_type.unwrap_or_default();
        // GUARD: artifact-type -> evil_manifest_of_another_artifact_type_is_refused
        if artifact_type != ARTIFACT_TYPE {
            let found = Found::text(&artifact_type);
            return Err(ArtifactError::Malformed { what: "manifest", expected: ARTIFACT_TYPE, found });
        }
        manifest.config.capped_size(MAXIMUM_CORE)?;
        Ok(Self { core: manifest.config, layers: manifest.layers, config: None })
    }

    /// Where the core is.
    #[must_use]
    pub fn core(&self) -> &Descriptor {
        &self.core
    }

    /// Where ciphertext and tag table of each payload of `core` are.
    ///
    /// # Errors
    /// `MALFORMED` unless there are two layers per payload, `LIMIT_EXCEEDED` for a tag table that claims too much.
    pub fn payloads(&self, core: &Core) -> Result<Vec<PayloadBlobs>, ArtifactError> {
        let payloads = core.payloads().len();
        // GUARD: layer-count -> evil_manifest_with_another_number_of_layers_is_refused
        if self.layers.len() != payloads * 2 {
            let expected = "two layers per payload of the core";
            let found = Found::value(self.layers.len());
            return Err(ArtifactError::Malformed { what: "manifest", expected, found });
        }
        self.require_sealed_types(core)?;
        let (ciphertexts, tags) = self.layers.split_at(payloads);
        let blobs = ciphertexts.iter().zip(tags).map(|(ciphertext, tags)| {
            tags.capped_size(MAXIMUM_SEGMENTS * 16)?;
            Ok(PayloadBlobs { ciphertext: ciphertext.clone(), tags: tags.clone() })
        });
        blobs.collect()
    }
}

/// Where the blobs of one payload are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadBlobs {
    /// Ciphertext; its size is to be compared with the layout, not with this.
    pub ciphertext: Descriptor,
    /// Tag table.
    pub tags: Descriptor,
}

/// What refers to an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferrerKind {
    /// A grant.
    Grant,
    /// The sealer's signature.
    Signature,
}

impl ReferrerKind {
    /// Artifact type of the manifest.
    #[must_use]
    pub const fn artifact_type(self) -> &'static str {
        match self {
            Self::Grant => "application/vnd.innerkeep.grant.v1",
            Self::Signature => "application/vnd.innerkeep.signature.v1",
        }
    }

    /// Media type of the layer.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Grant => "application/vnd.innerkeep.grant.v1+json",
            Self::Signature => "application/vnd.innerkeep.signature.v1+json",
        }
    }

    /// Largest object of this kind.
    #[must_use]
    pub const fn maximum(self) -> u64 {
        match self {
            Self::Grant => MAXIMUM_GRANT,
            Self::Signature => MAXIMUM_SIGNATURE,
        }
    }
}

/// The manifest of a grant or signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// What it is.
    pub kind: ReferrerKind,
    /// Manifest that it refers to.
    pub subject: BlobDigest,
    /// Where the object is.
    pub blob: Descriptor,
}

impl Referrer {
    /// Builds the manifest of `object`, a grant or signature for the artifact with the manifest `subject`.
    #[must_use]
    pub fn build(kind: ReferrerKind, subject: &Descriptor, object: &[u8]) -> BuiltManifest {
        let layer = Descriptor::of(kind.media_type(), object);
        let config = Descriptor::of(EMPTY_TYPE, EMPTY_BLOB);
        let mut manifest = Manifest::new(Some(kind.artifact_type()), config, vec![layer]);
        manifest.subject = Some(Descriptor::new(MANIFEST_TYPE, subject.digest, subject.size));
        BuiltManifest::new(&manifest)
    }

    /// Parses an untrusted manifest; `None` when it is neither a grant nor a signature.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED`, `MALFORMED`.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, ArtifactError> {
        let manifest = Manifest::parse(bytes)?;
        let kinds = [ReferrerKind::Grant, ReferrerKind::Signature];
        let kind =
            kinds.into_iter().find(|kind| Some(kind.artifact_type()) == manifest.artifact_type.as_deref());
        let Some(kind) = kind else { return Ok(None) };
        let malformed = |found: Found| ArtifactError::Malformed {
            what: "manifest",
            expected: "one layer and a subject",
            found,
        };
        let layers = count(&manifest.layers);
        let (Ok([blob]), Some(subject)) = (<[Descriptor; 1]>::try_from(manifest.layers), manifest.subject)
        else {
            return Err(malformed(Found::value(format_args!("{layers} layers, or no subject"))));
        };
        blob.capped_size(kind.maximum())?;
        Ok(Some(Self { kind, subject: subject.digest, blob }))
    }
}

/// The objects that refer to an artifact.
#[derive(Clone, Debug, Default)]
pub struct Referrers {
    /// Grants, with the digest of the manifest of each, in the order of the index.
    pub grants: Vec<(BlobDigest, Descriptor)>,
    /// Signature; the first one found.
    pub signature: Option<Descriptor>,
}

/// Lists what refers to the manifest `subject`, reading at most [`MAXIMUM_GRANTS`] manifests through `read`.
///
/// Manifests that cannot be read or parsed are passed over: one bad entry does not hide the others.
///
/// # Errors
/// What `read` returns for reasons of its own is passed over too; the only error is `LIMIT_EXCEEDED` for too many entries.
pub fn referrers<E>(
    index: &ImageIndex,
    subject: BlobDigest,
    mut read: impl FnMut(&Descriptor) -> Result<Vec<u8>, E>,
) -> Result<Referrers, ArtifactError> {
    let candidates: Vec<&Descriptor> = index.referrer_candidates().collect();
    limit("grants and signatures in the index", 0, count(&[(); MAXIMUM_GRANTS]), count(&candidates))?;
    let mut found = Referrers::default();
    for candidate in candidates {
        let Ok(bytes) = read(candidate) else { continue };
        if candidate.verify(&bytes).is_err() {
            continue;
        }
        match Referrer::parse(&bytes) {
            Ok(Some(referrer)) if referrer.subject == subject => match referrer.kind {
                ReferrerKind::Grant => found.grants.push((candidate.digest, referrer.blob)),
                ReferrerKind::Signature => {
                    found.signature.get_or_insert(referrer.blob);
                }
            },
            _ => {}
        }
    }
    Ok(found)
}
