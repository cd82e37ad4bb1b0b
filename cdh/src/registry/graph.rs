//! All manifests that belong together: an index and its images, or one manifest, and what refers to it (grants, signatures).

use std::path::Path;

use hyper::Method;
use hyper::header::{ACCEPT, HeaderValue};
use serde_json::Value as Json;
use tokio::time::Instant;

use super::client::{Access, Call, Repository};
use super::digest::Digest;
use super::error::{RegistryError, shown};
use super::manifest::{Descriptor, Document, IMAGES_MAX, MANIFEST_MAX, OCI_INDEX};
use super::pull::{Found, manifest_of, no_source, require_as_described};
use super::reference::Reference;
use super::retry::Retry;
use super::sources::Source;
use super::{Registry, RegistryClass};
use crate::files;

/// Most bytes of all manifests of a graph.
const GRAPH_MAX: usize = 64 << 20;
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Manifests in the order in which they can be stored, and the blobs that they name.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) root: Member,
    /// Images of the root, if it is an index.
    pub(super) images: Vec<Member>,
    /// What refers to the root.
    pub(super) referrers: Vec<Member>,
    pub(super) sources: Vec<Source>,
}

/// One manifest.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Vec<u8>,
    pub(super) document: Document,
}

impl Member {
    fn new(found: Found, stated: Option<&Descriptor>) -> Result<Self, RegistryError> {
        if let Some(stated) = stated {
            require_as_described(stated, &found)?;
        }
        let document = Document::parse(&found.bytes, &found.media_type)?;
        let media_type = found.media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let descriptor = Descriptor {
            media_type,
            digest: found.digest,
            size: u64::try_from(found.bytes.len()).unwrap_or(u64::MAX),
            annotations: stated.map(|stated| stated.annotations.clone()).unwrap_or_default(),
            platform: None,
        };
        Ok(Self { descriptor, bytes: found.bytes, document })
    }

    fn is_about(&self, digest: &Digest) -> bool {
        let Document::Manifest(manifest) = &self.document else { return false };
        manifest.subject.as_ref().is_some_and(|subject| subject.digest == *digest)
    }
}

impl Graph {
    /// All manifests, each after what it names.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.images.iter().chain([&self.root]).chain(&self.referrers)
    }

    /// All blobs, each once.
    pub(super) fn blobs(&self) -> Vec<Descriptor> {
        let mut seen = std::collections::HashSet::new();
        let manifests = self.members().filter_map(|member| match &member.document {
            Document::Manifest(manifest) => Some(manifest),
            Document::Index(_) => None,
        });
        let blobs = manifests.flat_map(|manifest| [&manifest.config].into_iter().chain(&manifest.layers));
        blobs.filter(|blob| seen.insert(blob.digest)).cloned().collect()
    }

    /// Reads the graph of a tag, or of the only tag, from an image layout.
    pub(super) fn read(layout: &Path, tag: Option<&str>) -> Result<Self, RegistryError> {
        let entries = read_index(layout)?;
        let tagged: Vec<&Json> = entries.iter().filter(|entry| entry_tag(entry).is_some()).collect();
        let root = match (tag, tagged.as_slice()) {
            (Some(tag), tagged) => tagged.iter().find(|entry| entry_tag(entry) == Some(tag)).copied(),
            (None, [only]) => Some(*only),
            (None, _) => None,
        };
        let root = root.ok_or_else(|| RegistryError::Missing {
            from: shown(&layout.display().to_string()),
            what: tag.map_or_else(|| "single tag".to_owned(), |tag| format!("tag {}", shown(tag))),
        })?;
        let root = Member::new(stored(layout, root)?, None)?;
        let mut images = Vec::new();
        if let Document::Index(described) = &root.document {
            for image in described {
                images.push(Member::new(stored_as(layout, image.digest, &image.media_type)?, Some(image))?);
            }
        }
        let mut referrers = Vec::new();
        for entry in entries.iter().filter(|entry| entry_tag(entry).is_none()) {
            let member = Member::new(stored(layout, entry)?, None)?;
            if member.is_about(&root.descriptor.digest) {
                referrers.push(member);
            }
        }
        Ok(Self { root, images, referrers, sources: Vec::new() })
    }
}

impl Registry {
    /// The graph of a reference, from the first source that serves it whole.
    pub(super) async fn pull_graph(
        &self,
        reference: &Reference,
        deadline: Instant,
    ) -> Result<Graph, RegistryError> {
        let mut sources = self.options.sources.of(reference)?;
        let mut tried = Vec::new();
        for index in 0..sources.len() {
            sources.rotate_left(usize::from(index > 0));
            let Some(source) = sources.first() else { break };
            let mut retry = Retry::new(deadline);
            let error = loop {
                match self.graph_from(reference, source, deadline).await {
                    Ok(mut graph) => {
                        graph.sources = sources;
                        return Ok(graph);
                    }
                    Err(error) => match retry.after(error).await {
                        Ok(()) => {}
                        Err(error) => break error,
                    },
                }
            };
            let is_final = error.class() == RegistryClass::Local;
            tried.push((source.reference.to_string(), error));
            if is_final {
                break;
            }
        }
        Err(no_source(reference, tried))
    }

