//! One image, from its name to a mounted root, inside the guest.
//!
//! ```text
//!  name ─▶ Settings: policy, registries (bound configuration, resources), read for each pull
//!            │
//!            ▼ manifest, index, configuration: by digest, once
//!          policy decides ── refused: nothing was fetched, nothing is measured
//!            │ accepted                    (also for an image that is here already)
//!            ▼
//!          keys of encrypted layers ─▶ cache? ─▶ layers into the blob store ─▶ tree, objects in private memory
//!                                        │                                       │ pins: operator, annotation, label
//!                                        └──────────────┬────────────────────────┘
//!                                                       ▼
//!                                         measured ─▶ Pulled ─▶ mount: rootfs, config.json, or neither
//! ```
//!
//! Each arrow takes what the one before it authenticated, by the digests of the one manifest that the policy accepted: a tag is asked for
//! once. Pulls of one image wait for one another, others do not, unless there is no memory for both. A pull that is dropped, fails or comes too late
//! leaves no mount, no file of the bundle and no memory; verified blobs and parts of blobs stay in the store, for the next one. When an image is
//! unpacked its blobs go, unless bound configuration keeps them for images that share them.
//!
//! Unpacked images are in memory of the guest that nobody can write to any more ([`PrivateMemory`](crate::composefs::mount::PrivateMemory)):
//! plaintext of encrypted layers never reaches a disk. A few of them are kept, by the digest of their configuration, and all that there are take no
//! more memory than they may: the one that was used longest ago makes room, never one that is mounted. For each use of a kept
//! one the policy decides again, the keys of its layers are asked for again, pins are compared again, it is measured again, and one of its
//! objects is hashed.
//!
//! Layers are unpacked by a child without privileges ([`unpacking`](crate::image::unpacking)), never in this process. Trees are never published on
//! a disk with fs-verity.
//!
//! # Sealed layers
//!
//! An image whose layers are sealed (specification, sealed artifact §10.3) is opened only where bound configuration names it, with the origin of
//! its core: origin and environment come before the first layer is fetched, and the key after all of them are here. Layers land as artifacts
//! do: each segment is authenticated before anybody sees any of them, and the manifest that is among the payloads says what they have to be.
//! The digest of that manifest is measured. Such images are not kept.
//!
//! # Pins
//!
//! The operator may give a digest for a name; the image may have one as annotation or label. All there are have to hold. A pinned tree has the
//! form in which composefs takes digests ([`transform_for_oci`](crate::image::layer::transform_for_oci)), others are as their layers say.
//!
//! # Codes
//!
//! | code | means |
//! |---|---|
//! | `PULL_BUNDLE` | the bundle's directory |
//! | `PULL_CONFIGURATION` | a configuration of another form |
//! | `PULL_DEADLINE` | too late; says how far it was |
//! | `PULL_INTERRUPTED` | given up, or a worker was lost |
//! | `PULL_MEASURE` | not measured, and so not used |
//! | `PULL_NAME` | no name of an image for a policy |
//! | `PULL_ROOM` | no memory for it |
//! | `PULL_UNPACKER` | no process to unpack in |
//! | `PULL_UNSEALED` | what was unsealed is another image than the core, or bound configuration, says |
//!
//! and those of [`crate::registry`], [`crate::image::policy`], [`crate::image::ocicrypt`], [`crate::image::layer`], [`crate::composefs`] and the
//! hub's resources.

mod bundle;
mod error;
mod kept;
mod measure;
mod sealed;
mod settings;
mod sources;
mod unpack;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use tokio::time::Instant;

pub use bundle::Bundle;
pub use error::PullError;
pub use measure::{DOMAIN, ImageEvent, Measure, OPERATION, Registers};

use crate::Error;
use crate::artifact::Opener;
use crate::composefs::ComposefsError;
use crate::composefs::mount::{Verified, half_of_memory};
use crate::composefs::pin::{LABEL, Pin};
use crate::config::{ImageConfig, SealedImage};
use crate::image::layer::{Compression, Limits};
use crate::image::ocicrypt::{EncryptedLayer, LayerKey};
use crate::image::policy::{Accepted, Digest as PolicyDigest, ImageName, Subject};
use crate::modes::Modes;
use crate::registry::manifest::Manifest;
use crate::registry::store::{Store, StoreOptions};
use crate::registry::{Digest, Platform, Progress, Reference, RegistryError, Transferred, VerifiedManifest};
use crate::resources::ResourceSource;
use crate::service::Images;
use crate::worker::Workers;

