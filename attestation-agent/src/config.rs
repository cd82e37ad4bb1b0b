//! `aa.toml`: upstream's keys, and ours under `[innerkeep]`. Unknown keys are refused, because a key that is ignored is
//! a decision that nobody made.

use serde::Deserialize;

use crate::error::BindingError;
use crate::kbs::{
    BrokerTrust, ExportableKeyKind, KbsOptions, KbsUrl, SpkiSha256, TeeKeyKind, VerifierEvidence,
};
use crate::kbs::{ConfigFault, Hop, KbsError};
use crate::service::{AccessRules, ListedPeer};

/// Longest configuration.
pub const MAXIMUM_CONFIG_BYTES: usize = 256 * 1024;
const DEFAULT_PCR: u64 = 17;

/// The configuration of the attestation agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentConfig {
    /// Where tokens come from.
    pub token_configs: TokenConfigs,
    /// Runtime measurement.
    pub eventlog_config: EventLogConfig,
    /// Output of the process.
    pub log: LogConfig,
    /// What upstream has no key for.
    pub innerkeep: InnerkeepConfig,
}

/// `[token_configs]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenConfigs {
    /// The key broker.
    pub kbs: Option<KbsConfig>,
}

/// `[token_configs.kbs]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KbsConfig {
    /// Its URL.
    pub url: String,
    /// The only authority that may vouch for it, PEM.
    pub cert: Option<String>,
    /// The kind of key that tokens are about.
    pub tee_key_algorithm: Option<String>,
}

/// `[eventlog_config]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventLogConfig {
    /// Whether events are measured.
    pub enable_eventlog: bool,
    /// PCR of events whose sender names none: 8 to 23.
    pub init_pcr: u64,
}

impl Default for EventLogConfig {
    fn default() -> Self {
        Self { enable_eventlog: false, init_pcr: DEFAULT_PCR }
    }
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Accepted for the sake of upstream's files: one of `off`, `error`, `warn`, `info`, `debug`, `trace`. Insecure
    /// modes and errors are printed at every level.
    pub level: LogLevel,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: LogLevel::Info }
    }
}

/// How much is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogLevel {
    /// Errors and insecure modes.
    Off,
    /// The same.
    Error,
    /// The same.
    Warn,
    /// What the agent does.
    Info,
    /// The same.
    Debug,
    /// The same.
    Trace,
}

/// `[innerkeep]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InnerkeepConfig {
    /// Peers that choose report data.
    pub raw_report_data_peers: Vec<ListedPeer>,
    /// Whether all other peers get evidence in the workload form.
    pub workload_evidence: bool,
    /// Peers that get tokens with their private key.
    pub token_key_export: Vec<ListedPeer>,
    /// SHA-256 of the broker's public key (SubjectPublicKeyInfo), in hex; one of them has to match.
    pub kbs_spki_sha256: Vec<String>,
    /// A demand for evidence of the broker's verifier: refused while nobody can meet it.
    pub kbs_verifier_evidence: bool,
    /// File with collateral that this guest presents with its evidence.
    pub collateral: Option<std::path::PathBuf>,
}

impl AgentConfig {
    /// Parses a configuration.
    ///
    /// # Errors
    /// `ATTEST_CONFIG_INVALID`.
    pub fn parse(text: &str) -> Result<Self, BindingError> {
        let refused = |reason: String| BindingError::ConfigInvalid { reason };
        // GUARD: config-cap -> evil_host_oversize_configuration
        if text.len() > MAXIMUM_CONFIG_BYTES {
            return Err(refused(format!(
                "expected at most {MAXIMUM_CONFIG_BYTES} bytes, found {}",
                text.len()
            )));
        }
        let config: Self = toml::from_str(text).map_err(|error| refused(error.message().to_owned()))?;
        let pcr = config.eventlog_config.init_pcr;
        // GUARD: config-pcr -> a_configuration_with_a_register_of_the_firmware_is_refused
        if !(8..=23).contains(&pcr) {
            return Err(refused(format!("eventlog_config.init_pcr: expected 8 to 23, found {pcr}")));
        }
        Ok(config)
    }

    /// Who may ask for what.
    #[must_use]
    pub fn access_rules(&self) -> AccessRules {
        AccessRules {
            raw_report_data: self.innerkeep.raw_report_data_peers.clone(),
            token_key_export: self.innerkeep.token_key_export.clone(),
            workload_evidence: self.innerkeep.workload_evidence,
        }
    }

    /// The broker and the kind of key that tokens for peers are about, where a broker is configured.
    ///
    /// # Errors
    /// `KBS_URL_INVALID`, `KBS_TRUST_INVALID`, `KBS_KEY_KIND_UNKNOWN`, at the hop `setup`.
    pub fn kbs_options(&self) -> Result<Option<(KbsOptions, ExportableKeyKind)>, KbsError> {
        let Some(kbs) = &self.token_configs.kbs else { return Ok(None) };
        self.options_of(kbs).map(Some).map_err(|fault| KbsError::new(Hop::Setup, fault))
    }

