//! `innerkeep seal`: files or the layers of an image in, a sealed artifact or image out. Plaintext is read once and never written.

mod image;

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use sealed_artifact::layout::Span;
use sealed_artifact::names::{Counter, EnvironmentTag, Family, MediaType, PayloadName, SegmentSize};
use sealed_artifact::parallel::{Observer, seal_streaming};
use sealed_artifact::seal::{PayloadSealer, SealInput, SealRequest, Sealed, Sealer};
use sealed_artifact::signature::{SealerSigningKey, Signature};
use serde_json::json;

use crate::args::SealArgs;
use crate::cmd::key;
use crate::content_key;
use crate::error::Failure;
use crate::output::{Output, Progress, Report};
use crate::store::{Finished, Reference, Writer};

/// Runs the command.
pub(crate) fn run(arguments: &SealArgs, output: Output) -> Result<Report, Failure> {
    let reference = Reference::parse(&arguments.output)?;
    let sealer_key = arguments.sealer_key.as_deref().map(key::read_private).transpose()?;
    refuse_existing(&arguments.key_out)?;
    let image = arguments.image.as_deref().map(|name| image::open(name, arguments, output)).transpose()?;
    let own;
    let inputs = match &image {
        Some(image) => {
            refuse_file(&reference)?;
            &image.inputs
        }
        None => {
            let media_type = arguments.media_type.as_deref();
            let opened = arguments.inputs.iter().map(|path| Input::open(path, media_type));
            own = opened.collect::<Result<Vec<_>, _>>()?;
            &own
        }
    };
    let request = request(arguments, inputs, sealer_key.as_ref())?;
    let sealer = Sealer::new(&request)?;
    refuse_split(image.is_some(), inputs.len(), sealer.payloads().len())?;
    let threads = threads(arguments.threads);
    let total = inputs.iter().map(|input| input.size).sum();

    let mut writer =
        Writer::create(&reference, sealer.payloads().iter().map(|payload| payload.layout().size()))?;
    let progress = output.progress("sealing", total);
    for (index, payload) in sealer.payloads().iter().enumerate() {
        let input = inputs.get(payload.input_range().input).ok_or(Failure::Usage {
            argument: "INPUTS",
            expected: "an input per payload",
            found: index.to_string(),
        })?;
        seal_payload(payload, input, &writer, index, threads, &progress)?;
        writer.payload_done(index)?;
    }
    for input in inputs {
        input.verify_unchanged()?;
    }
    let timing = progress.finish();
    let Sealed { content_key, core, tag_tables } = sealer.finish()?;
    let signature = sealer_key.as_ref().map(|key| Signature::sign(&core, key)).transpose()?;
    // The key before the index: an artifact that can be found can also be granted.
    content_key::write(&arguments.key_out, core.digest(), &content_key)?;
    let config = image.as_ref().map(|image| &image.local);
    writer.finish(&Finished {
        core: &core,
        tag_tables: &tag_tables,
        signature: signature.as_ref(),
        image: config.map(|image| (image.manifest.config.media_type.as_str(), image.config.as_slice())),
    })?;
    let manifest = config.map(|image| image.digest.to_string());
    let of_image = manifest.as_ref().map(|digest| format!("\nmanifest   {digest}")).unwrap_or_default();

    let payloads: Vec<_> = core
        .parameters()
        .payloads()
        .iter()
        .map(|payload| {
            json!({
                "name": payload.name.as_str(), "media_type": payload.media_type.as_str(), "size": payload.layout.size(),
                "segment_size": payload.layout.segment_size().bytes(), "segments": payload.layout.segments(),
            })
        })
        .collect();
    let digest = core.digest().to_string();
    Ok(Report {
        text: format!(
            "core       {digest}{of_image}\nartifact   {reference}\nkey        {}\nsealed     {} bytes in {:.2} s ({:.2} GB/s)\nsigned     {}",
            arguments.key_out.display(),
            timing.bytes,
            timing.seconds,
            timing.gb_per_s(),
            if signature.is_some() { "yes" } else { "no: it can only be landed by its pinned digest" }
        ),
        json: json!({
            "core": digest, "id": core.parameters().id().to_string(), "output": reference.to_string(), "key": arguments.key_out,
            "bytes": timing.bytes, "seconds": timing.seconds, "gb_per_s": timing.gb_per_s(), "signed": signature.is_some(),
            "payload_digests": core.has_payload_digests(), "payloads": payloads, "manifest": manifest,
        }),
    })
}

/// How many threads: what was asked for, else one a core.
pub(crate) fn threads(asked: Option<usize>) -> NonZeroUsize {
    asked
        .and_then(NonZeroUsize::new)
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN)
        .min(NonZeroUsize::MIN.saturating_add(63))
}

fn refuse_existing(path: &Path) -> Result<(), Failure> {
    if std::fs::symlink_metadata(path).is_ok() {
        return Err(Failure::file("write the content key to", path)(
            std::io::ErrorKind::AlreadyExists.into(),
        ));
    }
    Ok(())
}

/// A `.sealed` file is no image.
fn refuse_file(reference: &Reference) -> Result<(), Failure> {
    match reference {
        Reference::Layout(..) => Ok(()),
        Reference::File(path) => {
            let (argument, expected) = ("--output", "an image layout: a file is no image");
            Err(Failure::Usage { argument, expected, found: path.display().to_string() })
        }
    }
}