    async fn graph_from(
        &self,
        reference: &Reference,
        source: &Source,
        deadline: Instant,
    ) -> Result<Graph, RegistryError> {
        let repository = self.repository(source, Access::Pull)?;
        let found =
            manifest_of(&repository, &source.reference.selector(), reference.digest(), deadline).await?;
        let root = Member::new(found, None)?;
        let mut total = root.bytes.len();
        let mut images = Vec::new();
        if let Document::Index(described) = &root.document {
            for image in described {
                images.push(member_of(&repository, image, &mut total, deadline).await?);
            }
        }
        let mut referrers = Vec::new();
        for described in referrers_of(&repository, &root.descriptor.digest, deadline).await? {
            let member = member_of(&repository, &described, &mut total, deadline).await?;
            // GUARD: referrer-subject -> evil_referrer_of_another_manifest
            if !member.is_about(&root.descriptor.digest) {
                continue;
            }
            referrers.push(member);
        }
        Ok(Graph { root, images, referrers, sources: Vec::new() })
    }
}

async fn member_of(
    repository: &Repository<'_>,
    described: &Descriptor,
    total: &mut usize,
    deadline: Instant,
) -> Result<Member, RegistryError> {
    let digest = described.digest;
    let found = manifest_of(repository, &digest.to_string(), Some(&digest), deadline).await?;
    *total += found.bytes.len();
    // GUARD: graph-bytes -> evil_index_of_endless_manifests
    if *total > GRAPH_MAX {
        let maximum = u64::try_from(GRAPH_MAX).unwrap_or(u64::MAX);
        let found = u64::try_from(*total).unwrap_or(u64::MAX);
        return Err(RegistryError::TooLarge { what: "manifests of a reference", maximum, found });
    }
    Member::new(found, Some(described))
}

/// What a registry says refers to a manifest: by its API, or by the tag that stands in for it (distribution specification 1.1).
pub(super) async fn referrers_of(
    repository: &Repository<'_>,
    digest: &Digest,
    deadline: Instant,
) -> Result<Vec<Descriptor>, RegistryError> {
    let path = repository.path(&format!("referrers/{digest}"));
    let headers = [(ACCEPT, HeaderValue::from_static(OCI_INDEX))];
    let what = format!("referrers of {digest}");
    let call = Call { method: Method::GET, path, headers: &headers, body: None, what: &what };
    let bytes = match repository.call(call, deadline).await {
        Ok(answer) => answer.whole("list of referrers", MANIFEST_MAX, deadline).await?,
        Err(RegistryError::Missing { .. } | RegistryError::Status { .. }) => {
            match manifest_of(repository, &fallback_tag(digest), None, deadline).await {
                Ok(found) => found.bytes,
                Err(RegistryError::Missing { .. }) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        }
        Err(error) => return Err(error),
    };
    match Document::parse(&bytes, OCI_INDEX)? {
        Document::Index(described) => Ok(described),
        Document::Manifest(_) => Ok(Vec::new()),
    }
}

/// The tag that lists referrers where a registry does not.
pub(super) fn fallback_tag(digest: &Digest) -> String {
    let hex: String = digest.hex().chars().take(64).collect();
    format!("{}-{hex}", digest.algorithm())
}

/// Entries of `index.json`.
pub(super) fn read_index(layout: &Path) -> Result<Vec<Json>, RegistryError> {
    let path = layout.join("index.json");
    let bytes = files::read("read", &path, MANIFEST_MAX).map_err(|error| unreadable(&path, &error))?;
    let index: Json = serde_json::from_slice(&bytes).map_err(|error| unreadable(&path, &error))?;
    let entries = index.get("manifests").and_then(Json::as_array).cloned().unwrap_or_default();
    if entries.len() > IMAGES_MAX {
        return Err(unreadable(&path, &format!("{} entries", entries.len())));
    }
    Ok(entries)
}

pub(super) fn entry_tag(entry: &Json) -> Option<&str> {
    entry.get("annotations")?.get(REF_NAME)?.as_str()
}

fn stored(layout: &Path, entry: &Json) -> Result<Found, RegistryError> {
    let text = |name: &str| entry.get(name).and_then(Json::as_str).unwrap_or_default();
    stored_as(layout, Digest::parse(text("digest"))?, text("mediaType"))
}

fn stored_as(layout: &Path, digest: Digest, media_type: &str) -> Result<Found, RegistryError> {
    let path = blob_in(layout, &digest);
    let bytes = files::read("read", &path, MANIFEST_MAX).map_err(|error| unreadable(&path, &error))?;
    digest.verify("manifest of the layout", &bytes)?;
    Ok(Found { bytes, digest, media_type: media_type.to_owned() })
}

pub(super) fn blob_in(layout: &Path, digest: &Digest) -> std::path::PathBuf {
    layout.join("blobs").join(digest.algorithm()).join(digest.hex())
}

pub(super) fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> RegistryError {
    RegistryError::store("read", path)(std::io::Error::other(error.to_string()))
}
