//! The parts of an image as inputs of a seal: its layers, and its manifest.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use cdh::image::layer::Compression;
use cdh::registry::{Descriptor, LocalImage, Platform, Transferred};
use sealed_artifact::oci::MAXIMUM_IMAGE_LAYERS;

use super::Input;
use crate::args::SealArgs;
use crate::cmd::registry::{block_on, client, deadline, read};
use crate::error::Failure;
use crate::output::Output;
use crate::store::Reference;

const PIECE: usize = 1 << 20;

/// An image to be sealed.
pub(super) struct Image {
    pub(super) local: LocalImage,
    pub(super) inputs: Vec<Input>,
    /// What came from a registry, until it is sealed.
    _fetched: Option<tempfile::TempDir>,
}

/// Opens all parts, and compares each layer with what the manifest says of it.
pub(super) fn open(name: &str, arguments: &SealArgs, output: Output) -> Result<Image, Failure> {
    let platform = match &arguments.platform {
        Some(text) => Platform::parse(text).map_err(cdh::Error::from)?,
        None => Platform::host(),
    };
    let (local, fetched) = match Reference::parse(name) {
        Ok(Reference::Layout(directory, tag)) if directory.is_dir() => {
            let local = LocalImage::of_layout(&directory, tag.as_deref(), &platform);
            (local.map_err(cdh::Error::from)?, None)
        }
        _ => {
            let from = read(name)?;
            let registry = client(&arguments.registry, &[&from], output)?;
            let fetched = tempfile::tempdir().map_err(Failure::file("create", "a temporary directory"))?;
            let progress = output.progress("pulling", 0);
            let shown = |state: &Transferred| progress.set(state.done, state.total);
            let until = deadline(&arguments.registry);
            let local = block_on(registry.pull_files(&from, &platform, fetched.path(), &shown, until))?;
            progress.finish();
            (local, Some(fetched))
        }
    };
    let found = local.layers.len();
    if found > MAXIMUM_IMAGE_LAYERS || local.manifest.sealed_core().is_some() {
        let expected = "an image of at most 255 layers that are not sealed";
        return Err(Failure::Input { path: name.into(), expected, found: format!("{found} layers") });
    }
    let mut inputs = Vec::new();
    for (index, (layer, path)) in local.layers.iter().enumerate() {
        Compression::of_media_type(&layer.media_type).map_err(cdh::Error::from)?;
        let input = Input::named(path, &format!("layer.{index}"), &layer.media_type)?;
        require(&input, layer, path)?;
        inputs.push(input);
    }
    inputs.push(Input::named(&local.manifest_file, "manifest", &local.manifest.media_type)?);
    Ok(Image { local, inputs, _fetched: fetched })
}

fn require(input: &Input, layer: &Descriptor, path: &Path) -> Result<(), Failure> {
    let mut hasher = layer.digest.hasher();
    let mut buffer = vec![0; PIECE];
    let mut offset = 0;
    while offset < input.size {
        let room = usize::try_from(input.size.saturating_sub(offset)).unwrap_or(PIECE).min(PIECE);
        let part = buffer.get_mut(..room).unwrap_or_default();
        input.file.read_exact_at(part, offset).map_err(|error| input.read_failed(error))?;
        hasher.update(part);
        offset = offset.saturating_add(u64::try_from(room).unwrap_or(u64::MAX));
    }
    let found = hasher.finish();
    // GUARD: seal-image-layer -> evil_layer_of_an_image_that_was_altered
    if found != layer.digest {
        let (path, expected) = (path.to_owned(), "the layer that the manifest names");
        return Err(Failure::Input { path, expected, found: found.to_string() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_layer_of_an_image_that_was_altered() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"altered").unwrap();
        let input = Input::named(file.path(), "layer.0", "application/vnd.oci.image.layer.v1.tar").unwrap();
        let layer = |bytes: &[u8]| Descriptor {
            media_type: String::new(),
            digest: cdh::registry::Digest::of(bytes),
            size: 7,
            annotations: std::collections::BTreeMap::new(),
            platform: None,
        };
        require(&input, &layer(b"altered"), file.path()).unwrap();
        assert_eq!(require(&input, &layer(b"genuine"), file.path()).unwrap_err().code(), "INPUT_UNFIT");
    }
}
