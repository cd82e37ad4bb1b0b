//! Which of an index's images this machine runs.
//!
//! Operating system and architecture have to be equal, and the variant after it is filled in: `arm64` without one is `v8`, `amd64`
//! without one is `v1`. No other variant is taken for one, also none that would run: what an image was signed and measured as
//! is what runs. The first entry that fits is taken.

use std::fmt;

use serde::Deserialize;

use super::error::{RegistryError, shown};

/// Operating system, architecture and variant in the words of Go (`linux`, `amd64`, `v8`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Operating system.
    pub os: String,
    /// Architecture.
    pub architecture: String,
    /// Variant.
    pub variant: Option<String>,
}

impl Platform {
    /// This machine.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// Reads `os/architecture[/variant]`.
    ///
    /// # Errors
    ///
    /// `REGISTRY_CONFIG`.
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        let word = |word: &str| {
            (1..=32).contains(&word.len())
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.')
        };
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [os, architecture, variant @ ..] if variant.len() < 2 && parts.iter().all(|part| word(part)) => {
                Ok(Self {
                    os: (*os).to_owned(),
                    architecture: (*architecture).to_owned(),
                    variant: variant.first().map(|variant| (*variant).to_owned()),
                })
            }
            _ => Err(RegistryError::Config {
                what: "platform",
                expected: "os/architecture[/variant]",
                found: shown(text),
            }),
        }
    }

    /// Whether an image for `other` is one for this.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.os == other.os && self.architecture == other.architecture && self.filled() == other.filled()
    }

    fn filled(&self) -> Option<&str> {
        match (self.architecture.as_str(), self.variant.as_deref().filter(|variant| !variant.is_empty())) {
            ("arm64", None) => Some("v8"),
            ("amd64", None) => Some("v1"),
            (_, variant) => variant,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match &self.variant {
            Some(variant) => format!("{}/{}/{variant}", self.os, self.architecture),
            None => format!("{}/{}", self.os, self.architecture),
        };
        f.write_str(shown(&text).trim_matches('"'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_filled_in_and_never_stretched() {
        let platform = |text| Platform::parse(text).unwrap();
        for (left, right, same) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/amd64", "linux/amd64/v1", true),
            ("linux/amd64", "linux/amd64/v3", false),
            ("linux/amd64/v3", "linux/amd64", false),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64", "linux/arm64/v9", false),
            ("linux/arm/v7", "linux/arm", false),
            ("linux/amd64", "windows/amd64", false),
            ("linux/amd64", "linux/arm64", false),
        ] {
            assert_eq!(platform(left).is(&platform(right)), same, "{left} {right}");
        }
        assert_eq!(Platform::host().os, "linux");
        for refused in ["", "linux", "linux/", "linux/amd64/v1/x", "Linux/amd64", "linux/amd 64"] {
            assert_eq!(Platform::parse(refused).unwrap_err().code(), "REGISTRY_CONFIG", "{refused}");
        }
    }
}
