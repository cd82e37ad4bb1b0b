//! Manifest, index, configuration: what is pulled before anything is decided, and small blobs.

use hyper::Method;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::client::{Access, Call, Repository};
use super::digest::Digest;
use super::error::{RegistryError, shown};
use super::manifest::{self, CONFIG_MAX, Descriptor, Document, ImageConfig, MANIFEST_MAX, Manifest};
use super::platform::Platform;
use super::reference::Reference;
use super::retry::Retry;
use super::sources::Source;
use super::{Registry, RegistryClass};

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A manifest, whose parts are what their digests say. By tag, the digests are those that one source had at one time: whether they
/// are the right ones is for a signature policy, and nothing asks for the tag again.
#[derive(Clone, Debug)]
pub struct VerifiedManifest {
    /// What was asked for.
    pub reference: Reference,
    /// Where it came from: the reference at a mirror, or `reference` itself.
    pub source: Reference,
    /// Digest of the index that was gone through, if there was one.
    pub index_digest: Option<Digest>,
    /// Digest of the manifest.
    pub digest: Digest,
    /// The manifest's exact bytes.
    pub bytes: Vec<u8>,
    /// The manifest as data.
    pub manifest: Manifest,
    /// The configuration's exact bytes.
    pub config: Vec<u8>,
    /// What of them pulling needs; none for an artifact that is no image.
    pub image: Option<ImageConfig>,
    /// All sources, the one that answered first.
    pub(super) sources: Vec<Source>,
}

impl VerifiedManifest {
    /// Layers, the lowest first.
    #[must_use]
    pub fn layers(&self) -> &[Descriptor] {
        &self.manifest.layers
    }

    /// Bytes of all layers.
    #[must_use]
    pub fn layer_bytes(&self) -> u64 {
        self.layers().iter().fold(0, |sum, layer| sum.saturating_add(layer.size))
    }
}

/// One answer of a registry.
pub(super) struct Found {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
    pub(super) media_type: String,
}

impl Registry {
    /// Pulls the manifest of an image for a platform: index, manifest and configuration, no layer.
    ///
    /// # Errors
    ///
    /// See the codes of [`crate::registry`].
    pub async fn pull_manifest(
        &self,
        reference: &Reference,
        platform: &Platform,
        deadline: Instant,
    ) -> Result<VerifiedManifest, RegistryError> {
        self.pull_from_any(reference, Some(platform), deadline).await
    }

    /// Pulls the manifest of an artifact that is no image: no index is gone through, the configuration is not looked into.
    ///
    /// # Errors
    ///
    /// As [`Registry::pull_manifest`].
    pub async fn pull_artifact(
        &self,
        reference: &Reference,
        deadline: Instant,
    ) -> Result<VerifiedManifest, RegistryError> {
        self.pull_from_any(reference, None, deadline).await
    }

