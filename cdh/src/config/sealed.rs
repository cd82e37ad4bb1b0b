//! `[[innerkeep.sealed_images]]`: images whose layers are sealed, and by whose word they are opened.

use initdata::{Origin, Sealer, Sha256Digest, Tag};
use serde::Deserialize;

use super::HubError;

/// Most of them.
const MAXIMUM: usize = 64;

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct SealedImage {
    /// `registry/repository`, or a whole reference, which goes first.
    pub image: String,
    /// The environment that the core has to be of.
    pub environment: Tag,
    /// Which cores are acceptable.
    pub origin: Origin,
    /// The only manifest that may come of it, if there is only one.
    pub manifest: Option<Sha256Digest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    image: String,
    environment: Tag,
    core: Option<Sha256Digest>,
    sealer: Option<Sealer>,
    manifest: Option<Sha256Digest>,
}

impl TryFrom<Raw> for SealedImage {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let Raw { image, environment, core, sealer, manifest } = raw;
        let origin = Origin::one_of(core, sealer);
        let origin = origin.ok_or_else(|| format!("image {image:?}: expected one of core, sealer"))?;
        Ok(Self { image, environment, origin, manifest })
    }
}

/// Refuses what cannot be told apart.
pub(super) fn require_apart(images: &[SealedImage]) -> Result<(), HubError> {
    let invalid = |found: String| {
        let reason = format!("innerkeep.sealed_images: expected at most {MAXIMUM}, each once, found {found}");
        Err(HubError::ConfigInvalid { reason })
    };
    if images.len() > MAXIMUM {
        return invalid(images.len().to_string());
    }
    for (index, entry) in images.iter().enumerate() {
        let again = images.iter().skip(index.saturating_add(1)).any(|other| other.image == entry.image);
        // GUARD: sealed-images-apart -> evil_operator_names_a_sealed_image_twice
        if again {
            return invalid(format!("{:?} twice", entry.image));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::HubConfig;
    use super::*;

    const DIGEST: &str = "sha256:0707070707070707070707070707070707070707070707070707070707070707";

    fn read(entries: &[&str]) -> Result<Vec<SealedImage>, HubError> {
        let text: String =
            entries.iter().map(|entry| format!("[[innerkeep.sealed_images]]\n{entry}\n")).collect();
        Ok(HubConfig::parse(&text)?.innerkeep.sealed_images)
    }

    #[test]
    fn sealed_images_have_an_origin() {
        let entry = |more: &str| format!("image = \"r.example/a\"\nenvironment = \"production\"\n{more}");
        let sealer = format!("sealer = {{ key = \"{DIGEST}\", family = \"acme/a\", min_counter = 3 }}");
        let core = format!("core = \"{DIGEST}\"");
        let read_one = |more: &str| read(&[&entry(more)]);
        let found = read_one(&format!("{sealer}\nmanifest = \"{DIGEST}\"")).unwrap();
        assert_eq!(found[0].manifest, Some(Sha256Digest::new([7; 32])));
        assert!(matches!(found[0].origin, Origin::Sealer { min_counter: 3, .. }));
        assert_eq!(read_one(&core).unwrap()[0].origin, Origin::Core(Sha256Digest::new([7; 32])));
        for refused in [String::new(), format!("{core}\n{sealer}"), format!("{core}\nother = 1")] {
            assert_eq!(read_one(&refused).unwrap_err().code(), "CDH_CONFIG_INVALID", "{refused}");
        }
    }

    #[test]
    fn evil_operator_names_a_sealed_image_twice() {
        let entry = |name: &str| format!("image = \"{name}\"\nenvironment = \"e\"\ncore = \"{DIGEST}\"");
        assert_eq!(read(&[&entry("a"), &entry("b")]).unwrap().len(), 2);
        assert_eq!(read(&[&entry("a"), &entry("a")]).unwrap_err().code(), "CDH_CONFIG_INVALID");
    }
}
