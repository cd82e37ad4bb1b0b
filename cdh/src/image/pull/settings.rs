//! What `[image]` of the bound configuration means, read anew for each pull: a policy that was changed counts at once.

use std::sync::Arc;

use tokio::time::Instant;

use crate::Error;
use crate::config::ImageConfig;
use crate::hub_error::HubError;
use crate::image::policy::{ImagePolicy, LookasideConfig};
use crate::registry::Registry;
use crate::resources::ResourceSource;
use crate::worker::Workers;

/// All that one pull is decided by.
pub(super) struct Settings {
    pub(super) policy: ImagePolicy,
    pub(super) lookaside: LookasideConfig,
    pub(super) registry: Registry,
}

impl Settings {
    pub(super) async fn read(
        config: &ImageConfig,
        resources: &dyn ResourceSource,
        workers: &Arc<dyn Workers>,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let policy = match &config.image_security_policy_uri {
            Some(uri) => ImagePolicy::load(Some(resource(resources, uri, deadline).await?.expose()))?,
            None => ImagePolicy::load(config.image_security_policy.as_ref().map(String::as_bytes))?,
        };
        let lookaside = match (&config.sigstore_config_uri, &config.sigstore_config) {
            (Some(uri), _) => LookasideConfig::parse(resource(resources, uri, deadline).await?.expose())?,
            (None, Some(text)) => LookasideConfig::parse(text.as_bytes())?,
            (None, None) => LookasideConfig::default(),
        };
        let options = config.registry_options(resources, workers, deadline).await?;
        Ok(Self { policy, lookaside, registry: Registry::new(options) })
    }
}

async fn resource(
    resources: &dyn ResourceSource,
    uri: &str,
    deadline: Instant,
) -> Result<Arc<crate::plaintext::Plaintext>, HubError> {
    let uri = attestation_agent::kbs::ResourceUri::parse(uri)?;
    resources.get(&uri, deadline).await
}
