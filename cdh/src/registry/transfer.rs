//! Blobs from their sources into the store: in parallel, continued where they broke off, verified before they have a name.
//!
//! Bytes are hashed and written while the next piece is on the way. A blob in transfer holds two pieces and a connection's
//! buffer, whatever its size; nobody reads faster than the disk writes.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hyper::Method;
use hyper::header::{CONTENT_RANGE, HeaderName, HeaderValue, RANGE};
use tokio::time::Instant;

use super::Registry;
use super::client::{Access, Call, Repository};
use super::digest::Digest;
use super::error::{RegistryClass, RegistryError};
use super::http::Answer;
use super::manifest::Descriptor;
use super::progress::{Meter, Progress};
use super::pull::{VerifiedManifest, no_source};
use super::reference::Reference;
use super::retry::Retry;
use super::sources::Source;
use super::store::{Begun, Partial, Store, StoredBlob};

mod writer;

use writer::Writer;

/// Bytes that are written at once.
const PIECE: usize = 1 << 20;
/// How often somebody else's transfer of the same blob is looked at.
const BUSY: Duration = Duration::from_millis(50);

/// What [`Registry::fetch_blobs`] brought. The blobs are not collected while this is held.
#[derive(Debug)]
pub struct Fetched {
    /// One for each layer, in the manifest's order; a layer that is there twice is one blob.
    pub layers: Vec<Arc<StoredBlob>>,
    /// Bytes that came over the network.
    pub received: u64,
}

/// Where blobs are.
pub(super) struct Place<'a> {
    pub(super) reference: &'a Reference,
    pub(super) sources: &'a [Source],
}

impl Registry {
    /// Fetches all layers of a manifest that are not in the store.
    ///
    /// # Errors
    ///
    /// See the codes of [`crate::registry`]. What was verified until then stays in the store, and what is left of the others is
    /// continued by the next call; so it is when this future is dropped.
    pub async fn fetch_blobs(
        &self,
        manifest: &VerifiedManifest,
        store: &Arc<Store>,
        progress: &dyn Progress,
        deadline: Instant,
    ) -> Result<Fetched, RegistryError> {
        let place = Place { reference: &manifest.reference, sources: &manifest.sources };
        self.fetch_all(&place, manifest.layers(), store, progress, deadline).await
    }

    pub(super) async fn fetch_all(
        &self,
        place: &Place<'_>,
        blobs: &[Descriptor],
        store: &Arc<Store>,
        progress: &dyn Progress,
        deadline: Instant,
    ) -> Result<Fetched, RegistryError> {
        let mut sizes: HashMap<Digest, u64> = HashMap::new();
        let mut wanted = Vec::new();
        for layer in blobs {
            let before = *sizes.entry(layer.digest).or_insert_with(|| {
                wanted.push((layer.digest, layer.size));
                layer.size
            });
            // GUARD: layer-sizes-agree -> evil_manifest_gives_a_blob_two_sizes
            if before != layer.size {
                return Err(RegistryError::Manifest {
                    what: "manifest",
                    expected: "one size for one digest",
                    found: format!("{before} and {}", layer.size),
                });
            }
        }
        let (own, asked) = (Arc::clone(store), wanted.clone());
        blocking(move || own.prepare(&asked)).await?;
        let total = wanted.iter().fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
        let meter = Meter::new(progress, total);
        let fetched: HashMap<Digest, Arc<StoredBlob>> = stream::iter(wanted)
            .map(|(digest, size)| {
                let meter = &meter;
                async move {
                    let blob = self.fetch(place, digest, size, store, meter, deadline).await?;
                    Ok::<_, RegistryError>((digest, Arc::new(blob)))
                }
            })
            .buffer_unordered(self.options.limits.parallel.max(1))
            .try_collect()
            .await?;
        let layers = blobs.iter().filter_map(|layer| fetched.get(&layer.digest).cloned());
        Ok(Fetched { layers: layers.collect(), received: meter.network_bytes() })
    }

