//! Images whose layers are sealed: the configuration stays the image's, the core is a blob of its own that an annotation names.
//!
//! Payloads are the image's layers in order and, last, the exact manifest that the image had before. Whoever opened it knows by that manifest
//! what the layers have to be.

use super::{
    ArtifactManifest, BuiltManifest, CORE_TYPE, Descriptor, MANIFEST_TYPE, Manifest, ciphertexts_of, tags_of,
};
use crate::core::{Core, MAXIMUM_CORE};
use crate::digest::BlobDigest;
use crate::error::{ArtifactError, Found};
use crate::parameters::PayloadParameters;

/// Annotation of the manifest: digest of the core, which is the last of its layers.
pub const CORE_ANNOTATION: &str = "vnd.innerkeep.core.v1";
/// Media type of a manifest as Docker writes it.
pub const DOCKER_MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Most layers of an image: its manifest is a payload, too.
pub const MAXIMUM_IMAGE_LAYERS: usize = 255;

/// How many layers an image has whose sealed form has so many: each layer and the manifest are ciphertext and tag table, and there is the core.
#[must_use]
pub const fn image_layers(sealed: usize) -> Option<usize> {
    match sealed.checked_sub(3) {
        Some(more) if more % 2 == 0 && more / 2 <= MAXIMUM_IMAGE_LAYERS => Some(more / 2),
        _ => None,
    }
}

/// The payloads of a core that is an image's: layers, and the manifest.
///
/// # Errors
/// `MALFORMED` when the last payload is no manifest, or there are too many.
pub fn image_payloads(core: &Core) -> Result<(&[PayloadParameters], &PayloadParameters), ArtifactError> {
    let malformed = |found| ArtifactError::Malformed {
        what: "core",
        expected: "the payloads of an image: at most 255 layers, and the manifest",
        found,
    };
    let Some((manifest, layers)) = core.parameters().payloads().split_last() else {
        return Err(malformed(Found::text("none")));
    };
    let media_type = manifest.media_type.as_str();
    // GUARD: image-core-manifest -> evil_core_of_files_is_no_image
    if !matches!(media_type, MANIFEST_TYPE | DOCKER_MANIFEST_TYPE) {
        return Err(malformed(Found::text(media_type)));
    }
    Ok((layers, manifest))
}

impl ArtifactManifest {
    /// Builds the manifest of an image with this core and configuration, given the SHA-256 of each ciphertext blob.
    ///
    /// # Errors
    /// `MALFORMED` when there is not one digest per payload, or the core is no image's.
    pub fn build_image(
        core: &Core,
        config: Descriptor,
        ciphertexts: &[BlobDigest],
    ) -> Result<BuiltManifest, ArtifactError> {
        image_payloads(core)?;
        let core_blob = Descriptor::of(CORE_TYPE, core.bytes());
        let named = core_blob.digest.to_string();
        let layers = ciphertexts_of(core, ciphertexts)?.into_iter().chain(tags_of(core)).chain([core_blob]);
        let mut manifest = Manifest::new(None, config, layers.collect());
        manifest.annotations.get_or_insert_default().insert(CORE_ANNOTATION.to_owned(), named);
        Ok(BuiltManifest::new(&manifest))
    }

    pub(super) fn of_image(manifest: Manifest, named: &str) -> Result<Self, ArtifactError> {
        let malformed = |found| ArtifactError::Malformed {
            what: "manifest",
            expected: "the core that its annotation names as the last layer",
            found,
        };
        let mut layers = manifest.layers;
        let core = layers.pop().ok_or_else(|| malformed(Found::text("no layer")))?;
        // GUARD: image-core-named -> evil_image_that_names_another_core
        if core.digest.to_string() != named || core.media_type != CORE_TYPE {
            return Err(malformed(Found::text(&core.media_type)));
        }
        core.capped_size(MAXIMUM_CORE)?;
        Ok(Self { core, layers, config: Some(manifest.config) })
    }

    /// The configuration, if this is an image.
    #[must_use]
    pub const fn image_config(&self) -> Option<&Descriptor> {
        self.config.as_ref()
    }