/// Layers are not split: an unpacker would not find them.
fn refuse_split(is_image: bool, inputs: usize, payloads: usize) -> Result<(), Failure> {
    if is_image && inputs != payloads {
        let (argument, expected) = ("--image", "layers of at most 2^18 segments");
        return Err(Failure::Usage { argument, expected, found: format!("{payloads} payloads") });
    }
    Ok(())
}

fn request(
    arguments: &SealArgs,
    inputs: &[Input],
    sealer: Option<&SealerSigningKey>,
) -> Result<SealRequest, Failure> {
    let inputs = inputs
        .iter()
        .map(|input| {
            Ok(SealInput {
                media_type: MediaType::parse(&input.media_type)?,
                name: PayloadName::parse(&input.name)?,
                size: input.size,
            })
        })
        .collect::<Result<_, Failure>>()?;
    Ok(SealRequest {
        counter: Counter::new(arguments.counter),
        environment: EnvironmentTag::parse(&arguments.environment)?,
        family: Family::parse(&arguments.family)?,
        inputs,
        payload_digests: !arguments.no_payload_digest,
        sealer: sealer.map(|key| key.public_key().digest()),
        segment_size: SegmentSize::parse(u64::from(arguments.segment_size))?,
    })
}

/// Inner media type by file name: CNCF ModelPack weights where the name tells a model, else plain bytes.
fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("safetensors" | "gguf" | "onnx" | "pt" | "bin") => "application/vnd.cncf.model.weight.v1.raw",
        Some("json") => "application/json",
        Some("tar") => "application/vnd.oci.image.layer.v1.tar",
        _ => "application/octet-stream",
    }
}

fn seal_payload(
    payload: &PayloadSealer,
    input: &Input,
    writer: &Writer,
    index: usize,
    threads: NonZeroUsize,
    progress: &Progress,
) -> Result<(), Failure> {
    let from = payload.input_range().offset;
    let (sink, to, path) = writer.sink(index)?;
    let read = |span: &Span, buffer: &mut [u8]| {
        input
            .file
            .read_exact_at(buffer, from.saturating_add(span.offset))
            .map_err(|error| input.read_failed(error))
    };
    let write = |span: &Span, bytes: &[u8]| {
        sink.write_all_at(bytes, to.saturating_add(span.offset))
            .map_err(Failure::file("write ciphertext to", path))
    };
    seal_streaming(payload, threads, read, write, &Shown(progress))
}

/// Shows the work as it goes on.
pub(crate) struct Shown<'a>(pub(crate) &'a Progress);

impl Observer for Shown<'_> {
    fn advanced(&self, bytes: u64) {
        self.0.advance(bytes);
    }
}

/// A file to be sealed, opened once.
struct Input {
    path: PathBuf,
    name: String,
    media_type: String,
    file: File,
    size: u64,
    stamp: (u64, i64, i64, i64, i64),
}

impl Input {
    /// A file that gives a payload its name, and its media type unless somebody says one.
    fn open(path: &Path, asked: Option<&str>) -> Result<Self, Failure> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| Failure::Input {
            path: path.to_owned(),
            expected: "a file name in UTF-8",
            found: "another".to_owned(),
        })?;
        Self::named(path, name, asked.unwrap_or_else(|| media_type(name)))
    }

    fn named(path: &Path, name: &str, media_type: &str) -> Result<Self, Failure> {
        let file = File::open(path).map_err(Failure::file("open the input", path))?;
        let metadata = file.metadata().map_err(Failure::file("look at the input", path))?;
        let unfit = |expected, found: &str| Failure::Input {
            path: path.to_owned(),
            expected,
            found: found.to_owned(),
        };
        // GUARD: seal-regular-file -> evil_seal_of_a_pipe_is_refused
        if !metadata.is_file() {
            return Err(unfit("a regular file, whose size is known before the first byte", "something else"));
        }
        Ok(Self {
            path: path.to_owned(),
            name: name.to_owned(),
            media_type: media_type.to_owned(),
            size: metadata.len(),
            stamp: stamp(&metadata),
            file,
        })
    }

    fn read_failed(&self, error: std::io::Error) -> Failure {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            let found = "a shorter one: it was cut while it was read".to_owned();
            return Failure::Input { path: self.path.clone(), expected: "a file that keeps its size", found };
        }
        Failure::file("read the input", &self.path)(error)
    }

    fn verify_unchanged(&self) -> Result<(), Failure> {
        let metadata = self.file.metadata().map_err(Failure::file("look at the input", &self.path))?;
        // GUARD: seal-input-unchanged -> evil_input_that_changes_while_sealed_is_refused
        if stamp(&metadata) != self.stamp {
            return Err(Failure::Input {
                path: self.path.clone(),
                expected: "a file that nobody changes while it is sealed",
                found: "another size or time of change".to_owned(),
            });
        }
        Ok(())
    }
}

/// Size and times of the last changes.
fn stamp(metadata: &std::fs::Metadata) -> (u64, i64, i64, i64, i64) {
    (metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_input_that_changes_while_sealed_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"before").unwrap();
        let input = Input::open(file.path(), None).unwrap();
        input.verify_unchanged().unwrap();
        std::fs::write(file.path(), b"after it was opened").unwrap();
        assert_eq!(input.verify_unchanged().unwrap_err().code(), "INPUT_UNFIT");
    }

    #[test]
    fn evil_seal_of_a_pipe_is_refused() {
        let error = Input::open(Path::new("/dev/null"), None).err().unwrap();
        assert_eq!(error.code(), "INPUT_UNFIT");
    }
}
