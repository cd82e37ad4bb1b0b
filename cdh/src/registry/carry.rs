//! Whole references from place to place, digests kept: registry to image layout, layout to registry, registry to registry.
//!
//! With an index go all its images; with a manifest goes what refers to it, such as grants and signatures of a sealed artifact.
//! For pipelines: no policy is asked, nothing is unpacked, and who gets the bytes verifies them again.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::Registry;
use super::digest::Digest;
use super::error::RegistryError;
use super::graph::{
    Graph, Member, REF_NAME, blob_in, entry_tag, fallback_tag, read_index, referrers_of, unreadable,
};
use super::manifest::{Descriptor, Document, OCI_INDEX};
use super::progress::{Meter, Progress};
use super::push::{Push, PushSource, Pushed};
use super::reference::Reference;
use super::store::{Store, StoreOptions, Trust};
use super::transfer::Place;
use crate::files;

/// What was carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Digest of what the reference or tag names.
    pub digest: Digest,
    /// Manifests: the named one, images of an index, referrers.
    pub manifests: usize,
    /// Those among them that refer to the named one.
    pub referrers: usize,
    /// Blobs.
    pub blobs: usize,
    /// Bytes of blobs that went over the network; what was there already did not.
    pub bytes: u64,
}

impl Registry {
    /// Pulls a reference into an image layout, under a tag. The layout is made if it is not there; what it holds stays.
    ///
    /// # Errors
    ///
    /// See the codes of [`crate::registry`]. What came until then is continued by the next call.
    pub async fn pull_layout(
        &self,
        from: &Reference,
        layout: &Path,
        tag: &str,
        progress: &dyn Progress,
        deadline: Instant,
    ) -> Result<Carried, RegistryError> {
        let graph = self.pull_graph(from, deadline).await?;
        std::fs::create_dir_all(layout).map_err(RegistryError::store("create", layout))?;
        let store = Arc::new(Store::open(layout, layout_options())?);
        let place = Place { reference: from, sources: &graph.sources };
        let blobs = graph.blobs();
        let fetched = self.fetch_all(&place, &blobs, &store, progress, deadline).await?;
        for member in graph.members() {
            store.insert(&member.descriptor.digest, &member.bytes)?;
        }
        // Last, and in one step: a layout names only what it has.
        write_index(layout, &graph, tag)?;
        // Only what this made and nobody used goes.
        for empty in ["partial", "blobs/sha512"] {
            let _ = std::fs::remove_dir(layout.join(empty));
        }
        Ok(carried(&graph, blobs.len(), fetched.received))
    }

    /// Pushes a tag of an image layout, or its only one.
    ///
    /// # Errors
    ///
    /// See the codes of [`crate::registry`].
    pub async fn push_layout(
        &self,
        layout: &Path,
        tag: Option<&str>,
        to: &Reference,
        progress: &dyn Progress,
        deadline: Instant,
    ) -> Result<Carried, RegistryError> {
        let graph = Graph::read(layout, tag)?;
        let push = self.push(to, &[])?;
        let open = |blob: &Descriptor| {
            let path = blob_in(layout, &blob.digest);
            let file = File::open(&path).map_err(|error| unreadable(&path, &error))?;
            Ok(PushSource::File { file: Arc::new(file), offset: 0 })
        };
        push_graph(&push, &graph, to, &open, progress, deadline).await
    }

    /// Copies a reference to another registry or repository. Blobs that are not there, and cannot be mounted, go through `store`.
    ///
    /// # Errors
    ///
    /// See the codes of [`crate::registry`].
    pub async fn copy(
        &self,
        from: &Reference,
        to: &Reference,
        store: &Arc<Store>,
        progress: &dyn Progress,
        deadline: Instant,
    ) -> Result<Carried, RegistryError> {
        let graph = self.pull_graph(from, deadline).await?;
        let push = self.push(to, std::slice::from_ref(from))?;
        let mut absent = Vec::new();
        for blob in graph.blobs() {
            if !push.has(&blob.digest, deadline).await? {
                absent.push(blob);
            }
        }
        let place = Place { reference: from, sources: &graph.sources };
        let fetched = self.fetch_all(&place, &absent, store, progress, deadline).await?;
        let open = |blob: &Descriptor| {
            let found = fetched.layers.iter().find(|stored| *stored.digest() == blob.digest);
            let missing =
                || RegistryError::Missing { from: "the store".to_owned(), what: blob.digest.to_string() };
            let file = found.ok_or_else(missing)?.file().try_clone();
            let file = file.map_err(|error| unreadable(store.root(), &error))?;
            Ok(PushSource::File { file: Arc::new(file), offset: 0 })
        };
        push_graph(&push, &graph, to, &open, progress, deadline).await
    }
}