    /// An image says of each layer that it is sealed, and what is inside: unpackers choose by that.
    pub(super) fn require_sealed_types(&self, core: &Core) -> Result<(), ArtifactError> {
        if self.config.is_none() {
            return Ok(());
        }
        image_payloads(core)?;
        for (payload, layer) in core.parameters().payloads().iter().zip(&self.layers) {
            // GUARD: image-layer-sealed -> evil_image_with_a_layer_that_is_not_sealed
            if layer.media_type.strip_suffix("+sealed") != Some(payload.media_type.as_str()) {
                let found = Found::text(&layer.media_type);
                let expected = "the media type of the payload, and +sealed";
                return Err(ArtifactError::Malformed { what: "manifest", expected, found });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Artifact, Recipe};
    use crate::names::MediaType;

    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn image(last: &str) -> Artifact {
        let mut recipe = Recipe::new(1, &[100, 5]);
        recipe.media_types = vec![MediaType::parse(LAYER).unwrap(), MediaType::parse(last).unwrap()];
        recipe.seal()
    }

    fn config() -> Descriptor {
        Descriptor::of("application/vnd.oci.image.config.v1+json", b"{}")
    }

    fn built(artifact: &Artifact) -> Result<BuiltManifest, ArtifactError> {
        let digests: Vec<_> = artifact.payloads.iter().map(|blob| BlobDigest::of(blob)).collect();
        ArtifactManifest::build_image(&artifact.core, config(), &digests)
    }

    fn parse(bytes: &[u8], core: &Core) -> Result<(), &'static str> {
        let manifest = ArtifactManifest::parse(bytes).map_err(|error| error.code())?;
        manifest.payloads(core).map_err(|error| error.code())?;
        assert_eq!(manifest.image_config().unwrap().digest, BlobDigest::of(b"{}"));
        assert_eq!(manifest.core().digest, BlobDigest::of(core.bytes()));
        Ok(())
    }

    #[test]
    fn an_image_keeps_its_configuration_and_names_its_core() {
        let image = image(MANIFEST_TYPE);
        let built = built(&image).unwrap();
        let text = std::str::from_utf8(&built.bytes).unwrap();
        assert!(text.contains(&format!("{LAYER}+sealed")) && !text.contains("artifactType"), "{text}");
        assert!(built.descriptor.artifact_type.is_none());
        parse(&built.bytes, &image.core).unwrap();
        let counts = [(0, None), (2, None), (3, Some(0)), (4, None), (5, Some(1)), (515, None)];
        for (sealed, layers) in counts {
            assert_eq!(image_layers(sealed), layers, "{sealed}");
        }
    }

    #[test]
    fn evil_core_of_files_is_no_image() {
        let files = image("application/json");
        assert_eq!(built(&files).unwrap_err().code(), "MALFORMED");
        assert_eq!(image_payloads(&files.core).unwrap_err().code(), "MALFORMED");
    }

    #[test]
    fn evil_image_that_names_another_core() {
        let image = image(MANIFEST_TYPE);
        let text = String::from_utf8(built(&image).unwrap().bytes).unwrap();
        let core = BlobDigest::of(image.core.bytes()).to_string();
        let other = BlobDigest::of(b"other").to_string();
        for altered in [
            text.replace(
                &format!("\"{CORE_ANNOTATION}\":\"{core}\""),
                &format!("\"{CORE_ANNOTATION}\":\"{other}\""),
            ),
            text.replace(CORE_TYPE, LAYER),
            text.replace(&format!("\"{CORE_ANNOTATION}\""), "\"something.else\""),
        ] {
            assert_ne!(altered, text);
            assert_eq!(parse(altered.as_bytes(), &image.core), Err("MALFORMED"));
        }
    }

    #[test]
    fn evil_image_with_a_layer_that_is_not_sealed() {
        let image = image(MANIFEST_TYPE);
        let text = String::from_utf8(built(&image).unwrap().bytes).unwrap();
        for altered in [
            text.replace(&format!("{LAYER}+sealed"), LAYER),
            text.replace(&format!("{LAYER}+sealed"), "application/vnd.oci.image.layer.v1.tar+sealed"),
        ] {
            assert_ne!(altered, text);
            assert_eq!(parse(altered.as_bytes(), &image.core), Err("MALFORMED"));
        }
    }
}
