//! Artifacts to land: sealed by the library into an OCI image layout, and opened from it as the command does.

use std::fs::{self, File};
use std::io::Read;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sealed_artifact::ArtifactError;
use sealed_artifact::core::Core;
use sealed_artifact::digest::BlobDigest;
use sealed_artifact::names::{Counter, EnvironmentTag, Family, MediaType, PayloadName, SegmentSize};
use sealed_artifact::oci::{
    ArtifactManifest, Descriptor, ImageIndex, MAXIMUM_MANIFEST, OCI_LAYOUT, PayloadBlobs,
};
use sealed_artifact::parallel::seal_streaming;
use sealed_artifact::seal::{SealInput, SealRequest, Sealer};
use sha2::{Digest, Sha256};

/// Tag of the artifacts.
pub(crate) const TAG: &str = "bench";
/// Name of the payload.
pub(crate) const NAME: &str = "model.bin";

/// An artifact that was made for measuring.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// The layout.
    pub(crate) path: PathBuf,
    /// Content key, hex.
    pub(crate) key: String,
    /// Bytes of payload.
    pub(crate) size: u64,
}

/// What `seal_streaming` may fail with here.
#[derive(Debug, thiserror::Error)]
enum SealFailure {
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Seals `size` bytes of a known sequence and writes everything to disk.
pub(crate) fn make(path: &Path, size: u64, payload_digest: bool) -> anyhow::Result<Made> {
    let blobs = path.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let request = SealRequest {
        counter: Counter::new(1),
        environment: EnvironmentTag::parse("bench")?,
        family: Family::parse("bench/landing")?,
        inputs: vec![SealInput {
            media_type: MediaType::parse("application/octet-stream")?,
            name: PayloadName::parse(NAME)?,
            size,
        }],
        payload_digests: payload_digest,
        sealer: None,
        segment_size: SegmentSize::DEFAULT,
    };
    let sealer = Sealer::new(&request)?;
    let unnamed = path.join("ciphertext");
    let file = File::options().read(true).write(true).create_new(true).open(&unnamed)?;
    let payload = sealer.payloads().first().context("no payload")?;
    let threads = NonZeroUsize::new(2).unwrap_or(NonZeroUsize::MIN);
    seal_streaming::<SealFailure>(
        payload,
        threads,
        |span, buffer| {
            plaintext(span.offset, buffer);
            Ok(())
        },
        |span, bytes| Ok(file.write_all_at(bytes, span.offset)?),
        &(),
    )?;
    file.sync_all()?;
    let digest = digest_of(&file)?;
    let put = |bytes: &[u8]| fs::write(path.join(BlobDigest::of(bytes).layout_path()), bytes);
    fs::rename(&unnamed, path.join(digest.layout_path()))?;
    let sealed = sealer.finish()?;
    let manifest = ArtifactManifest::build(&sealed.core, &[digest])?;
    put(sealed.core.bytes())?;
    put(&manifest.bytes)?;
    for tags in &sealed.tag_tables {
        put(tags.bytes())?;
    }
    let mut index = ImageIndex::new();
    index.set_artifact(TAG, &manifest.descriptor);
    fs::write(path.join("index.json"), index.encode())?;
    fs::write(path.join("oci-layout"), OCI_LAYOUT)?;
    Ok(Made { path: path.to_owned(), key: hex::encode(sealed.content_key.expose_bytes()), size })
}

/// What lies at an offset of the payload: a sequence without repetition, the same everywhere.
pub(crate) fn plaintext(offset: u64, buffer: &mut [u8]) {
    for (word, chunk) in (offset / 8..).zip(buffer.chunks_mut(8)) {
        let mixed = (word ^ (word >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let bytes = (mixed ^ (mixed >> 29)).to_le_bytes();
        chunk.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    }
}

/// Reads a file once, so that it is in the page cache: a kernel may reclaim what lay idle since the last round.
pub(crate) fn read_through(file: &File) -> anyhow::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut buffer, offset)?;
        if read == 0 {
            return Ok(());
        }
        offset += read as u64;
    }
}

fn digest_of(file: &File) -> anyhow::Result<BlobDigest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut buffer, offset)?;
        if read == 0 {
            return Ok(BlobDigest::new(hash.finalize().into()));
        }
        hash.update(buffer.get(..read).unwrap_or_default());
        offset += read as u64;
    }
}

/// An artifact as a consumer opens it: nothing believed yet.
#[derive(Debug)]
pub(crate) struct Stored {
    path: PathBuf,
    /// The core, parsed.
    pub(crate) core: Core,
    payloads: Vec<PayloadBlobs>,
}

impl Stored {
    /// Index, manifest and core.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let index = ImageIndex::parse(&read_capped(&path.join("index.json"), MAXIMUM_MANIFEST)?)?;
        let entry = index.artifact(Some(TAG))?;
        let manifest = read_blob(path, entry, MAXIMUM_MANIFEST)?;
        let manifest = ArtifactManifest::parse(&manifest)?;
        let core = Core::parse(&read_blob(path, manifest.core(), sealed_artifact::core::MAXIMUM_CORE)?)?;
        let payloads = manifest.payloads(&core)?;
        Ok(Self { path: path.to_owned(), core, payloads })
    }

    /// The tag table of the payload.
    pub(crate) fn tag_table(&self) -> anyhow::Result<Vec<u8>> {
        let blobs = self.payloads.first().context("no payload")?;
        let payload = self.core.parameters().payloads().first().context("no payload")?;
        read_blob(&self.path, &blobs.tags, payload.layout.tag_table_length())
    }

    /// The ciphertext of the payload and its length.
    pub(crate) fn ciphertext(&self) -> anyhow::Result<(File, u64)> {
        let blobs = self.payloads.first().context("no payload")?;
        let file = File::open(self.path.join(blobs.ciphertext.digest.layout_path()))?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }
}

fn read_blob(path: &Path, descriptor: &Descriptor, cap: u64) -> anyhow::Result<Vec<u8>> {
    let bytes = read_capped(&path.join(descriptor.digest.layout_path()), cap)?;
    descriptor.verify(&bytes)?;
    Ok(bytes)
}

fn read_capped(path: &Path, cap: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| path.display().to_string())?;
    file.take(cap.saturating_add(1)).read_to_end(&mut bytes)?;
    anyhow::ensure!(bytes.len() as u64 <= cap, "{}: longer than {cap} bytes", path.display());
    Ok(bytes)
}
