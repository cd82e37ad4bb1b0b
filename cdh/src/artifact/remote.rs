//! An artifact at a registry, of which nothing is stored: small objects first, then the ranges that a landing asks for.
//!
//! Each thread of a landing asks for one segment at a time, has it put into the destination that nobody sees yet, and opens it there. So fetching
//! and opening overlap, nobody fetches what nobody has room for, and memory is one segment a thread beside the landing, whatever the size. A
//! range that breaks off is asked for again inside the deadline, and then at the next source.

use std::fmt;
use std::sync::Arc;

use sealed_artifact::oci::ArtifactManifest;
use sealed_artifact::signature::Pin;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::prepared::Prepared;
use super::store::{Blob, Parts, Ranges, require_length};
use crate::Error;
use crate::registry::{Descriptor, Reference, Registry, RegistryError, VerifiedManifest};

/// Finds an artifact at its registry, and proves its origin before anything but small objects is asked for. Not for threads of an async runtime.
///
/// # Errors
///
/// Those of registries; as [`Prepared::open`].
pub fn prepare(
    registry: Registry,
    runtime: Runtime,
    reference: &Reference,
    pins: &[Pin],
    deadline: Instant,
) -> Result<Prepared, Error> {
    let manifest = runtime.block_on(registry.pull_artifact(reference, deadline))?;
    let form = ArtifactManifest::parse(&manifest.bytes)?;
    let core = match form.image_config() {
        None => Some(&manifest.manifest.config),
        Some(_) => manifest.layers().last(),
    };
    let missing = || RegistryError::Missing { from: reference.to_string(), what: "core".to_owned() };
    let core = core.ok_or_else(missing)?;
    let beside = runtime.block_on(registry.fetch_beside(&manifest, core, deadline))?;
    let prepared = Prepared::of_parts(beside, pins)?;
    let count = form.payloads(&prepared.store().core)?.len();
    let source = Arc::new(Source { registry, runtime, manifest, deadline });
    let layers = source.manifest.layers();
    let (ciphertexts, tags) = (layers.iter().take(count), layers.iter().skip(count).take(count));
    let part = |blob: &Descriptor| Part { source: Arc::clone(&source), blob: blob.clone() };
    let remote = Remote { ciphertexts: ciphertexts.map(part).collect(), tags: tags.map(part).collect() };
    for (index, payload) in prepared.store().core.parameters().payloads().iter().enumerate() {
        let found = remote.ciphertexts.get(index).map_or(0, |part| part.blob.size);
        require_length("ciphertext", index, payload.layout.size(), found)?;
    }
    Ok(prepared.with_parts(Box::new(remote)))
}

/// Where ranges come from.
struct Source {
    registry: Registry,
    runtime: Runtime,
    manifest: VerifiedManifest,
    deadline: Instant,
}

/// One blob.
struct Part {
    source: Arc<Source>,
    blob: Descriptor,
}

struct Remote {
    ciphertexts: Vec<Part>,
    tags: Vec<Part>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("payloads", &self.ciphertexts.len()).finish_non_exhaustive()
    }
}

fn none(index: usize) -> Error {
    Error::Usage { argument: "payload", expected: "a payload of the core", found: index.to_string() }
}

impl Parts for Remote {
    fn payload(&self, index: usize) -> Result<Blob, Error> {
        // There is no file of it.
        Err(none(index))
    }

    fn tag_table(&self, index: usize, length: u64) -> Result<Vec<u8>, Error> {
        let part = self.tags.get(index).ok_or_else(|| none(index))?;
        require_length("tag table", index, length, part.blob.size)?;
        let Source { registry, runtime, manifest, deadline } = &*part.source;
        Ok(runtime.block_on(registry.fetch_bytes(manifest, &part.blob, length, *deadline))?)
    }

    fn ranges(&self, index: usize) -> Option<&dyn Ranges> {
        self.ciphertexts.get(index).map(|part| part as &dyn Ranges)
    }
}

impl Ranges for Part {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        // The single segment of an empty payload.
        if buffer.is_empty() {
            return Ok(());
        }
        let Source { registry, runtime, manifest, deadline } = &*self.source;
        let end = offset.saturating_add(u64::try_from(buffer.len()).unwrap_or(u64::MAX));
        let range = registry.fetch_range_unverified(manifest, &self.blob, offset..end, *deadline);
        let bytes = runtime.block_on(range)?;
        if bytes.len() != buffer.len() {
            let found = format!("{} bytes", bytes.len());
            return Err(Error::Usage {
                argument: "range",
                expected: "as many bytes as were asked for",
                found,
            });
        }
        buffer.copy_from_slice(&bytes);
        Ok(())
    }
}
