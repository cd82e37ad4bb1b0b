//! `[[innerkeep.sealed_secrets]]`: by whose word a secret that is a sealed artifact is opened.

use initdata::{Origin, Sealer, Sha256Digest, Tag};
use serde::Deserialize;

use super::HubError;

/// Most of them.
const MAXIMUM: usize = 16;

/// Secrets of one origin.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct SealedSecretOrigin {
    /// The environment that the core has to be of.
    pub environment: Tag,
    /// Which cores are acceptable.
    pub origin: Origin,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    environment: Tag,
    core: Option<Sha256Digest>,
    sealer: Option<Sealer>,
}

impl TryFrom<Raw> for SealedSecretOrigin {
    type Error = &'static str;

    fn try_from(raw: Raw) -> Result<Self, &'static str> {
        let Raw { environment, core, sealer } = raw;
        let origin = Origin::one_of(core, sealer).ok_or("sealed_secrets: expected one of core, sealer")?;
        Ok(Self { environment, origin })
    }
}

/// Refuses a list that nobody meant.
pub(super) fn require_few(origins: &[SealedSecretOrigin]) -> Result<(), HubError> {
    // GUARD: sealed-secrets-few -> sealed_secrets_have_an_origin
    if origins.len() > MAXIMUM {
        let found = origins.len();
        let reason = format!("innerkeep.sealed_secrets: expected at most {MAXIMUM}, found {found}");
        return Err(HubError::ConfigInvalid { reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::HubConfig;
    use super::*;

    const DIGEST: &str = "sha256:0707070707070707070707070707070707070707070707070707070707070707";

    fn read(entry: &str, count: usize) -> Result<Vec<SealedSecretOrigin>, HubError> {
        let text = format!("[[innerkeep.sealed_secrets]]\n{entry}\n").repeat(count);
        Ok(HubConfig::parse(&text)?.innerkeep.sealed_secrets)
    }

    #[test]
    fn sealed_secrets_have_an_origin() {
        let core = format!("environment = \"production\"\ncore = \"{DIGEST}\"");
        let sealer = format!(
            "environment = \"production\"\nsealer = {{ key = \"{DIGEST}\", family = \"acme/passwords\", min_counter = 3 }}"
        );
        assert_eq!(read(&core, 1).unwrap()[0].origin, Origin::Core(Sha256Digest::new([7; 32])));
        let found = read(&sealer, MAXIMUM).unwrap();
        assert!(matches!(found[MAXIMUM - 1].origin, Origin::Sealer { min_counter: 3, .. }));
        for (refused, count) in [
            ("environment = \"production\"".to_owned(), 1),
            (format!("core = \"{DIGEST}\""), 1),
            (format!("{core}\n{}", sealer.split_once('\n').unwrap().1), 1),
            (format!("{core}\nother = 1"), 1),
            (core, MAXIMUM + 1),
        ] {
            assert_eq!(read(&refused, count).unwrap_err().code(), "CDH_CONFIG_INVALID", "{refused}");
        }
    }
}
