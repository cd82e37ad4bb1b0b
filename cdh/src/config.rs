//! `cdh.toml`: upstream's keys, and ours under `[innerkeep]`. Unknown keys are refused, because a key that is ignored is a decision that
//! nobody made. Nothing is read from the environment or the kernel's command line.

mod credential;
mod image;
mod images;
mod pins;
mod registry;
mod rest;
mod sealed;
mod secrets;
mod volumes;

use attestation_agent::config::LogConfig;
use attestation_agent::kbs::{
    BrokerTrust, ConfigFault, KbsOptions, KbsUrl, PlainHttp, SpkiSha256, TeeKeyKind,
};
use attestation_agent::service::ListedPeer;
use initdata::InsecureMode;
use sealed_artifact::digest::RecipientKeyDigest;
use sealed_artifact::kbs::{BrokerName, KbsRecipient};
use serde::Deserialize;

use crate::hub_error::HubError;
use crate::modes::Modes;

pub(crate) use credential::PARTIAL;
pub use credential::{CREDENTIALS, Credential, CredentialPath, MAXIMUM_CREDENTIALS};
pub use image::{ImageConfig, ProxyConfig};
pub use images::ImagesConfig;
pub use pins::ImagePins;
pub(crate) use rest::is_name;
pub use rest::{RestAllow, RoutePattern, lists, of_entries};
pub use sealed::SealedImage;
pub use secrets::SealedSecretOrigin;
pub use volumes::VolumesConfig;

/// Longest configuration.
pub const MAXIMUM_CONFIG_BYTES: usize = initdata::MAXIMUM_CONFIG_BYTES;
/// Where the hub is served unless configured.
pub const DEFAULT_SOCKET: &str = "unix:///run/confidential-containers/cdh.sock";
/// Longest time that a resource is kept, in seconds.
pub const MAXIMUM_LIFETIME_SECONDS: u64 = 3600;
/// Shortest and longest time between two looks at the credentials, in seconds.
pub const REFRESH_SECONDS: std::ops::RangeInclusive<u64> = 10..=86_400;

/// The configuration of the hub.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HubConfig {
    /// Where it is served, `unix://…`.
    pub socket: Option<String>,
    /// Where secrets come from.
    pub kbc: Option<KbcConfig>,
    /// Upstream's attestation agent. Accepted for the sake of upstream's files: the hub attests by itself.
    pub aa: AaConfig,
    /// Resources that are written to files before the hub is served.
    pub credentials: Vec<Credential>,
    /// Whether nobody looks at the signatures of sealed secrets; counts only with the insecure mode `unverified-secrets`.
    pub skip_sealed_secret_verification: bool,
    /// Output of the process.
    pub log: LogConfig,
    /// Container images.
    pub image: ImageConfig,
    /// What upstream has no key for.
    pub innerkeep: InnerkeepConfig,
}

/// `[kbc]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KbcConfig {
    /// Which kind.
    pub name: KbcName,
    /// The broker's URL, for `cc_kbc`.
    #[serde(default)]
    pub url: String,
    /// The only authority that may vouch for it, PEM.
    pub kbs_cert: Option<String>,
}

/// Kinds of sources of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KbcName {
    /// A key broker.
    CcKbc,
    /// Files of the image; counts only with the insecure mode `offline-kbc`.
    OfflineFsKbc,
}

/// `[aa]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AaConfig {
    /// Its socket; nobody connects to it.
    pub aa_socket: Option<String>,
}

