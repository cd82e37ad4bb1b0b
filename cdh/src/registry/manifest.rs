//! Manifests, indexes and image configurations (OCI image specification 1.1, Docker image manifest version 2 schema 2).
//!
//! A document is parsed only after its digest was compared with whoever named it, if somebody did. What could be read as a
//! manifest and as an index is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::digest::Digest;
use super::error::{RegistryError, shown};
use super::platform::Platform;

/// OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// What is asked for, as header `Accept`.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
application/vnd.docker.distribution.manifest.list.v2+json";

/// Largest manifest or index in bytes.
pub const MANIFEST_MAX: u64 = 4 << 20;
/// Largest configuration of an image in bytes.
pub const CONFIG_MAX: u64 = 4 << 20;
/// Most layers of a manifest.
pub const LAYERS_MAX: usize = 1_024;
/// Most images of an index.
pub const IMAGES_MAX: usize = 1_024;
/// Most annotations of one object.
pub const ANNOTATIONS_MAX: usize = 512;
const MEDIA_TYPE_MAX: usize = 255;

/// A reference to a blob by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type.
    pub media_type: String,
    /// Digest.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Annotations, as the manifest has them.
    pub annotations: BTreeMap<String, String>,
    /// Platform, in an index.
    pub platform: Option<Platform>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Capped<(String, String), ANNOTATIONS_MAX>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Capped<RawDescriptor, LAYERS_MAX>>,
    manifests: Option<Capped<RawDescriptor, IMAGES_MAX>>,
    subject: Option<RawDescriptor>,
    #[serde(default)]
    annotations: Capped<(String, String), ANNOTATIONS_MAX>,
}

/// What was read.
#[derive(Clone, Debug)]
pub enum Document {
    /// An index of manifests.
    Index(Vec<Descriptor>),
    /// A manifest.
    Manifest(Box<Manifest>),
}

/// A manifest.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Its media type.
    pub media_type: String,
    /// Type of an artifact that is no image.
    pub artifact_type: Option<String>,
    /// Configuration.
    pub config: Descriptor,
    /// Layers, the lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about.
    pub subject: Option<Descriptor>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// The digest that an image with sealed layers says is its core's.
    #[must_use]
    pub fn sealed_core(&self) -> Option<&str> {
        let named = self.annotations.get(sealed_artifact::oci::CORE_ANNOTATION).map(String::as_str);
        named.filter(|_| self.artifact_type.is_none())
    }

    /// How many layers the image has, sealed or not.
    pub(super) fn image_layers(&self) -> Option<usize> {
        if self.sealed_core().is_none() {
            return Some(self.layers.len());
        }
        sealed_artifact::oci::image_layers(self.layers.len())
    }
}

impl Document {
    /// Reads a manifest or an index of at most [`MANIFEST_MAX`] bytes. `media_type` is what it was announced as.
    ///
    /// # Errors
    ///
    /// `REGISTRY_MANIFEST`, `REGISTRY_TOO_LARGE`.
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self, RegistryError> {
        let bad = |expected, found: &str| RegistryError::Manifest {
            what: "manifest",
            expected,
            found: shown(found),
        };
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if length > MANIFEST_MAX {
            return Err(RegistryError::TooLarge { what: "manifest", maximum: MANIFEST_MAX, found: length });
        }
        let announced = media_type.split(';').next().unwrap_or_default().trim();
        let is_index = match announced {
            OCI_MANIFEST | DOCKER_MANIFEST => false,
            OCI_INDEX | DOCKER_INDEX => true,
            other => return Err(bad("a manifest or index of OCI, or Docker's of schema 2", other)),
        };
        let raw: RawDocument =
            serde_json::from_slice(bytes).map_err(|error| bad("JSON of its form", &error.to_string()))?;
        if raw.schema_version != 2 {
            return Err(bad("schemaVersion 2", &raw.schema_version.to_string()));
        }
        // GUARD: manifest-media-type -> evil_manifest_of_two_kinds
        if raw.media_type.as_deref().is_some_and(|own| own != announced) {
            return Err(bad(
                "the media type that it was announced as",
                raw.media_type.as_deref().unwrap_or_default(),
            ));
        }
        match (raw.config, raw.layers, raw.manifests) {
            (None, None, Some(manifests)) if is_index => {
                let manifests = manifests.0.into_iter().map(RawDescriptor::read);
                Ok(Self::Index(manifests.collect::<Result<_, _>>()?))
            }
            (Some(config), Some(layers), None) if !is_index => Ok(Self::Manifest(Box::new(Manifest {
                media_type: announced.to_owned(),
                artifact_type: raw.artifact_type,
                config: config.read()?,
                layers: layers.0.into_iter().map(RawDescriptor::read).collect::<Result<_, _>>()?,
                subject: raw.subject.map(RawDescriptor::read).transpose()?,
                annotations: raw.annotations.0.into_iter().collect(),
            }))),
            _ if is_index => Err(bad("an index with manifests and nothing of a manifest", "another form")),
            _ => Err(bad("a manifest with config and layers and nothing of an index", "another form")),
        }
    }
}

