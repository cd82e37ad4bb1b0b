//! Images whose layers are sealed: origin, fetch, key, landing, and the image that came of it held against its own manifest.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sealed_artifact::oci::{ArtifactManifest, image_payloads};
use sealed_artifact::parallel::Observer;
use sealed_artifact::policy::{Hex, PolicyDocument};
use tokio::time::Instant;

use super::settings::Settings;
use super::unpack::{Bytes, Cancel, Layer};
use super::{PolicyDigest, PullError, Pulled, Puller, Watched, annotated};
use crate::Error;
use crate::artifact::store::{Blob, require_length};
use crate::artifact::{Landed, Parts, Prepared, pin_of, require_environment};
use crate::config::SealedImage;
use crate::hub_error::HubError;
use crate::image::layer::Compression;
use crate::image::policy::Accepted;
use crate::registry::manifest::{Document, MANIFEST_MAX, Manifest};
use crate::registry::store::StoredBlob;
use crate::registry::{Descriptor, Digest, Reference, VerifiedManifest};

impl Puller {
    /// As a pull of any image, from the decision of the policy on.
    pub(super) async fn pull_sealed(
        &self,
        image: &str,
        settings: &Settings,
        outer: VerifiedManifest,
        accepted: Accepted,
        deadline: Instant,
        progress: &Watched<'_>,
    ) -> Result<Pulled, Error> {
        let none = HubError::NotAvailable { what: "opening of sealed layers" };
        let (opener, named) = self.opener.as_ref().ok_or(none)?;
        let entry = entry_of(named, &outer.reference);
        let core = outer.layers().last().ok_or_else(|| malformed(image, "no layer"))?;
        let beside = settings.registry.fetch_beside(&outer, core, deadline).await?;
        let pins = entry.map(|entry| pin_of(&entry.origin)).transpose()?;
        // Nothing else of it is fetched for a core that nobody named.
        let prepared = Prepared::of_parts(beside, pins.as_slice())?;
        let Some(entry) = entry.cloned() else { return Err(malformed(image, "no entry")) };
        require_environment(image, entry.environment.as_str(), &prepared)?;
        let count = fitting(&outer, &prepared)?;
        let least = outer.layer_bytes();
        self.kept.require(least).await?;
        let store = self.store().await?;
        let fetched = settings.registry.fetch_blobs(&outer, &store, progress, deadline).await?;
        let prepared = prepared.with_parts(Box::new(Stored { blobs: fetched.layers, count }));

        let cancel = Cancel::default();
        let watch = Watch(cancel.flag());
        let (own, name, environment) = (Arc::clone(opener), image.to_owned(), entry.environment.clone());
        let landed = tokio::task::spawn_blocking(move || {
            let landed = own.land(&name, environment.as_str(), &prepared, &watch)?;
            let unsealed = open(&name, &outer, &entry, &prepared, &landed)?;
            Ok::<_, Error>((outer, landed, unsealed))
        });
        let (outer, landed, (inner, digest)) = landed.await.map_err(|_| PullError::Interrupted)??;
        drop(cancel);

        let mut pins = self.pins(&outer)?;
        pins.extend(annotated(&inner)?);
        let transform = !pins.is_empty();
        let layers = layers(&outer, &inner, &Arc::new(landed))?;
        let verified = self.unpacked(least, None, layers, pins, transform).await?;
        self.discard(store, &outer).await;
        let measured = PolicyDigest::parse(&digest.to_string());
        let measured = measured.ok_or_else(|| PullError::Name { name: image.to_owned() })?;
        self.measured(image, &measured).await?;
        Ok(Pulled {
            manifest_digest: digest,
            sealed_digest: Some(outer.digest),
            index_digest: outer.index_digest,
            config: outer.config,
            image: verified,
            accepted,
            received: fetched.received,
            upper: self.options.upper,
        })
    }
}

fn malformed(image: &str, found: &str) -> Error {
    let (image, found) = (image.to_owned(), found.to_owned());
    PullError::Unsealed {
        image,
        expected: "an image with sealed layers that bound configuration names",
        found,
    }
    .into()
}

/// The entry for a whole reference, or else for its repository.
fn entry_of<'a>(named: &'a [SealedImage], reference: &Reference) -> Option<&'a SealedImage> {
    let find = |name: &str| named.iter().find(|entry| entry.image == name);
    find(&reference.to_string()).or_else(|| find(&reference.name()))
}

/// How many payloads there are, if the manifest is that of an image with this core, and small enough parts are small.
fn fitting(outer: &VerifiedManifest, prepared: &Prepared) -> Result<usize, Error> {
    let core = &prepared.store().core;
    let manifest = ArtifactManifest::parse(&outer.bytes)?;
    let count = manifest.payloads(core)?.len();
    let (_, inner) = image_payloads(core)?;
    require_small(&outer.reference.to_string(), inner.layout.size())?;
    Ok(count)
}

fn require_small(image: &str, size: u64) -> Result<(), PullError> {
    // GUARD: unsealed-manifest-size -> evil_sealed_manifest_of_a_huge_size
    if size > MANIFEST_MAX {
        let (image, found) = (image.to_owned(), size.to_string());
        return Err(PullError::Unsealed { image, expected: "a manifest of at most 4 MiB", found });
    }
    Ok(())
}

/// Blobs of the store: ciphertexts, then tag tables, then the core.
#[derive(Debug)]
struct Stored {
    blobs: Vec<Arc<StoredBlob>>,
    count: usize,
}

impl Stored {
    fn blob(&self, index: usize) -> Result<&StoredBlob, Error> {
        let missing = || PullError::Configuration { expected: "a blob for each payload and tag table" };
        Ok(self.blobs.get(index).map(Arc::as_ref).ok_or_else(missing)?)
    }
}

