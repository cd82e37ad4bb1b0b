//! One image as files, for whoever makes another of it: from an image layout, or from a registry by way of one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;

use super::Registry;
use super::digest::Digest;
use super::error::{RegistryError, shown};
use super::graph::{Graph, blob_in};
use super::manifest::{self, CONFIG_MAX, Descriptor, Document, Manifest};
use super::platform::Platform;
use super::progress::Progress;
use super::reference::Reference;
use super::store::{Store, StoreOptions};
use crate::files;

/// An image whose parts are files. Manifest and configuration are what their digests say; layers were not read.
#[derive(Clone, Debug)]
pub struct LocalImage {
    /// Digest of the manifest.
    pub digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// Its bytes, in a file.
    pub manifest_file: PathBuf,
    /// Bytes of the configuration.
    pub config: Vec<u8>,
    /// Layers and where they are, the lowest first.
    pub layers: Vec<(Descriptor, PathBuf)>,
}

impl LocalImage {
    /// The image of a tag, or of the only tag, of a layout; of an index, the one for a platform.
    ///
    /// # Errors
    ///
    /// `REGISTRY_MISSING`, `REGISTRY_MANIFEST`, `REGISTRY_PLATFORM`, `REGISTRY_DIGEST`; the layout cannot be read.
    pub fn of_layout(layout: &Path, tag: Option<&str>, platform: &Platform) -> Result<Self, RegistryError> {
        let graph = Graph::read(layout, tag)?;
        let member = match &graph.root.document {
            Document::Manifest(_) => &graph.root,
            Document::Index(images) => {
                let chosen = manifest::choose(images, platform)?;
                let found = graph.images.iter().find(|member| member.descriptor.digest == chosen.digest);
                found.ok_or_else(|| RegistryError::Missing {
                    from: shown(&layout.display().to_string()),
                    what: chosen.digest.to_string(),
                })?
            }
        };
        let Document::Manifest(manifest) = &member.document else {
            let (what, expected) = ("index", "manifests");
            return Err(RegistryError::Manifest { what, expected, found: "an index".to_owned() });
        };
        let path = |digest: &Digest| blob_in(layout, digest);
        let config_file = path(&manifest.config.digest);
        let config = files::read("read", &config_file, CONFIG_MAX)
            .map_err(|error| super::graph::unreadable(&config_file, &error))?;
        manifest.config.digest.verify("configuration of the layout", &config)?;
        Ok(Self {
            digest: member.descriptor.digest,
            manifest_file: path(&member.descriptor.digest),
            config,
            layers: manifest.layers.iter().map(|layer| (layer.clone(), path(&layer.digest))).collect(),
            manifest: (**manifest).clone(),
        })
    }
}

impl Registry {
    /// Pulls an image into an empty directory, as files.
    ///
    /// # Errors
    ///
    /// See the codes of [`crate::registry`].
    pub async fn pull_files(
        &self,
        from: &Reference,
        platform: &Platform,
        directory: &Path,
        progress: &dyn Progress,
        deadline: Instant,
    ) -> Result<LocalImage, RegistryError> {
        let manifest = self.pull_manifest(from, platform, deadline).await?;
        let options = StoreOptions { bytes: u64::MAX, evict: false, ..StoreOptions::default() };
        let store = Arc::new(Store::open(directory, options)?);
        self.fetch_blobs(&manifest, &store, progress, deadline).await?;
        store.insert(&manifest.digest, &manifest.bytes)?;
        let layers = manifest.layers().iter();
        Ok(LocalImage {
            digest: manifest.digest,
            manifest_file: blob_in(directory, &manifest.digest),
            layers: layers.map(|layer| (layer.clone(), blob_in(directory, &layer.digest))).collect(),
            config: manifest.config,
            manifest: manifest.manifest,
        })
    }
}