    async fn pull_from_any(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        deadline: Instant,
    ) -> Result<VerifiedManifest, RegistryError> {
        let mut sources = self.options.sources.of(reference)?;
        let mut tried = Vec::new();
        for index in 0..sources.len() {
            sources.rotate_left(usize::from(index > 0));
            let Some(source) = sources.first() else { break };
            let mut retry = Retry::new(deadline);
            let error = loop {
                match self.pull_from(reference, source, platform, deadline).await {
                    Ok(mut found) => {
                        found.sources = sources;
                        return Ok(found);
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

    async fn pull_from(
        &self,
        reference: &Reference,
        source: &Source,
        platform: Option<&Platform>,
        deadline: Instant,
    ) -> Result<VerifiedManifest, RegistryError> {
        let repository = self.repository(source, Access::Pull)?;
        let selector = source.reference.selector();
        let mut found = manifest_of(&repository, &selector, reference.digest(), deadline).await?;
        let mut index_digest = None;
        let manifest = match Document::parse(&found.bytes, &found.media_type)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(images) => {
                let Some(platform) = platform else {
                    return Err(bad("a manifest of an artifact", "an index".to_owned()));
                };
                let chosen = manifest::choose(&images, platform)?;
                index_digest = Some(found.digest);
                found = manifest_of(&repository, &chosen.digest.to_string(), Some(&chosen.digest), deadline)
                    .await?;
                require_as_described(chosen, &found)?;
                match Document::parse(&found.bytes, &found.media_type)? {
                    Document::Manifest(manifest) => manifest,
                    Document::Index(_) => {
                        return Err(bad("an index of manifests", "an index of indexes".to_owned()));
                    }
                }
            }
        };
        let total = manifest.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
        // GUARD: image-bytes -> evil_image_without_end
        if total > self.options.limits.image_bytes {
            let (what, maximum) = ("layers of an image", self.options.limits.image_bytes);
            return Err(RegistryError::TooLarge { what, maximum, found: total });
        }
        let config = small_blob(&repository, &manifest.config, CONFIG_MAX, deadline).await?;
        let image = platform.map(|platform| image_of(&manifest, &config, platform)).transpose()?;
        Ok(VerifiedManifest {
            reference: reference.clone(),
            source: source.reference.clone(),
            index_digest,
            digest: found.digest,
            bytes: found.bytes,
            manifest: *manifest,
            config,
            image,
            sources: Vec::new(),
        })
    }

    /// A small blob of a manifest, whole and verified: a signature, a core, a grant.
    ///
    /// # Errors
    ///
    /// As [`Registry::pull_manifest`]; `REGISTRY_TOO_LARGE` above `maximum` bytes.
    pub async fn fetch_bytes(
        &self,
        manifest: &VerifiedManifest,
        blob: &Descriptor,
        maximum: u64,
        deadline: Instant,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut tried = Vec::new();
        for source in &manifest.sources {
            let repository = self.repository(source, Access::Pull)?;
            let mut retry = Retry::new(deadline);
            let error = loop {
                match small_blob(&repository, blob, maximum, deadline).await {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) => match retry.after(error).await {
                        Ok(()) => {}
                        Err(error) => break error,
                    },
                }
            };
            tried.push((source.reference.to_string(), error));
        }
        Err(no_source(&manifest.reference, tried))
    }

    pub(super) fn repository<'a>(
        &'a self,
        source: &Source,
        access: Access<'_>,
    ) -> Result<Repository<'a>, RegistryError> {
        let login = self.options.credentials.of(&source.reference);
        Repository::new(&self.transport, &self.authorizations, login, source, access)
    }
}

/// One failure is that failure; several are a list.
pub(super) fn no_source(reference: &Reference, mut tried: Vec<(String, RegistryError)>) -> RegistryError {
    match tried.pop() {
        Some((_, error)) if tried.is_empty() => error,
        last => {
            tried.extend(last);
            RegistryError::NoSource { reference: reference.to_string(), tried }
        }
    }
}

pub(super) async fn manifest_of(
    repository: &Repository<'_>,
    selector: &str,
    expected: Option<&Digest>,
    deadline: Instant,
) -> Result<Found, RegistryError> {
    let path = repository.path(&format!("manifests/{selector}"));
    let headers = [(ACCEPT, HeaderValue::from_static(manifest::ACCEPT))];
    let what = format!("manifest {selector} of {}", repository.reference.name());
    let call = Call { method: Method::GET, path, headers: &headers, body: None, what: &what };
    let answer = repository.call(call, deadline).await?;
    let media_type = answer.header(CONTENT_TYPE).unwrap_or_default().to_owned();
    let stated = answer.header(CONTENT_DIGEST).map(str::to_owned);
    let bytes = answer.whole("manifest", MANIFEST_MAX, deadline).await?;
    if let Some(expected) = expected {
        expected.verify("manifest", &bytes)?;
    }
    if let Some(stated) = stated {
        // GUARD: manifest-stated-digest -> evil_registry_states_another_digest
        Digest::verify_stated(&repository.origin.to_string(), &stated, &bytes)?;
    }
    let digest = expected.copied().unwrap_or_else(|| Digest::of(&bytes));
    Ok(Found { bytes, digest, media_type })
}

pub(super) fn require_as_described(descriptor: &Descriptor, found: &Found) -> Result<(), RegistryError> {
    let length = u64::try_from(found.bytes.len()).unwrap_or(u64::MAX);
    let announced = found.media_type.split(';').next().unwrap_or_default().trim();
    // GUARD: manifest-described -> evil_index_describes_another_manifest
    if length != descriptor.size || announced != descriptor.media_type {
        return Err(bad(
            "the size and media type that the index states",
            format!("{length} bytes of {}", shown(announced)),
        ));
    }
    Ok(())
}

pub(super) async fn small_blob(
    repository: &Repository<'_>,
    blob: &Descriptor,
    maximum: u64,
    deadline: Instant,
) -> Result<Vec<u8>, RegistryError> {
    // GUARD: small-blob-size -> evil_configuration_is_huge
    if blob.size > maximum {
        return Err(RegistryError::TooLarge { what: "blob", maximum, found: blob.size });
    }
    let what = format!("blob {} of {}", blob.digest, repository.reference.name());
    let path = repository.path(&format!("blobs/{}", blob.digest));
    let call = Call { method: Method::GET, path, headers: &[], body: None, what: &what };
    let answer = repository.call(call, deadline).await?;
    let bytes = answer.whole("blob", blob.size, deadline).await?;
    blob.digest.verify("blob", &bytes)?;
    Ok(bytes)
}

fn image_of(manifest: &Manifest, config: &[u8], wanted: &Platform) -> Result<ImageConfig, RegistryError> {
    let media_type = manifest.config.media_type.as_str();
    if !matches!(media_type, OCI_CONFIG | DOCKER_CONFIG) {
        return Err(bad("the configuration of an image", shown(media_type)));
    }
    let layers = manifest.image_layers().ok_or_else(|| {
        let found = format!("{} blobs", manifest.layers.len());
        bad("ciphertext and tag table for each layer and for the manifest, and a core", found)
    })?;
    let image = ImageConfig::parse(config, layers)?;
    let os = (image.platform.os.as_str(), image.platform.architecture.as_str());
    // The variant is the index's word: many builders leave it out of the configuration.
    // GUARD: config-platform -> evil_configuration_is_for_another_machine
    if os != (wanted.os.as_str(), wanted.architecture.as_str()) {
        let (wanted, found) = (wanted.to_string(), image.platform.to_string());
        return Err(RegistryError::Platform { wanted, found });
    }
    Ok(image)
}

fn bad(expected: &'static str, found: String) -> RegistryError {
    RegistryError::Manifest { what: "manifest", expected, found }
}