use kept::Kept;
use settings::Settings;
use sources::{Keys, Packets, Signatures};
use unpack::{Bytes, Layer, Order};

/// What the configuration does not say.
#[derive(Clone, Debug)]
pub struct PullerOptions {
    /// For which machine.
    pub platform: Platform,
    /// Bytes and files of one unpacked image: memory of the guest.
    pub memory: (u64, u64),
    /// Bytes and files that may be written above a root: memory of the guest, too.
    pub upper: (u64, u64),
    /// Bounds of unpacking.
    pub limits: Limits,
    /// Directories of the measured image whose files may be keys of a policy; none unless somebody vouches for one.
    pub key_directories: Vec<PathBuf>,
    /// Digests of metadata images, by `registry/repository` or the whole reference.
    pub pins: BTreeMap<String, Pin>,
    /// Unpacked images that are kept although nobody uses them.
    pub kept: usize,
    /// Bytes of all unpacked images together, in use or kept: memory of the guest.
    pub total: u64,
    /// Whether blobs stay in the store when their image is unpacked.
    pub keep_layers: bool,
}

impl Default for PullerOptions {
    /// This machine; half of its memory for one image as for all, and a file for each of its pages; no keys in files, no pins; 2 images, no layers.
    fn default() -> Self {
        let half = half_of_memory();
        Self {
            platform: Platform::host(),
            memory: half,
            upper: half,
            limits: Limits::default(),
            key_directories: Vec::new(),
            pins: BTreeMap::new(),
            kept: 2,
            total: half.0,
            keep_layers: false,
        }
    }
}

/// What a kept tree is known by: its configuration, and whether it has the form of pins.
type Key = (Digest, bool);

/// Pulls images.
pub struct Puller {
    config: ImageConfig,
    resources: Arc<dyn ResourceSource>,
    modes: Modes,
    measure: Arc<dyn Measure>,
    workers: Arc<dyn Workers>,
    options: PullerOptions,
    /// Who opens layers that are sealed, and which ones.
    opener: Option<(Arc<Opener>, Vec<SealedImage>)>,
    store: tokio::sync::OnceCell<Arc<Store>>,
    busy: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
    kept: Arc<Kept>,
}

impl fmt::Debug for Puller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Puller").field("work_dir", &self.config.work_dir).finish_non_exhaustive()
    }
}

/// An image that the policy accepted, which is measured and all here.
pub struct Pulled {
    manifest_digest: Digest,
    sealed_digest: Option<Digest>,
    index_digest: Option<Digest>,
    config: Vec<u8>,
    image: Arc<Verified>,
    accepted: Accepted,
    received: u64,
    upper: (u64, u64),
}

impl fmt::Debug for Pulled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulled").field("accepted", &self.accepted.record()).finish_non_exhaustive()
    }
}

impl Pulled {
    /// Digest of the manifest; of an image whose layers are sealed, of the one that it had before.
    #[must_use]
    pub const fn manifest_digest(&self) -> &Digest {
        &self.manifest_digest
    }

    /// Digest of the manifest that was pulled and accepted, if its layers are sealed.
    #[must_use]
    pub const fn sealed_digest(&self) -> Option<&Digest> {
        self.sealed_digest.as_ref()
    }

    /// Digest of the index that it was found in.
    #[must_use]
    pub const fn index_digest(&self) -> Option<&Digest> {
        self.index_digest.as_ref()
    }

    /// Exact bytes of the configuration.
    #[must_use]
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// The digest of the metadata image, as a pin.
    #[must_use]
    pub fn image_digest(&self) -> Pin {
        Pin::Sha256(self.image.digest())
    }

    /// Why it was accepted.
    #[must_use]
    pub const fn accepted(&self) -> &Accepted {
        &self.accepted
    }

