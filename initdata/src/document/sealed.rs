//! `sealed.toml`: which sealed artifacts are landed, by whose word, where, and for which container.
//!
//! ```toml
//! environment = "production"
//! chip_root = """-----BEGIN CERTIFICATE-----
//! …"""
//!
//! [[artifact]]
//! name = "ranker"
//! reference = "registry.example/acme/ranker:v3"
//! sealer = { key = "sha256:…", family = "acme/ranker", min_counter = 3 }
//! path = "/models/ranker"
//! container = { image = "sha256:…", policy_container = 1 }
//!
//! [[secret]]
//! container = { image = "sha256:…", policy_container = 2 }
//! ```

use serde::Deserialize;

use super::container_identity::Container;
use super::values::{ContainerPath, Reference, Sha256Digest, Tag};

/// Most artifacts of a document.
const MAXIMUM_ARTIFACTS: usize = 64;
/// Most containers with secrets alone.
const MAXIMUM_SECRETS: usize = 64;

/// What is landed in this guest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawSealed")]
pub struct SealedConfig {
    /// The environment that artifacts' policies and the chip's tier are compared with.
    pub environment: Tag,
    /// The certificate that a chip's chain has to end at, PEM; without it the measured image pins one, or no chip is believed.
    pub chip_root: Option<String>,
    /// The artifacts: names and, within a container, paths are apart.
    pub artifacts: Vec<Artifact>,
    /// Containers that get the sealed values of their environment, beside those of the artifacts.
    pub secrets: Vec<Container>,
}

/// One sealed artifact.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawArtifact")]
pub struct Artifact {
    /// Its name in logs and metrics, no more.
    pub name: Tag,
    /// Where it may be found. Not trusted: mirrors and caches may serve it too.
    pub reference: Reference,
    /// Which cores are acceptable.
    pub origin: Origin,
    /// The directory in the container where its payloads appear, read-only.
    pub path: ContainerPath,
    /// The only container that sees it.
    pub container: Container,
}

/// By whose word a core is acceptable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// `core`: this core alone.
    Core(Sha256Digest),
    /// `sealer`: cores that this key signed, of one family, from a counter on.
    Sealer {
        /// SHA-256 of the sealer's public key (SubjectPublicKeyInfo).
        key: Sha256Digest,
        /// Rollback family.
        family: Tag,
        /// Lowest counter.
        min_counter: u64,
    },
}

/// `sealer`, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealer {
    /// SHA-256 of the sealer's public key (SubjectPublicKeyInfo).
    pub key: Sha256Digest,
    /// Rollback family.
    pub family: Tag,
    /// Lowest counter.
    pub min_counter: u64,
}

impl Origin {
    /// Of an entry that has exactly one of both.
    #[must_use]
    pub fn one_of(core: Option<Sha256Digest>, sealer: Option<Sealer>) -> Option<Self> {
        match (core, sealer) {
            (Some(core), None) => Some(Self::Core(core)),
            (None, Some(Sealer { key, family, min_counter })) => {
                Some(Self::Sealer { key, family, min_counter })
            }
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSealed {
    environment: Tag,
    chip_root: Option<String>,
    #[serde(default)]
    artifact: Vec<Artifact>,
    #[serde(default)]
    secret: Vec<RawSecret>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSecret {
    container: Container,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArtifact {
    name: Tag,
    reference: Reference,
    core: Option<Sha256Digest>,
    sealer: Option<Sealer>,
    path: ContainerPath,
    container: Container,
}

impl TryFrom<RawSealed> for SealedConfig {
    type Error = String;

    fn try_from(raw: RawSealed) -> Result<Self, String> {
        let artifacts = raw.artifact;
        let secrets: Vec<_> = raw.secret.into_iter().map(|secret| secret.container).collect();
        if (artifacts.is_empty() && secrets.is_empty()) || artifacts.len() > MAXIMUM_ARTIFACTS {
            return Err(format!(
                "expected 1 to {MAXIMUM_ARTIFACTS} artifacts, or containers with secrets, found {}",
                artifacts.len()
            ));
        }
        if secrets.len() > MAXIMUM_SECRETS {
            return Err(format!("expected at most {MAXIMUM_SECRETS} secrets, found {}", secrets.len()));
        }
        for (index, artifact) in artifacts.iter().enumerate() {
            for other in artifacts.iter().skip(index.saturating_add(1)) {
                let same_place = artifact.container == other.container && artifact.path.overlaps(&other.path);
                // GUARD: initdata-artifacts-apart -> evil_operator_artifacts_in_one_place
                if same_place || artifact.name == other.name {
                    return Err(format!(
                        "artifacts {} and {}: expected two names, and paths apart within a container",
                        artifact.name, other.name
                    ));
                }
            }
        }
        Ok(Self { environment: raw.environment, chip_root: raw.chip_root, artifacts, secrets })
    }
}

impl TryFrom<RawArtifact> for Artifact {
    type Error = String;

    fn try_from(raw: RawArtifact) -> Result<Self, String> {
        let origin = Origin::one_of(raw.core, raw.sealer);
        let origin = origin.ok_or_else(|| format!("artifact {}: expected one of core, sealer", raw.name))?;
        Ok(Self {
            name: raw.name,
            reference: raw.reference,
            origin,
            path: raw.path,
            container: raw.container,
        })
    }
}