    /// A range of a blob. It is not verified: nobody can say what the digest of a range is. For bytes that something else
    /// authenticates, such as the segments of a sealed artifact.
    ///
    /// # Errors
    ///
    /// As [`Registry::fetch_blobs`]; `REGISTRY_ANSWER` from a registry that sends another range.
    pub async fn fetch_range_unverified(
        &self,
        manifest: &VerifiedManifest,
        blob: &Descriptor,
        range: Range<u64>,
        deadline: Instant,
    ) -> Result<Vec<u8>, RegistryError> {
        let length = range.end.saturating_sub(range.start);
        if length == 0 || range.end > blob.size {
            let (what, expected) = ("range", "a part of the blob");
            return Err(RegistryError::Config {
                what,
                expected,
                found: format!("{range:?} of {}", blob.size),
            });
        }
        let mut tried = Vec::new();
        for source in &manifest.sources {
            let repository = self.repository(source, Access::Pull)?;
            let mut retry = Retry::new(deadline);
            let error = loop {
                let attempt = async {
                    let answer = ask(&repository, &blob.digest, Some(range.clone()), deadline).await?;
                    // GUARD: unverified-range-status -> evil_registry_lies_about_ranges
                    require_range(&answer, &range, blob.size)?;
                    let bytes = answer.whole("range of a blob", length, deadline).await?;
                    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    if found == length { Ok(bytes) } else { Err(ended_early(&repository, found, length)) }
                };
                match attempt.await {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) => match retry.after(error).await {
                        Ok(()) => {}
                        Err(error) => break error,
                    },
                }
            };
            tried.push((source.reference.to_string(), error));
        }
        Err(no_source(&manifest.reference, tried))
    }

    async fn fetch(
        &self,
        place: &Place<'_>,
        digest: Digest,
        size: u64,
        store: &Arc<Store>,
        meter: &Meter<'_>,
        deadline: Instant,
    ) -> Result<StoredBlob, RegistryError> {
        loop {
            let own = Arc::clone(store);
            if let Some(blob) = blocking(move || own.get(&digest, size)).await? {
                meter.found(size);
                return Ok(blob);
            }
            let own = Arc::clone(store);
            match blocking(move || own.begin(&digest, size)).await? {
                Begun::Partial(partial) => {
                    return self.download(place, *partial, store, meter, deadline).await;
                }
                Begun::Whole => {}
                Begun::Busy if Instant::now() + BUSY < deadline => tokio::time::sleep(BUSY).await,
                Begun::Busy => {
                    return Err(RegistryError::Deadline { doing: "somebody else fetched the same blob" });
                }
            }
        }
    }

    /// Tries all sources. Bytes of one are continued from another; when the whole is wrong, each is asked for all of it.
    async fn download(
        &self,
        place: &Place<'_>,
        mut partial: Partial,
        store: &Arc<Store>,
        meter: &Meter<'_>,
        deadline: Instant,
    ) -> Result<StoredBlob, RegistryError> {
        let mut tried = Vec::new();
        meter.found(partial.offset());
        for source in place.sources {
            let repository = self.repository(source, Access::Pull)?;
            let mut retry = Retry::new(deadline);
            // Whether all bytes that are there came from this source, now.
            let mut own = partial.offset() == 0;
            let error = loop {
                let before = partial.offset();
                let (back, result) = stream_into(&repository, partial, meter, deadline).await?;
                partial = back;
                let error = match result.and_then(|()| partial.verify()) {
                    Ok(()) => {
                        let store = Arc::clone(store);
                        return blocking(move || partial.finish(&store)).await;
                    }
                    Err(error) => error,
                };
                match error.class() {
                    RegistryClass::Local => return Err(error),
                    RegistryClass::Transient => {
                        if partial.offset() > before {
                            retry.advanced();
                        }
                        if let Err(error) = retry.after(error).await {
                            break error;
                        }
                    }
                    _ => {
                        meter.lost(partial.offset());
                        partial.reset()?;
                        if own {
                            break error;
                        }
                        own = true;
                    }
                }
            };
            tried.push((source.reference.to_string(), error));
        }
        Err(no_source(place.reference, tried))
    }
}

