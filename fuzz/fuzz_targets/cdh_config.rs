//! The data hub's configuration. What is accepted has no key that is not known, writes below one directory, and weakens nothing by itself.

#![no_main]

use cdh::config::{HubConfig, MAXIMUM_CONFIG_BYTES};
use cdh::modes::Modes;
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(config) = bounded(data.len(), || HubConfig::parse(text)) else { return };
    assert!(config.socket().starts_with('/'));
    for credential in &config.credentials {
        let path = credential.path.relative();
        assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
    }
    if config.skip_sealed_secret_verification {
        assert!(config.require_modes(&Modes::none()).is_err());
    }
    // Certificates and addresses of the broker are read when it is used.
    let _ = bounded(data.len(), || config.kbs_options(&Modes::none()));
    assert!(HubConfig::parse(&format!("{text}\n[nobody-knows-this]\n")).is_err());
    if text.len() < MAXIMUM_CONFIG_BYTES - 64 {
        assert!(HubConfig::parse(&format!("{text}\n# a comment\n")).is_ok());
    }
});
