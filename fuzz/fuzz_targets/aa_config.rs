//! The agent's configuration. What is accepted has no key that is not known, and says who may ask for what.

#![no_main]

use attestation_agent::config::{AgentConfig, MAXIMUM_CONFIG_BYTES};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(config) = bounded(data.len(), || AgentConfig::parse(text)) else { return };
    assert!((8..=23).contains(&config.eventlog_config.init_pcr));
    let rules = config.access_rules();
    assert_eq!(rules.workload_evidence, config.innerkeep.workload_evidence);
    assert_eq!(rules.raw_report_data, config.innerkeep.raw_report_data_peers);
    assert_eq!(rules.token_key_export, config.innerkeep.token_key_export);
    // Certificates and addresses of the broker are read when it is used.
    if let Ok(options) = bounded(data.len(), || config.kbs_options()) {
        assert_eq!(options.is_some(), config.token_configs.kbs.is_some());
    }
    // The same with a key that nobody knows.
    assert!(AgentConfig::parse(&format!("{text}\n[nobody-knows-this]\n")).is_err());
    assert!(AgentConfig::parse(&format!("nobody-knows-this = 1\n{text}")).is_err());
    if text.len() < MAXIMUM_CONFIG_BYTES - 64 {
        assert_eq!(AgentConfig::parse(&format!("{text}\n# a comment\n")).ok(), Some(config));
    }
});