    fn options_of(&self, kbs: &KbsConfig) -> Result<(KbsOptions, ExportableKeyKind), ConfigFault> {
        let url = KbsUrl::parse(&kbs.url)?;
        let pins = self.innerkeep.kbs_spki_sha256.iter().map(|pin| spki(pin));
        let pins: Vec<SpkiSha256> = pins.collect::<Result<_, _>>()?;
        let known = kbs.cert.is_some() || !pins.is_empty();
        let trust = known.then(|| BrokerTrust::new(kbs.cert.as_deref(), &pins)).transpose()?;
        let mut options = KbsOptions::new(url, trust);
        if let Some(name) = &kbs.tee_key_algorithm {
            options.key = TeeKeyKind::parse(name)?;
        }
        if self.innerkeep.kbs_verifier_evidence {
            options.verifier_evidence = VerifierEvidence::Demanded;
        }
        let exported = match options.key {
            TeeKeyKind::EcP521 => ExportableKeyKind::EcP521,
            TeeKeyKind::Rsa2048 => ExportableKeyKind::Rsa2048,
            // A key for ML-KEM has no form to be handed over in: tokens for peers are about a P-256 key then.
            _ => ExportableKeyKind::EcP256,
        };
        Ok((options, exported))
    }
}

fn spki(text: &str) -> Result<SpkiSha256, ConfigFault> {
    let mut pin = [0; 32];
    hex::decode_to_slice(text, &mut pin)
        .map_err(|_| ConfigFault::TrustInvalid { expected: "SHA-256 in 64 hexadecimal digits" })?;
    Ok(pin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> &'static str {
        AgentConfig::parse(text).map_or_else(|error| error.code(), |_| "OK")
    }

    #[test]
    fn the_keys_of_upstream_and_ours_are_read() {
        let config = AgentConfig::parse(
            r#"
            [token_configs.kbs]
            url = "https://kbs.example:8080"
            tee_key_algorithm = "ECDH-ES+A256KW-P521"
            [eventlog_config]
            enable_eventlog = true
            init_pcr = 16
            [log]
            level = "debug"
            [innerkeep]
            workload_evidence = true
            raw_report_data_peers = [{ socket = "/run/aa.sock", uid = 7 }]
            kbs_spki_sha256 = ["00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"]
            "#,
        )
        .unwrap();
        assert!(config.access_rules().workload_evidence);
        assert_eq!(config.access_rules().raw_report_data.len(), 1);
        assert_eq!(config.eventlog_config, EventLogConfig { enable_eventlog: true, init_pcr: 16 });
        let (options, kind) = config.kbs_options().unwrap().unwrap();
        assert_eq!(kind, ExportableKeyKind::EcP521);
        assert!(options.trust.is_some());
    }

    #[test]
    fn nothing_is_allowed_by_an_empty_configuration() {
        let config = AgentConfig::parse("").unwrap();
        assert_eq!(config.access_rules(), AccessRules::default());
        assert!(config.kbs_options().unwrap().is_none());
        assert_eq!(config.eventlog_config, EventLogConfig { enable_eventlog: false, init_pcr: 17 });
    }

    #[test]
    fn unknown_keys_are_refused() {
        for text in [
            "colour = 1",
            "[innerkeep]\nraw_report_data = true",
            "[token_configs.coco_as]\nurl = \"http://127.0.0.1\"",
            "[token_configs.kbs]\nurl = \"http://127.0.0.1\"\ncertificate = \"\"",
            "[innerkeep]\nraw_report_data_peers = [{ socket = \"/run/aa.sock\" }]",
            "[log]\nlevel = \"chatty\"",
        ] {
            assert_eq!(code(text), "ATTEST_CONFIG_INVALID", "{text}");
        }
    }

    #[test]
    fn a_configuration_with_a_register_of_the_firmware_is_refused() {
        assert_eq!(code("[eventlog_config]\ninit_pcr = 7"), "ATTEST_CONFIG_INVALID");
        assert_eq!(code("[eventlog_config]\ninit_pcr = 24"), "ATTEST_CONFIG_INVALID");
    }

    #[test]
    fn evil_host_oversize_configuration() {
        assert_eq!(code(&"#".repeat(MAXIMUM_CONFIG_BYTES + 1)), "ATTEST_CONFIG_INVALID");
    }

    #[test]
    fn a_demand_that_cannot_be_met_is_passed_on() {
        let text =
            "[token_configs.kbs]\nurl = \"http://127.0.0.1:1\"\n[innerkeep]\nkbs_verifier_evidence = true";
        let (options, _) = AgentConfig::parse(text).unwrap().kbs_options().unwrap().unwrap();
        assert_eq!(options.verifier_evidence, VerifierEvidence::Demanded);
    }
}