/// `[innerkeep]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InnerkeepConfig {
    /// Processes of the image that are served, beside those of the hub's own user.
    pub peers: Vec<ListedPeer>,
    /// What sealers call the broker: grants of this name are its own. Without it no artifact's key is asked of it.
    pub broker: Option<String>,
    /// SHA-256 of the key (SubjectPublicKeyInfo) that such grants are bound to, in hex; needed for https unless there is exactly one
    /// `kbs_spki_sha256` and no `kbs_cert`.
    pub broker_key: Option<String>,
    /// Memory of unpacked images, and what stays of their layers.
    pub images: ImagesConfig,
    /// Images whose trees are known by their digests.
    pub image_pins: ImagePins,
    /// SHA-256 of the broker's public key (SubjectPublicKeyInfo), in hex; one of them has to match.
    pub kbs_spki_sha256: Vec<String>,
    /// The kind of key that answers are encrypted to.
    pub tee_key_algorithm: Option<String>,
    /// What each container may ask the REST front for.
    pub rest: Vec<RestAllow>,
    /// A directory in which the host stores ciphertext of artifacts.
    pub artifact_cache: Option<std::path::PathBuf>,
    /// Images whose layers are sealed.
    pub sealed_images: Vec<SealedImage>,
    /// Whose sealed artifacts are opened as secrets.
    pub sealed_secrets: Vec<SealedSecretOrigin>,
    /// How long a resource is kept after it was read, in seconds: at most 3600; 0: not at all.
    pub secret_lifetime_seconds: u64,
    /// How often credentials are read anew, in seconds: 10 to 86,400; 0: never.
    pub credential_refresh_seconds: u64,
    /// Which encrypted volumes are written.
    pub volumes: VolumesConfig,
}