    /// Bytes of layers that came over the network for it; 0 when it was here.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Its tree, mounted at no path, with a layer of its own to write to unless it is to be `read_only`. Blocks.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_…`.
    pub fn root(&self, read_only: bool) -> Result<OwnedFd, Error> {
        let mounted = self.image.mount()?;
        let (bytes, files) = self.upper;
        Ok(if read_only { mounted.into_root() } else { mounted.writable(bytes, files)?.into_root() })
    }

    /// Makes `rootfs`, mounted, and `config.json` in a directory that is there and has neither. Blocks.
    ///
    /// # Errors
    ///
    /// `PULL_BUNDLE`, `PULL_CONFIGURATION`, `COMPOSEFS_…`: nothing is left in the directory then.
    pub fn mount(&self, bundle: &Path) -> Result<Bundle, Error> {
        Bundle::make(bundle, &self.image, self.upper, &self.config)
    }
}

impl Puller {
    /// Under a configuration that the platform vouches for. Nothing is asked for, opened or started yet.
    #[must_use]
    pub fn new(
        config: ImageConfig,
        resources: Arc<dyn ResourceSource>,
        modes: Modes,
        measure: Arc<dyn Measure>,
        workers: Arc<dyn Workers>,
        options: PullerOptions,
    ) -> Self {
        let (store, busy) = (tokio::sync::OnceCell::new(), Mutex::default());
        let kept = Kept::new(options.total, options.kept);
        Self { config, resources, modes, measure, workers, options, opener: None, store, busy, kept }
    }

    /// With this to open layers that are sealed, of the images that bound configuration names.
    #[must_use]
    pub fn opening(self, opener: Arc<Opener>, images: Vec<SealedImage>) -> Self {
        Self { opener: Some((opener, images)), ..self }
    }

    /// Pulls an image, unless it is refused.
    ///
    /// # Errors
    ///
    /// See the codes above. Nothing of the image is used or measured then, unless measuring is what failed.
    pub async fn pull(
        &self,
        image: &str,
        deadline: Instant,
        progress: &dyn Progress,
    ) -> Result<Pulled, Error> {
        let watched = Watched { progress, last: Mutex::default() };
        let late = || Error::from(PullError::deadline(image, *lock(&watched.last)));
        match tokio::time::timeout_at(deadline, self.pull_all(image, deadline, &watched)).await {
            Err(_) => Err(late()),
            Ok(Err(Error::Registry(error))) if is_late(&error) => Err(late()),
            Ok(found) => found,
        }
    }

    async fn pull_all(
        &self,
        image: &str,
        deadline: Instant,
        progress: &Watched<'_>,
    ) -> Result<Pulled, Error> {
        let settings = Settings::read(&self.config, &*self.resources, &self.workers, deadline).await?;
        let reference = Reference::parse(image)?;
        let manifest = settings.registry.pull_manifest(&reference, &self.options.platform, deadline).await?;
        let accepted = self.decide(&settings, &manifest, deadline).await?;
        if manifest.manifest.sealed_core().is_some() {
            return self.pull_sealed(image, &settings, manifest, accepted, deadline, progress).await;
        }
        let pins = self.pins(&manifest)?;
        let keys = self.keys(&manifest, deadline).await?;
        let key: Key = (manifest.manifest.config.digest, !pins.is_empty());
        let turn = self.turn(key.0);
        let _turn = turn.lock().await;
        let (verified, received) = match self.kept(key, &pins).await? {
            Some(verified) => (verified, 0),
            None => {
                let least = manifest.layer_bytes();
                self.kept.require(least).await?;
                let store = self.store().await?;
                let fetched = settings.registry.fetch_blobs(&manifest, &store, progress, deadline).await?;
                let (layers, received) = (layers(&manifest, keys, &fetched.layers)?, fetched.received);
                drop(fetched);
                let verified = self.unpacked(least, Some(key), layers, pins, key.1).await?;
                self.discard(store, &manifest).await;
                (verified, received)
            }
        };
        self.measured(image, accepted.manifest_digest()).await?;
        Ok(Pulled {
            manifest_digest: manifest.digest,
            sealed_digest: None,
            index_digest: manifest.index_digest,
            config: manifest.config,
            image: verified,
            accepted,
            received,
            upper: self.options.upper,
        })
    }

