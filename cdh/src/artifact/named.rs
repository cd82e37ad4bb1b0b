//! Lands the artifacts that bound `sealed.toml` names, for peers of the hub: from the directory where the host stores ciphertext, else from the
//! registry, by ranges.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use initdata::{Artifact, Origin, SealedConfig};
use protocol::artifact::ArtifactLandRequest;
use sealed_artifact::signature::Pin;
use tokio::time::Instant;

use super::cache::Cache;
use super::opener::{Opener, require_environment};
use super::prepared::{Prepared, pin_of};
use super::remote;
use crate::Error;
use crate::config::ImageConfig;
use crate::hub_error::HubError;
use crate::registry::{Limits, Reference, Registry, RegistryOptions};
use crate::resources::ResourceSource;
use crate::service::{LandedFiles, Lander, Progress};
use crate::worker::Workers;

/// How long one landing from a registry may take.
const PATIENCE: Duration = Duration::from_secs(3600);

/// The artifacts of a guest.
pub struct NamedArtifacts {
    config: SealedConfig,
    opener: Opener,
    image: ImageConfig,
    resources: Arc<dyn ResourceSource>,
    workers: Arc<dyn Workers>,
}

impl fmt::Debug for NamedArtifacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedArtifacts")
            .field("artifacts", &self.config.artifacts.len())
            .finish_non_exhaustive()
    }
}

impl NamedArtifacts {
    /// Those of bound `sealed.toml`; registries are asked as `[image]` of bound `cdh.toml` says. Where the
    /// host stores ciphertext, the opener knows. Children of `workers` speak to registries.
    #[must_use]
    pub fn new(
        config: SealedConfig,
        opener: Opener,
        image: ImageConfig,
        resources: Arc<dyn ResourceSource>,
        workers: Arc<dyn Workers>,
    ) -> Self {
        Self { config, opener, image, resources, workers }
    }

    /// The entry that a peer means: by its reference, by the digest of the core that it is pinned to, or by its family alone.
    fn named(&self, order: &ArtifactLandRequest) -> Result<&Artifact, HubError> {
        let means = |artifact: &&Artifact| {
            let (by_digest, family) = match &artifact.origin {
                Origin::Core(core) => {
                    (order.reference == format!("sha256:{}", hex::encode(core.as_bytes())), None)
                }
                Origin::Sealer { family, .. } => (false, Some(family.as_str())),
                _ => (false, None),
            };
            let of_family = !order.family.is_empty() && family == Some(order.family.as_str());
            by_digest
                || artifact.reference.as_str() == order.reference
                || (order.reference.is_empty() && of_family)
        };
        let found = self.config.artifacts.iter().find(means);
        found.ok_or_else(|| HubError::NotNamed { reference: order.reference.clone() })
    }

    fn prepare(&self, artifact: &Artifact, pins: &[Pin], cache: Option<&Cache>) -> Result<Prepared, Error> {
        let reference = artifact.reference.as_str();
        let stored = cache.map(|cache| cache.prepare(reference, pins)).transpose()?.flatten();
        if let Some(stored) = stored {
            return Ok(stored);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(Error::file("start", "the network runtime"))?;
        let deadline = Instant::now() + PATIENCE;
        let options =
            runtime.block_on(self.image.registry_options(&*self.resources, &self.workers, deadline))?;
        // Nothing is stored: the landing bounds what comes.
        let limits = Limits { image_bytes: u64::MAX, ..options.limits };
        let registry = Registry::new(RegistryOptions { limits, ..options });
        remote::prepare(registry, runtime, &Reference::parse(reference)?, pins, deadline)
    }
}

impl Lander for NamedArtifacts {
    fn land(&self, order: &ArtifactLandRequest, progress: &Progress) -> Result<Box<dyn LandedFiles>, Error> {
        let artifact = self.named(order)?;
        let pins = [pin_of(&artifact.origin)?];
        let cache = self.opener.shared.cache()?;
        let prepared = self.prepare(artifact, &pins, cache.as_ref())?;
        let (name, environment) = (artifact.name.as_str(), self.config.environment.as_str());
        require_environment(name, environment, &prepared)?;
        let family = prepared.store().core.parameters().family().as_str();
        // GUARD: artifact-family -> evil_peer_lands_another_family
        if !order.family.is_empty() && order.family != family {
            return Err(HubError::NotNamed { reference: order.family.clone() }.into());
        }
        progress.set_total(prepared.total());
        Ok(Box::new(self.opener.land(name, environment, &prepared, progress)?))
    }
}
