//! `[image]` as the options of a client of registries: for images, and for sealed artifacts that are fetched.

use std::sync::Arc;

use attestation_agent::kbs::ResourceUri;
use tokio::time::Instant;

use super::ImageConfig;
use crate::Error;
use crate::hub_error::HubError;
use crate::plaintext::Plaintext;
use crate::registry::{Credentials, Limits, Patience, Proxies, RegistryOptions, RegistryTrust, Sources};
use crate::resources::ResourceSource;
use crate::worker::Workers;

impl ImageConfig {
    /// The options. Roots and proxies are inline; registries and mirrors, too, or a resource; credentials are a resource. What is not
    /// configured is not had: no root of the platform, no mirror, nobody's credentials. Whoever has keys speaks to registries by another
    /// process, of `workers`.
    ///
    /// # Errors
    ///
    /// `REGISTRY_CONFIG`, `CDH_CONFIG_INVALID`; those of the source.
    pub async fn registry_options(
        &self,
        source: &dyn ResourceSource,
        workers: &Arc<dyn Workers>,
        deadline: Instant,
    ) -> Result<RegistryOptions, Error> {
        let roots: Vec<&str> = self.extra_root_certificates.iter().map(String::as_str).collect();
        let trust = (!roots.is_empty()).then(|| RegistryTrust::new(&roots)).transpose()?;
        let proxy = self.image_pull_proxy.clone().unwrap_or_default();
        let proxies = Proxies::new(
            proxy.https_proxy.as_deref(),
            proxy.http_proxy.as_deref(),
            proxy.no_proxy.as_deref(),
        )?;
        let sources = match (&self.registry_config, &self.registry_configuration_uri) {
            (Some(toml::Value::String(text)), _) => Sources::parse(text)?,
            (Some(table), _) => {
                let text = toml::to_string(table).map_err(|_| HubError::ConfigInvalid {
                    reason: "image.registry_config: expected a table or a text, found another".to_owned(),
                })?;
                Sources::parse(&text)?
            }
            (None, Some(uri)) => {
                let text = resource(source, uri, deadline).await?;
                let text = std::str::from_utf8(text.expose()).map_err(|_| HubError::ConfigInvalid {
                    reason: "image.registry_configuration_uri: expected UTF-8, found another".to_owned(),
                })?;
                Sources::parse(text)?
            }
            (None, None) => Sources::default(),
        };
        let credentials = match &self.authenticated_registry_credentials_uri {
            Some(uri) => Credentials::parse(resource(source, uri, deadline).await?.expose())?,
            None => Credentials::default(),
        };
        let limits = Limits { parallel: self.max_concurrent_layer_downloads_per_image, ..Limits::default() };
        let workers = Some(Arc::clone(workers));
        let patience = Patience::default();
        Ok(RegistryOptions { trust, credentials, proxies, sources, limits, patience, workers })
    }
}

async fn resource(
    source: &dyn ResourceSource,
    uri: &str,
    deadline: Instant,
) -> Result<Arc<Plaintext>, HubError> {
    source.get(&ResourceUri::parse(uri)?, deadline).await
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use async_trait::async_trait;

    use super::*;
    use crate::config::HubConfig;

    struct Table(HashMap<&'static str, &'static str>);

    #[async_trait]
    impl ResourceSource for Table {
        async fn get(&self, uri: &ResourceUri, _: Instant) -> Result<Arc<Plaintext>, HubError> {
            let uri = uri.to_string();
            let found = self.0.get(uri.as_str()).ok_or(HubError::OfflineMissing { uri })?;
            Plaintext::take_from(&mut found.as_bytes().to_vec()).map(Arc::new)
        }
    }

    async fn options(image: &str) -> Result<RegistryOptions, &'static str> {
        let config = HubConfig::parse(&format!("[image]\n{image}\n")).unwrap();
        let table = Table(HashMap::from([
            ("kbs:///a/b/auths", "{\"auths\": {\"registry.example\": {\"auth\": \"dXNlcjpwYXNz\"}}}"),
            ("kbs:///a/b/mirrors", "[[registry]]\nlocation = \"registry.example\"\nblocked = true\n"),
            ("kbs:///a/b/garbage", "\u{1}"),
        ]));
        let workers = Arc::new(crate::worker::Executed::this_program()) as _;
        config.image.registry_options(&table, &workers, Instant::now()).await.map_err(|error| error.code())
    }

    fn blocked(options: &RegistryOptions) -> bool {
        let reference = crate::registry::Reference::parse("registry.example/acme/x:v1").unwrap();
        options.sources.of(&reference).is_err_and(|error| error.code() == "REGISTRY_BLOCKED")
    }

    #[tokio::test]
    async fn what_is_configured_is_had_and_nothing_else() {
        let none = options("").await.unwrap();
        assert!(none.workers.is_some(), "whoever has keys does not speak to registries itself");
        assert!(none.trust.is_none() && none.limits.parallel == 3 && !blocked(&none));
        let all = options(
            "max_concurrent_layer_downloads_per_image = 7\nauthenticated_registry_credentials_uri = \"kbs:///a/b/auths\"\n\
             registry_configuration_uri = \"kbs:///a/b/mirrors\"\n",
        );
        let all = all.await.unwrap();
        let reference = crate::registry::Reference::parse("registry.example/acme/x:v1").unwrap();
        assert!(all.credentials.of(&reference).is_some() && blocked(&all) && all.limits.parallel == 7);
        // Inline wins, as a text or as a table.
        for inline in ["registry_config = \"\"", "registry_config = { unqualified-search-registries = [] }"] {
            let uri = "registry_configuration_uri = \"kbs:///a/b/garbage\"";
            assert!(!blocked(&options(&format!("{uri}\n{inline}\n")).await.unwrap()), "{inline}");
        }
    }

    #[tokio::test]
    async fn evil_registry_configuration_of_the_hub_is_refused() {
        for (image, expected) in [
            ("extra_root_certificates = [\"x\"]", "REGISTRY_CONFIG"),
            ("registry_configuration_uri = \"kbs:///a/b/garbage\"", "REGISTRY_CONFIG"),
            ("authenticated_registry_credentials_uri = \"kbs:///a/b/garbage\"", "REGISTRY_CONFIG"),
            ("authenticated_registry_credentials_uri = \"kbs:///a/b/none\"", "CDH_OFFLINE_NO_RESOURCE"),
            ("registry_configuration_uri = \"file:///etc/x\"", "KBS_RESOURCE_URI_INVALID"),
        ] {
            assert_eq!(options(image).await.unwrap_err(), expected, "{image}");
        }
    }
}