    /// Unpacked, in memory that counts. With a key it is kept for others.
    async fn unpacked(
        &self,
        least: u64,
        key: Option<Key>,
        layers: Vec<Layer>,
        pins: Vec<Pin>,
        transform: bool,
    ) -> Result<Arc<Verified>, Error> {
        let PullerOptions { limits, memory: (bytes, files), .. } = self.options;
        let room = self.kept.reserve(least, bytes).await?;
        let memory = (room.bytes(), files);
        let order = Order { layers, limits, memory, pins, transform };
        let verified = Arc::new(unpack::unpack(&*self.workers, order).await?);
        room.fill(key, &verified).await?;
        Ok(verified)
    }

    /// What was unpacked is not needed a second time. What somebody else reads stays, and what cannot be removed is removed when there is no room.
    async fn discard(&self, store: Arc<Store>, manifest: &VerifiedManifest) {
        if self.options.keep_layers {
            return;
        }
        let blobs: Vec<Digest> = manifest.layers().iter().map(|layer| layer.digest).collect();
        let _ = tokio::task::spawn_blocking(move || store.discard(&blobs)).await;
    }

    /// Measured, before anybody uses it.
    async fn measured(&self, image: &str, digest: &PolicyDigest) -> Result<(), Error> {
        let event = ImageEvent::new(image, digest);
        // GUARD: pull-measured -> evil_image_that_cannot_be_measured
        self.measure
            .image(&event)
            .await
            .map_err(|source| PullError::Measure { image: image.to_owned(), source })?;
        Ok(())
    }

    /// Asked for each pull, of images that are here too.
    async fn decide(
        &self,
        settings: &Settings,
        manifest: &VerifiedManifest,
        deadline: Instant,
    ) -> Result<Accepted, Error> {
        let name = |reference: &Reference| {
            let name = reference.to_string();
            ImageName::parse(&name).map_err(|_| PullError::Name { name })
        };
        let digest = |digest: &Digest| {
            let digest = PolicyDigest::parse(&digest.to_string());
            digest.ok_or(PullError::Name { name: manifest.reference.to_string() })
        };
        let elsewhere = manifest.source != manifest.reference;
        let subject = Subject {
            reference: name(&manifest.reference)?,
            mirror: elsewhere.then(|| name(&manifest.source)).transpose()?,
            manifest_digest: digest(&manifest.digest)?,
            index_digest: manifest.index_digest.as_ref().map(digest).transpose()?,
        };
        let signatures =
            Signatures { registry: &settings.registry, lookaside: &settings.lookaside, deadline };
        let directories = &self.options.key_directories;
        let keys = Keys { resources: &*self.resources, directories, deadline };
        Ok(settings.policy.decide(&subject, &signatures, &keys).await?)
    }

    /// Every pin that there is for an image. One that cannot be read is an error.
    fn pins(&self, manifest: &VerifiedManifest) -> Result<Vec<Pin>, Error> {
        let named = [manifest.reference.name(), manifest.reference.to_string()];
        let mut pins: Vec<Pin> =
            named.iter().filter_map(|name| self.options.pins.get(name).copied()).collect();
        pins.extend(annotated(&manifest.manifest)?);
        let labels = bundle::labels(&manifest.config)?;
        pins.extend(labels.get(LABEL).map(|value| Pin::parse(value)).transpose()?);
        Ok(pins)
    }

    /// The keys of encrypted layers, before anything of them is fetched; also for images that are here: a key that was taken back counts.
    async fn keys(&self, manifest: &VerifiedManifest, deadline: Instant) -> Result<Vec<Opened>, Error> {
        let packets = Packets { resources: &*self.resources, modes: &self.modes, deadline };
        let mut opened = Vec::new();
        for layer in manifest.layers() {
            opened.push(match EncryptedLayer::parse(&layer.media_type, &layer.annotations)? {
                None => Opened { compression: Compression::of_media_type(&layer.media_type)?, key: None },
                Some(encrypted) => Opened {
                    compression: Compression::of_media_type(encrypted.media_type())?,
                    key: Some(encrypted.unwrap_key(&packets).await?),
                },
            });
        }
        Ok(opened)
    }