/// One answer into the part. The part comes back whatever happened, unless a worker died.
async fn stream_into(
    repository: &Repository<'_>,
    mut partial: Partial,
    meter: &Meter<'_>,
    deadline: Instant,
) -> Result<(Partial, Result<(), RegistryError>), RegistryError> {
    let (offset, size) = (partial.offset(), partial.size());
    if offset == size && size > 0 {
        return Ok((partial, Ok(())));
    }
    let range = (offset > 0).then_some(offset..size);
    let mut answer = match ask(repository, partial.digest(), range.clone(), deadline).await {
        Ok(answer) => answer,
        Err(error) => return Ok((partial, Err(error))),
    };
    if answer.status == 200 && offset > 0 {
        // It knows no ranges: all of it comes again.
        meter.lost(offset);
        partial.reset()?;
    } else if let Err(error) = range.map_or(Ok(()), |range| require_range(&answer, &range, size)) {
        return Ok((partial, Err(error)));
    }
    let mut left = size - partial.offset();
    // GUARD: blob-length-announced -> evil_registry_announces_another_length
    if let Some(length) = answer.length().filter(|length| *length != left) {
        let error = answer.refused("a Content-Length of what is left of the blob", &length.to_string());
        return Ok((partial, Err(error)));
    }
    let mut writer = Writer::Idle(partial);
    let mut batch = Vec::new();
    let result = loop {
        match answer.piece(deadline).await {
            Ok(Some(piece)) => {
                let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                // GUARD: blob-endless -> evil_registry_sends_an_endless_blob
                if length > left {
                    break Err(RegistryError::TooLarge { what: "blob", maximum: size, found: size + 1 });
                }
                left -= length;
                batch.extend_from_slice(&piece);
                if batch.len() >= PIECE {
                    writer = writer.write(std::mem::take(&mut batch), meter).await?;
                }
            }
            Ok(None) if left > 0 => break Err(ended_early(repository, size - left, size)),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // What came before a failure counts too.
    let (partial, written) = writer.write(batch, meter).await?.idle(meter).await?;
    Ok((partial, result.and(written)))
}

async fn ask(
    repository: &Repository<'_>,
    digest: &Digest,
    range: Option<Range<u64>>,
    deadline: Instant,
) -> Result<Answer, RegistryError> {
    let what = format!("blob {digest} of {}", repository.reference.name());
    let path = repository.path(&format!("blobs/{digest}"));
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    if let Some(range) = range {
        let value = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        headers.extend(HeaderValue::from_str(&value).map(|value| (RANGE, value)));
    }
    let asked = !headers.is_empty();
    let call = Call { method: Method::GET, path, headers: &headers, body: None, what: &what };
    let answer = repository.call(call, deadline).await?;
    match answer.status {
        200 => Ok(answer),
        206 if asked => Ok(answer),
        status => Err(RegistryError::Status { from: answer.from, what, status }),
    }
}

/// Refuses a part of a blob that is not the one that was asked for.
fn require_range(answer: &Answer, range: &Range<u64>, size: u64) -> Result<(), RegistryError> {
    let expected = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
    let found = answer.header(CONTENT_RANGE).unwrap_or_default();
    // GUARD: blob-range -> evil_registry_lies_about_ranges
    if answer.status != 206 || found != expected {
        return Err(answer.refused("the range that was asked for", found));
    }
    Ok(())
}

fn ended_early(repository: &Repository<'_>, found: u64, expected: u64) -> RegistryError {
    let error = std::io::Error::new(
        std::io::ErrorKind::UnexpectedEof,
        format!("expected {expected} bytes, found {found}"),
    );
    RegistryError::broken(&repository.origin.to_string(), error)
}

fn died(error: tokio::task::JoinError) -> RegistryError {
    RegistryError::store("wait for a worker of", "the blob store")(std::io::Error::other(error))
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    tokio::task::spawn_blocking(work).await.map_err(died)?
}
