//! `index.json` of an image layout. What this format does not use is kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{ARTIFACT_TYPE, Descriptor, MAXIMUM_MANIFEST, REF_NAME, ReferrerKind, encode_json, parse_json};
use crate::digest::BlobDigest;
use crate::error::{ArtifactError, Found, length, limit};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// An index: all manifests of a layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIndex {
    schema_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    manifests: Vec<Descriptor>,
    #[serde(flatten)]
    other: BTreeMap<String, Json>,
}

impl Default for ImageIndex {
    fn default() -> Self {
        Self {
            schema_version: 2,
            media_type: Some(INDEX_TYPE.to_owned()),
            manifests: Vec::new(),
            other: BTreeMap::new(),
        }
    }
}

impl ImageIndex {
    /// An index of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses untrusted bytes.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED`, `MALFORMED`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArtifactError> {
        limit("index.json", 0, MAXIMUM_MANIFEST, length(bytes))?;
        parse_json("index.json", bytes)
    }

    /// The bytes of `index.json`, to be replaced atomically.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode_json(self)
    }

    /// All entries.
    #[must_use]
    pub fn manifests(&self) -> &[Descriptor] {
        &self.manifests
    }

    /// The entry with this tag. Without a tag: the only artifact of the index.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub fn artifact(&self, tag: Option<&str>) -> Result<&Descriptor, ArtifactError> {
        let Some(tag) = tag else {
            let mut artifacts = self.manifests.iter().filter(|entry| entry.annotation(REF_NAME).is_some());
            return match (artifacts.next(), artifacts.next()) {
                (Some(only), None) => Ok(only),
                _ => Err(ArtifactError::NotFound { what: Found::text("exactly one artifact") }),
            };
        };
        let found = self.manifests.iter().find(|entry| entry.annotation(REF_NAME) == Some(tag));
        found.ok_or_else(|| ArtifactError::NotFound { what: Found::value(format_args!("tag {tag}")) })
    }

    /// The tags of the index.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.manifests.iter().filter_map(|entry| entry.annotation(REF_NAME))
    }

    /// Enters an artifact under a tag; an entry that had the tag loses it and stays if it is referred to otherwise.
    pub fn set_artifact(&mut self, tag: &str, manifest: &Descriptor) {
        self.manifests.retain(|entry| entry.annotation(REF_NAME) != Some(tag));
        let mut entry = manifest.clone().annotated(REF_NAME, tag);
        entry.artifact_type = Some(ARTIFACT_TYPE.to_owned());
        self.manifests.push(entry);
    }

    /// As [`ImageIndex::set_artifact`], for an image with sealed layers.
    pub fn set_image(&mut self, tag: &str, manifest: &Descriptor) {
        self.manifests.retain(|entry| entry.annotation(REF_NAME) != Some(tag));
        self.manifests.push(manifest.clone().annotated(REF_NAME, tag));
    }

    /// Enters a grant or signature; twice the same changes nothing.
    pub fn add_referrer(&mut self, manifest: &Descriptor) {
        if self.manifests.iter().all(|entry| entry.digest != manifest.digest) {
            self.manifests.push(manifest.clone());
        }
    }

    /// Removes an entry; tells whether there was one.
    pub fn remove(&mut self, manifest: BlobDigest) -> bool {
        let before = self.manifests.len();
        self.manifests.retain(|entry| entry.digest != manifest);
        self.manifests.len() != before
    }

    /// Entries that may be grants or signatures: those without a tag and without a foreign artifact type.
    pub(super) fn referrer_candidates(&self) -> impl Iterator<Item = &Descriptor> {
        let kinds = [ReferrerKind::Grant.artifact_type(), ReferrerKind::Signature.artifact_type()];
        self.manifests.iter().filter(move |entry| {
            let fitting = entry.artifact_type.as_deref().is_none_or(|found| kinds.contains(&found));
            fitting && entry.annotation(REF_NAME).is_none()
        })
    }
}
