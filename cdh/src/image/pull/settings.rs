//! What `[image]` of the bound configuration means, read anew for each pull: a policy that was changed counts at once.

use tokio::time::Instant;

use crate::Error;
use crate::config::ImageConfig;
use crate::hub_error::HubError;
use crate::image::policy::{ImagePolicy, LookasideConfig};
use crate::registry::{Credentials, Limits, Proxies, Registry, RegistryOptions, RegistryTrust, Sources};
use crate::resources::ResourceSource;

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
        let credentials = match &config.authenticated_registry_credentials_uri {
            Some(uri) => Credentials::parse(resource(resources, uri, deadline).await?.expose())?,
            None => Credentials::default(),
        };
        let sources = match (&config.registry_config, &config.registry_configuration_uri) {
            (Some(inline), _) => {
                let text = toml::to_string(inline).map_err(|_| invalid("image.registry_config"))?;
                Sources::parse(&text)?
            }
            (None, Some(uri)) => {
                let found = resource(resources, uri, deadline).await?;
                let text = std::str::from_utf8(found.expose());
                Sources::parse(text.map_err(|_| invalid("image.registry_configuration_uri"))?)?
            }
            (None, None) => Sources::default(),
        };
        let proxies = match &config.image_pull_proxy {
            Some(proxy) => Proxies::new(
                proxy.https_proxy.as_deref(),
                proxy.http_proxy.as_deref(),
                proxy.no_proxy.as_deref(),
            )?,
            None => Proxies::default(),
        };
        let roots: Vec<&str> = config.extra_root_certificates.iter().map(String::as_str).collect();
        // Nobody but the configuration says whom to trust: without a root there is no https.
        let trust = (!roots.is_empty()).then(|| RegistryTrust::new(&roots)).transpose()?;
        let limits =
            Limits { parallel: config.max_concurrent_layer_downloads_per_image, ..Limits::default() };
        let options =
            RegistryOptions { trust, credentials, proxies, sources, limits, ..RegistryOptions::default() };
        Ok(Self { policy, lookaside, registry: Registry::new(options) })
    }
}

async fn resource(
    resources: &dyn ResourceSource,
    uri: &str,
    deadline: Instant,
) -> Result<std::sync::Arc<crate::plaintext::Plaintext>, HubError> {
    let uri = attestation_agent::kbs::ResourceUri::parse(uri)?;
    resources.get(&uri, deadline).await
}

fn invalid(key: &'static str) -> HubError {
    HubError::ConfigInvalid {
        reason: format!("{key}: expected registries.conf in UTF-8, found another text"),
    }
}