impl Parts for Stored {
    fn payload(&self, index: usize) -> Result<Blob, Error> {
        let blob = self.blob(index)?;
        let path = PathBuf::from(blob.digest().to_string());
        let file = blob.file().try_clone().map_err(Error::file("open", &path))?;
        Ok(Blob { file, path, offset: 0, length: blob.size(), stated: None })
    }

    fn tag_table(&self, index: usize, length: u64) -> Result<Vec<u8>, Error> {
        let blob = self.blob(self.count.saturating_add(index))?;
        require_length("tag table", index, length, blob.size())?;
        let mut bytes = Vec::new();
        let read = blob.reader().read_to_end(&mut bytes);
        read.map_err(Error::file("read", blob.digest().to_string()))?;
        Ok(bytes)
    }
}

/// Ends the landing when the pull was given up.
struct Watch(Arc<AtomicBool>);

impl Observer for Watch {
    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The manifest among the landed files, which they have to agree with.
fn open(
    image: &str,
    outer: &VerifiedManifest,
    entry: &SealedImage,
    prepared: &Prepared,
    landed: &Landed,
) -> Result<(Manifest, Digest), Error> {
    let (layers, manifest) = image_payloads(&prepared.store().core)?;
    let files = (0..layers.len())
        .map(|index| landed.landing.map(index).map_err(Error::from))
        .collect::<Result<Vec<_>, _>>()?;
    let bytes = landed.landing.map(layers.len())?;
    let contents = layers.iter().zip(&files);
    let unsealed = Unsealed {
        image,
        config: &outer.manifest.config,
        pinned: entry.manifest.map(|digest| *digest.as_bytes()),
        policy: landed.policy.as_ref(),
        manifest: (manifest.media_type.as_str(), bytes.bytes()),
        layers: contents.map(|(payload, file)| (payload.media_type.as_str(), file.bytes())).collect(),
    };
    unsealed.judge()
}

/// What came of it, and what it has to be.
struct Unsealed<'a> {
    image: &'a str,
    /// The configuration that everybody can see.
    config: &'a Descriptor,
    /// The digest of bound configuration.
    pinned: Option<[u8; 32]>,
    policy: Option<&'a PolicyDocument>,
    /// Media type and bytes.
    manifest: (&'a str, &'a [u8]),
    layers: Vec<(&'a str, &'a [u8])>,
}

impl Unsealed<'_> {
    fn judge(&self) -> Result<(Manifest, Digest), Error> {
        let refused = |expected: &'static str, found: String| {
            Err(PullError::Unsealed { image: self.image.to_owned(), expected, found }.into())
        };
        let (media_type, bytes) = self.manifest;
        let digest = Digest::of(bytes);
        // GUARD: unsealed-manifest-pinned -> evil_unsealed_manifest_of_another_image
        if self.pinned.is_some_and(|pinned| Digest::Sha256(pinned) != digest) {
            return refused("the manifest that bound configuration names", digest.to_string());
        }
        // GUARD: unsealed-manifest-policy -> evil_unsealed_manifest_that_the_policy_denies
        self.permitted(&digest)?;
        let Document::Manifest(manifest) = Document::parse(bytes, media_type)? else {
            return refused("a manifest", "an index".to_owned());
        };
        // GUARD: unsealed-config -> evil_unsealed_manifest_of_another_configuration
        if (manifest.config.digest, manifest.config.size) != (self.config.digest, self.config.size) {
            return refused("the configuration of the image", manifest.config.digest.to_string());
        }
        // GUARD: unsealed-layer-count -> evil_unsealed_layers_that_the_manifest_does_not_name
        if manifest.layers.len() != self.layers.len() {
            return refused("a layer for each of the manifest", self.layers.len().to_string());
        }
        for (described, (media_type, bytes)) in manifest.layers.iter().zip(&self.layers) {
            let found = described.digest.same_of(bytes);
            // GUARD: unsealed-layer-digest -> evil_unsealed_layers_that_the_manifest_does_not_name
            if found != described.digest || described.media_type != *media_type {
                return refused("the layer that the manifest names", format!("{found} of {media_type}"));
            }
        }
        Ok((*manifest, digest))
    }

    /// What the policy that the key was granted under says about the manifest: nobody else can say it before.
    fn permitted(&self, digest: &Digest) -> Result<(), Error> {
        let Some(rules) = self.policy.and_then(PolicyDocument::evidence) else { return Ok(()) };
        if matches!(digest, Digest::Sha256(found) if rules.unsigned_manifest.allows(&Hex(*found))) {
            return Ok(());
        }
        Err(sealed_artifact::ArtifactError::PolicyDenied {
            rule: "unsigned_manifest",
            expected: sealed_artifact::error::Found::text("the manifest that the policy names"),
            found: sealed_artifact::error::Found::text(&digest.to_string()),
        }
        .into())
    }
}

fn layers(outer: &VerifiedManifest, inner: &Manifest, landed: &Arc<Landed>) -> Result<Vec<Layer>, Error> {
    let none = || PullError::Configuration { expected: "one diff_id for each layer" };
    let diff_ids = &outer.image.as_ref().ok_or_else(none)?.diff_ids;
    if diff_ids.len() != inner.layers.len() {
        return Err(none().into());
    }
    let all = inner.layers.iter().zip(diff_ids).enumerate();
    let layers = all.map(|(index, (layer, diff_id))| {
        let compression = Compression::of_media_type(&layer.media_type)?;
        let bytes = Bytes::Landed(Arc::clone(landed), index);
        Ok(Layer { bytes, compression, diff_id: diff_id.to_string().parse()? })
    });
    layers.collect()
}

#[cfg(test)]
mod tests;