    /// Whoever holds it works on this image alone.
    fn turn(&self, image: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = lock(&self.busy);
        busy.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = busy.get(&image).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        busy.insert(image, Arc::downgrade(&turn));
        turn
    }

    /// A kept image, if its digest is what every pin says. A pin by SHA-512 cannot be compared with it: such an image is made anew.
    async fn kept(&self, key: Key, pins: &[Pin]) -> Result<Option<Arc<Verified>>, Error> {
        let Some(image) = self.kept.find(key).await? else { return Ok(None) };
        if pins.iter().any(|pin| matches!(pin, Pin::Sha512(_))) {
            return Ok(None);
        }
        let found = Pin::Sha256(image.digest());
        let wrong = pins.iter().find(|pin| **pin != found);
        // GUARD: pull-kept-pinned -> evil_kept_image_under_another_pin
        if let Some(expected) = wrong {
            let (expected, found) = (expected.to_string(), found.to_string());
            return Err(ComposefsError::Mismatch { what: "image", expected, found }.into());
        }
        Ok(Some(image))
    }

    async fn store(&self) -> Result<Arc<Store>, Error> {
        let open = async {
            let path = self.config.work_dir.clone();
            let opened = tokio::task::spawn_blocking(move || {
                let mut builder = std::fs::DirBuilder::new();
                builder.recursive(true).mode(0o700);
                builder.create(&path).map_err(Error::file("make the work directory", &path))?;
                Ok::<_, Error>(Arc::new(Store::open(&path, StoreOptions::default())?))
            });
            opened.await.map_err(|_| PullError::Interrupted)?
        };
        self.store.get_or_try_init(|| open).await.cloned()
    }
}

/// The pins among the annotations of a manifest.
fn annotated(manifest: &Manifest) -> Result<Vec<Pin>, ComposefsError> {
    let annotations = manifest.annotations.iter();
    Ok(Pin::of_annotations(annotations.map(|(name, value)| (name.as_str(), value.as_str())))?
        .into_iter()
        .collect())
}

/// What is known of a layer before it is here.
struct Opened {
    compression: Compression,
    key: Option<LayerKey>,
}

fn layers(
    manifest: &VerifiedManifest,
    opened: Vec<Opened>,
    blobs: &[Arc<crate::registry::store::StoredBlob>],
) -> Result<Vec<Layer>, Error> {
    let none = PullError::Configuration { expected: "one diff_id for each layer" };
    let image = manifest.image.as_ref().ok_or(none)?;
    if blobs.len() != opened.len() || image.diff_ids.len() != opened.len() {
        return Err(PullError::Configuration { expected: "one diff_id for each layer" }.into());
    }
    let all = opened.into_iter().zip(blobs).zip(&image.diff_ids);
    let layers = all.map(|((Opened { compression, key }, blob), diff_id)| {
        let bytes = Bytes::Stored(Arc::clone(blob), key);
        Ok(Layer { bytes, compression, diff_id: diff_id.to_string().parse()? })
    });
    layers.collect()
}

/// Remembers how far a transfer came.
struct Watched<'a> {
    progress: &'a dyn Progress,
    last: Mutex<Option<Transferred>>,
}

impl Progress for Watched<'_> {
    fn advanced(&self, state: &Transferred) {
        *lock(&self.last) = Some(*state);
        self.progress.advanced(state);
    }
}

fn is_late(error: &RegistryError) -> bool {
    match error {
        RegistryError::Deadline { .. } => true,
        RegistryError::NoSource { tried, .. } => tried.iter().any(|(_, error)| is_late(error)),
        _ => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Images for Puller {
    async fn pull(&self, image: &str, bundle: &Path, deadline: Instant) -> Result<String, Error> {
        let pulled = Self::pull(self, image, deadline, &()).await?;
        let digest = pulled.manifest_digest.to_string();
        let path = bundle.to_owned();
        let mounted = tokio::task::spawn_blocking(move || pulled.mount(&path));
        // Dropped here, whenever that is, what was mounted is taken back.
        let mounted = tokio::time::timeout_at(deadline, mounted).await;
        let mounted = mounted.map_err(|_| PullError::deadline(image, None))?;
        mounted.map_err(|_| PullError::Interrupted)??.keep();
        Ok(digest)
    }
}

#[cfg(test)]
mod tests;
