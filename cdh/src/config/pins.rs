//! `[innerkeep.image_pins]`: images whose trees the operator knows by their digests.
//!
//! ```toml
//! [innerkeep.image_pins]
//! "registry.example/acme/server" = "v1-sha256-12:…"
//! "registry.example/acme/tool:v3" = "sha256:…"
//! ```
//! A name is a registry and a repository, or a whole reference as it is asked for; the value is [`Pin::parse`]'s.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::composefs::pin::Pin;

/// Most pins.
const MAXIMUM_PINS: usize = 256;
/// Longest name.
const MAXIMUM_NAME_BYTES: usize = 512;

/// Pins by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct ImagePins(Vec<(String, Pin)>);

impl ImagePins {
    /// All of them.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, Pin> {
        self.0.iter().cloned().collect()
    }
}

impl TryFrom<BTreeMap<String, String>> for ImagePins {
    type Error = String;

    fn try_from(found: BTreeMap<String, String>) -> Result<Self, String> {
        if found.len() > MAXIMUM_PINS {
            return Err(format!("image_pins: expected at most {MAXIMUM_PINS}, found {}", found.len()));
        }
        let pin = |(name, value): (String, String)| {
            if name.is_empty() || name.len() > MAXIMUM_NAME_BYTES {
                return Err(format!("image_pins: expected names of 1 to {MAXIMUM_NAME_BYTES} bytes"));
            }
            let pin = Pin::parse(&value).map_err(|error| format!("image_pins: {error}"))?;
            Ok((name, pin))
        };
        found.into_iter().map(pin).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HubConfig;

    fn parse(pins: &str) -> Result<HubConfig, &'static str> {
        HubConfig::parse(&format!("[innerkeep.image_pins]\n{pins}\n")).map_err(|error| error.code())
    }

    #[test]
    fn pins_are_read_from_the_configuration() {
        let digest = "ab".repeat(32);
        let line = format!("\"registry.example/acme/server\" = \"v1-sha256-12:{digest}\"");
        let found = parse(&line).unwrap().innerkeep.image_pins.to_map();
        let pin = Pin::parse(&digest).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("registry.example/acme/server".to_owned(), pin)]);
        assert!(parse("").unwrap().innerkeep.image_pins.to_map().is_empty());
    }

    #[test]
    fn evil_pins_that_bind_nothing() {
        let digest = "ab".repeat(32);
        for line in [
            format!("\"a\" = \"?{digest}\""),
            "\"a\" = \"\"".to_owned(),
            "\"a\" = \"sha256:abcd\"".to_owned(),
            format!("\"\" = \"{digest}\""),
            format!("\"{}\" = \"{digest}\"", "x".repeat(513)),
            "\"a\" = 7".to_owned(),
        ] {
            assert_eq!(parse(&line).unwrap_err(), "CDH_CONFIG_INVALID", "{line}");
        }
        let many: String = (0..257).map(|number| format!("\"n{number}\" = \"{digest}\"\n")).collect();
        assert_eq!(parse(&many).unwrap_err(), "CDH_CONFIG_INVALID");
    }
}