impl HubConfig {
    /// Parses a configuration.
    ///
    /// # Errors
    ///
    /// `CDH_CONFIG_INVALID`, `CDH_CREDENTIAL_PATH`.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        // GUARD: hub-config-cap -> evil_host_oversize_hub_configuration
        if text.len() > MAXIMUM_CONFIG_BYTES {
            let found = text.len();
            return Err(invalid(format!("expected at most {MAXIMUM_CONFIG_BYTES} bytes, found {found}")));
        }
        let config: Self = toml::from_str(text).map_err(|error| invalid(error.message().to_owned()))?;
        if config.socket.as_ref().is_some_and(|socket| !socket.starts_with("unix:///")) {
            return Err(invalid("socket: expected unix:///PATH, found another".to_owned()));
        }
        let lifetime = config.innerkeep.secret_lifetime_seconds;
        if lifetime > MAXIMUM_LIFETIME_SECONDS {
            return Err(invalid(format!(
                "innerkeep.secret_lifetime_seconds: expected at most {MAXIMUM_LIFETIME_SECONDS}, found {lifetime}"
            )));
        }
        let refresh = config.innerkeep.credential_refresh_seconds;
        if refresh != 0 && !REFRESH_SECONDS.contains(&refresh) {
            return Err(invalid(format!(
                "innerkeep.credential_refresh_seconds: expected 0, or 10 to 86400, found {refresh}"
            )));
        }
        config.image.require_limits()?;
        config.innerkeep.images.require_limits()?;
        sealed::require_apart(&config.innerkeep.sealed_images)?;
        secrets::require_few(&config.innerkeep.sealed_secrets)?;
        rest::require_lists(&config.innerkeep.rest)?;
        credential::require_apart(&config.credentials)?;
        Ok(config)
    }

    /// The path of the socket.
    #[must_use]
    pub fn socket(&self) -> &str {
        let socket = self.socket.as_deref().unwrap_or(DEFAULT_SOCKET);
        socket.strip_prefix("unix://").unwrap_or(socket)
    }

    /// Whether what it asks for is permitted.
    ///
    /// # Errors
    ///
    /// `CDH_INSECURE_UNBOUND`.
    pub fn require_modes(&self, modes: &Modes) -> Result<(), HubError> {
        if self.skip_sealed_secret_verification {
            // GUARD: hub-skip-verification-bound -> evil_configuration_skips_verification
            modes.require("skip_sealed_secret_verification", InsecureMode::UnverifiedSecrets)?;
        }
        if self.kbc.as_ref().is_some_and(|kbc| kbc.name == KbcName::OfflineFsKbc) {
            // GUARD: hub-offline-bound -> evil_configuration_takes_secrets_from_files
            modes.require("kbc.name = \"offline_fs_kbc\"", InsecureMode::OfflineKbc)?;
        }
        Ok(())
    }

    /// The broker, where one is configured.
    ///
    /// # Errors
    ///
    /// `KBS_URL_INVALID`, `KBS_TRUST_INVALID`, `KBS_KEY_KIND_UNKNOWN`.
    pub fn kbs_options(&self, modes: &Modes) -> Result<Option<KbsOptions>, HubError> {
        let Some(kbc) = self.kbc.as_ref().filter(|kbc| kbc.name == KbcName::CcKbc) else { return Ok(None) };
        let url = KbsUrl::parse(&kbc.url)?;
        let pins = self.innerkeep.kbs_spki_sha256.iter().map(|pin| spki(pin));
        let pins: Vec<SpkiSha256> = pins.collect::<Result<_, _>>()?;
        let known = kbc.kbs_cert.is_some() || !pins.is_empty();
        let trust = known.then(|| BrokerTrust::new(kbc.kbs_cert.as_deref(), &pins)).transpose()?;
        let mut options = KbsOptions::new(url, trust);
        if let Some(name) = &self.innerkeep.tee_key_algorithm {
            options.key = TeeKeyKind::parse(name)?;
        }
        if modes.has(InsecureMode::PlainHttp) {
            options.plain_http = PlainHttp::Insecure;
        }
        Ok(Some(options))
    }

    /// The broker as a recipient of grants, by the name and the key that this configuration gives it, never by a grant's.
    ///
    /// # Errors
    ///
    /// `CDH_CONFIG_INVALID` where the key is not one that the connection is held to.
    pub fn kbs_recipient(&self) -> Result<Option<KbsRecipient>, HubError> {
        let Some(kbc) = self.kbc.as_ref().filter(|kbc| kbc.name == KbcName::CcKbc) else { return Ok(None) };
        let InnerkeepConfig { broker, broker_key, kbs_spki_sha256: pins, .. } = &self.innerkeep;
        let Some(name) = broker else {
            return match broker_key {
                Some(_) => {
                    Err(invalid("innerkeep.broker_key: expected innerkeep.broker beside it".to_owned()))
                }
                None => Ok(None),
            };
        };
        let name = BrokerName::parse(name).map_err(|_| {
            invalid("innerkeep.broker: expected 1 to 128 letters, digits, '.', '_', '/', ':', '-'".to_owned())
        })?;
        let key = |text: &str| spki(text).map(RecipientKeyDigest::new).map_err(HubError::from);
        let is_tls = kbc.url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
        let is_pin = |key: &str| pins.iter().any(|pin| pin.eq_ignore_ascii_case(key));
        let key = match (is_tls, broker_key, pins.as_slice()) {
            (false, None, _) => return Ok(Some(KbsRecipient::without_tls(name))),
            (true, None, [pin]) if kbc.kbs_cert.is_none() => key(pin)?,
            // A CA vouches for keys that nobody here sees: what grants are bound to is its own.
            (true, Some(found), _) if kbc.kbs_cert.is_some() || is_pin(found) => key(found)?,
            (false, Some(_), _) => {
                return Err(invalid(
                    "innerkeep.broker_key: expected none for a broker without TLS".to_owned(),
                ));
            }
            (true, None, _) => {
                return Err(invalid(
                    "innerkeep.broker_key: expected the key of the broker, found none".to_owned(),
                ));
            }
            (true, Some(_), _) => {
                return Err(invalid("innerkeep.broker_key: expected one of kbs_spki_sha256".to_owned()));
            }
        };
        Ok(Some(KbsRecipient { name, key }))
    }
}

fn invalid(reason: String) -> HubError {
    HubError::ConfigInvalid { reason }
}

fn spki(text: &str) -> Result<SpkiSha256, ConfigFault> {
    let mut pin = [0; 32];
    hex::decode_to_slice(text, &mut pin)
        .map_err(|_| ConfigFault::TrustInvalid { expected: "SHA-256 in 64 hexadecimal digits" })?;
    Ok(pin)
}

#[cfg(test)]
mod tests;