/// A layout is the user's: nothing of it is removed, and nobody else is asked about it.
fn layout_options() -> StoreOptions {
    StoreOptions {
        bytes: u64::MAX,
        entries: usize::MAX,
        trust: Trust::Private,
        evict: false,
        ..StoreOptions::default()
    }
}

async fn push_graph(
    push: &Push<'_>,
    graph: &Graph,
    to: &Reference,
    open: &(dyn Fn(&Descriptor) -> Result<PushSource, RegistryError> + Sync),
    progress: &dyn Progress,
    deadline: Instant,
) -> Result<Carried, RegistryError> {
    let blobs = graph.blobs();
    let total = blobs.iter().fold(0_u64, |sum, blob| sum.saturating_add(blob.size));
    let meter = Meter::new(progress, total);
    let mut sent = 0;
    for blob in &blobs {
        if push.has(&blob.digest, deadline).await? {
            meter.found(blob.size);
            continue;
        }
        let pushed = push.blob(&blob.digest, blob.size, &open(blob)?, &|_| (), deadline).await?;
        if pushed == Pushed::Sent {
            sent += blob.size;
            meter.received(blob.size);
        } else {
            meter.found(blob.size);
        }
    }
    for member in graph.members() {
        let is_root = member.descriptor.digest == graph.root.descriptor.digest;
        let tag = to.tag().filter(|_| is_root);
        push.manifest(&member.bytes, &member.descriptor.media_type, tag, deadline).await?;
    }
    list_referrers(push, graph, deadline).await?;
    Ok(carried(graph, blobs.len(), sent))
}

/// A registry that keeps no list of referrers gets one under a tag; what stands there stays.
async fn list_referrers(push: &Push<'_>, graph: &Graph, deadline: Instant) -> Result<(), RegistryError> {
    if graph.referrers.is_empty() {
        return Ok(());
    }
    let subject = graph.root.descriptor.digest;
    let mut listed = referrers_of(push.repository(), &subject, deadline).await?;
    let before = listed.len();
    for member in &graph.referrers {
        if listed.iter().all(|entry| entry.digest != member.descriptor.digest) {
            listed.push(member.descriptor.clone());
        }
    }
    if listed.len() == before {
        return Ok(());
    }
    let entries: Vec<Json> = listed
        .iter()
        .map(|entry| {
            let own = graph.referrers.iter().find(|member| member.descriptor.digest == entry.digest);
            entry_json(entry, own)
        })
        .collect();
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    let bytes = serde_json::to_vec(&index).unwrap_or_default();
    push.manifest(&bytes, OCI_INDEX, Some(&fallback_tag(&subject)), deadline).await.map(drop)
}

fn entry_json(entry: &Descriptor, member: Option<&Member>) -> Json {
    let mut object = json!({
        "mediaType": entry.media_type, "digest": entry.digest.to_string(), "size": entry.size,
    });
    let artifact_type = member.and_then(|member| match &member.document {
        Document::Manifest(manifest) => {
            Some(manifest.artifact_type.clone().unwrap_or_else(|| manifest.config.media_type.clone()))
        }
        Document::Index(_) => None,
    });
    if let Some(map) = object.as_object_mut() {
        if let Some(artifact_type) = artifact_type {
            map.insert("artifactType".to_owned(), artifact_type.into());
        }
        if !entry.annotations.is_empty() {
            map.insert("annotations".to_owned(), json!(entry.annotations));
        }
    }
    object
}

fn write_index(layout: &Path, graph: &Graph, tag: &str) -> Result<(), RegistryError> {
    let mut entries = if layout.join("index.json").exists() { read_index(layout)? } else { Vec::new() };
    entries.retain(|entry| entry_tag(entry) != Some(tag));
    let mut root = entry_json(&graph.root.descriptor, Some(&graph.root));
    if let Some(map) = root.as_object_mut() {
        map.insert("annotations".to_owned(), json!({ REF_NAME: tag }));
    }
    entries.push(root);
    for member in &graph.referrers {
        let digest = member.descriptor.digest.to_string();
        if entries.iter().all(|entry| entry.get("digest").and_then(Json::as_str) != Some(&digest)) {
            entries.push(entry_json(&member.descriptor, Some(member)));
        }
    }
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    let bytes = serde_json::to_vec(&index).unwrap_or_default();
    for (name, bytes) in [("oci-layout", sealed_artifact::oci::OCI_LAYOUT.as_bytes()), ("index.json", &bytes)]
    {
        let path = layout.join(name);
        files::replace("write", &path, bytes).map_err(|error| unreadable(&path, &error))?;
    }
    Ok(())
}

fn carried(graph: &Graph, blobs: usize, bytes: u64) -> Carried {
    let manifests = graph.members().count();
    Carried {
        digest: graph.root.descriptor.digest,
        manifests,
        referrers: graph.referrers.len(),
        blobs,
        bytes,
    }
}