impl RawDescriptor {
    fn read(self) -> Result<Descriptor, RegistryError> {
        let found = &self.media_type;
        let plain = found.len() <= MEDIA_TYPE_MAX && found.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain || found.is_empty() {
            let (what, expected) = ("descriptor", "a media type of at most 255 letters");
            return Err(RegistryError::Manifest { what, expected, found: shown(found) });
        }
        Ok(Descriptor {
            digest: digest_in("descriptor", &self.digest)?,
            media_type: self.media_type,
            size: self.size,
            annotations: self.annotations.0.into_iter().collect(),
            platform: self.platform,
        })
    }
}

/// The image of an index for a platform: see [`crate::registry::platform`].
pub(super) fn choose<'a>(
    images: &'a [Descriptor],
    wanted: &Platform,
) -> Result<&'a Descriptor, RegistryError> {
    let fits = |image: &&Descriptor| image.platform.as_ref().is_some_and(|platform| wanted.is(platform));
    images.iter().find(fits).ok_or_else(|| {
        let found: Vec<String> = images
            .iter()
            .filter_map(|image| image.platform.as_ref())
            .take(8)
            .map(Platform::to_string)
            .collect();
        let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        RegistryError::Platform { wanted: wanted.to_string(), found }
    })
}

fn digest_in(what: &'static str, text: &str) -> Result<Digest, RegistryError> {
    let bad = || RegistryError::Manifest { what, expected: Digest::FORM, found: shown(text) };
    Digest::read(text).ok_or_else(bad)
}

/// What pulling needs of an image's configuration. The exact bytes are kept for others.
#[derive(Clone, Debug)]
pub struct ImageConfig {
    /// What the image says that it is for.
    pub platform: Platform,
    /// Digests of the layers' plain tar archives, the lowest first.
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(flatten)]
    platform: Platform,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Capped<String, LAYERS_MAX>,
}

impl ImageConfig {
    /// Reads the configuration of an image with `layers` layers.
    ///
    /// # Errors
    ///
    /// `REGISTRY_MANIFEST`.
    pub fn parse(bytes: &[u8], layers: usize) -> Result<Self, RegistryError> {
        let bad = |expected, found: String| RegistryError::Manifest {
            what: "image configuration",
            expected,
            found,
        };
        let raw: RawConfig = serde_json::from_slice(bytes)
            .map_err(|error| bad("JSON with os, architecture and rootfs", shown(&error.to_string())))?;
        if raw.rootfs.kind != "layers" {
            return Err(bad("rootfs of type layers", shown(&raw.rootfs.kind)));
        }
        let diff_ids: Vec<Digest> = raw
            .rootfs
            .diff_ids
            .0
            .iter()
            .map(|text| digest_in("image configuration", text))
            .collect::<Result<_, _>>()?;
        // GUARD: config-diff-ids -> evil_configuration_names_fewer_layers
        if diff_ids.len() != layers {
            return Err(bad("one diff_id for each layer", format!("{} for {layers}", diff_ids.len())));
        }
        Ok(Self { platform: raw.platform, diff_ids })
    }
}

/// A list or object of at most `N` members; the next one is not kept.
struct Capped<T, const N: usize>(Vec<T>);

impl<T, const N: usize> Default for Capped<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

struct CappedVisitor<T, const N: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Capped<T, N>
where
    CappedVisitor<T, N>: Visitor<'de, Value = Self>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CappedVisitor(PhantomData))
    }
}

impl<'de, const N: usize> Visitor<'de> for CappedVisitor<(String, String), N> {
    type Value = Capped<(String, String), N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of at most {N} texts")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Capped::default())
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            if members.len() == N || members.insert(name, value).is_some() {
                return Err(serde::de::Error::custom(format!("more than {N} members, or one twice")));
            }
        }
        Ok(Capped(members.into_iter().collect()))
    }
}

macro_rules! capped_list {
    ($($item:ty),*) => {$(
        impl<'de, const N: usize> Visitor<'de> for CappedVisitor<$item, N> {
            type Value = Capped<$item, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {N}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    // GUARD: manifest-list-cap -> evil_manifest_of_a_million_layers
                    if items.len() == N {
                        return Err(serde::de::Error::custom(format!("more than {N} items")));
                    }
                    items.push(item);
                }
                Ok(Capped(items))
            }
        }
    )*};
}

capped_list!(RawDescriptor, String);

#[cfg(test)]
mod tests;
