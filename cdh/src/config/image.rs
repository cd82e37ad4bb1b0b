//! `[image]`: how images are pulled. The hub hands it on; what a key means is decided where images are.

use std::path::PathBuf;

use serde::Deserialize;

use crate::hub_error::HubError;

/// Most layers that are fetched at a time for one image.
const MAXIMUM_DOWNLOADS: usize = 64;
/// Most further roots.
const MAXIMUM_ROOTS: usize = 64;

/// `[image]`. There is no policy unless one is configured, and nothing is accepted without one.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageConfig {
    /// Where layers are stored.
    pub work_dir: PathBuf,
    /// Layers that are fetched at a time for one image: 1 to 64.
    pub max_concurrent_layer_downloads_per_image: usize,
    /// Resource with the policy of images; wins over the inline one.
    pub image_security_policy_uri: Option<String>,
    /// The policy of images, inline.
    pub image_security_policy: Option<String>,
    /// Resource with the places of simple signatures; wins over the inline one.
    pub sigstore_config_uri: Option<String>,
    /// The places of simple signatures, inline.
    pub sigstore_config: Option<String>,
    /// Resource with the credentials of registries.
    pub authenticated_registry_credentials_uri: Option<String>,
    /// Registries and mirrors, inline; wins over the resource.
    pub registry_config: Option<toml::Value>,
    /// Resource with registries and mirrors.
    pub registry_configuration_uri: Option<String>,
    /// Proxies.
    pub image_pull_proxy: Option<ProxyConfig>,
    /// Authorities that registries' certificates may end at, each in PEM.
    pub extra_root_certificates: Vec<String>,
}

/// `[image.image_pull_proxy]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyConfig {
    /// For https.
    pub https_proxy: Option<String>,
    /// For http.
    pub http_proxy: Option<String>,
    /// Hosts that are reached without one.
    pub no_proxy: Option<String>,
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            work_dir: PathBuf::from("/run/kata-containers/image/"),
            max_concurrent_layer_downloads_per_image: 3,
            image_security_policy_uri: None,
            image_security_policy: None,
            sigstore_config_uri: None,
            sigstore_config: None,
            authenticated_registry_credentials_uri: None,
            registry_config: None,
            registry_configuration_uri: None,
            image_pull_proxy: None,
            extra_root_certificates: Vec::new(),
        }
    }
}

impl ImageConfig {
    pub(super) fn require_limits(&self) -> Result<(), HubError> {
        let invalid = |reason| Err(HubError::ConfigInvalid { reason });
        let downloads = self.max_concurrent_layer_downloads_per_image;
        if !(1..=MAXIMUM_DOWNLOADS).contains(&downloads) {
            return invalid(format!(
                "image.max_concurrent_layer_downloads_per_image: expected 1 to {MAXIMUM_DOWNLOADS}, found {downloads}"
            ));
        }
        let roots = self.extra_root_certificates.len();
        if roots > MAXIMUM_ROOTS {
            return invalid(format!(
                "image.extra_root_certificates: expected at most {MAXIMUM_ROOTS}, found {roots}"
            ));
        }
        if !self.work_dir.is_absolute() {
            return invalid("image.work_dir: expected an absolute path, found another".to_owned());
        }
        Ok(())
    }
}
