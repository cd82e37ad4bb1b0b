//! Landing: from stored ciphertext to a visible file, decrypted by this CPU.

use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;

use chip_client::abi::DataPath;
use chip_client::session::{Presented, Session};
use chip_client::unseal::{Handle, UnsealJob, verify_payload_digest};
use protected_memory::dma::SharedMemoryProvider;
use protected_memory::landing::{Complete, FileName, Filling, Landing, LandingPlan};
use protected_memory::source::MappedSource;
use sealed_artifact::core::Core;
use sealed_artifact::keys::ContentKey;
use sealed_artifact::layout::Span;
use sealed_artifact::names::PayloadIndex;
use sealed_artifact::open::PayloadOpener;
use sealed_artifact::parallel::{Observer, open_reading, open_slices, open_streaming};

use super::store::Store;
use crate::Error;

/// Ranges that are asked for at the same time, at least.
const REQUESTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);

/// The files that a core becomes.
///
/// # Errors
///
/// A payload's name is no file name.
pub fn plan(core: &Core) -> Result<LandingPlan, Error> {
    let files = core
        .parameters()
        .payloads()
        .iter()
        .map(|payload| Ok((FileName::parse(payload.name.as_str())?, payload.layout.size())))
        .collect::<Result<Vec<_>, Error>>()?;
    Ok(LandingPlan::new(files)?)
}

/// Verifies commitments and all tag tables; one opener per payload.
///
/// # Errors
///
/// The key is another core's, or a tag table is.
pub fn openers(store: &Store, key: &ContentKey) -> Result<Vec<PayloadOpener>, Error> {
    let unlocked = store.core.unlock(key)?;
    (0_u32..)
        .zip(store.core.payloads())
        .map(|(index, _)| {
            let index = PayloadIndex::new(index);
            Ok(unlocked.opener(index, &store.tag_table(index.as_usize())?)?)
        })
        .collect()
}

/// Decrypts every payload into its file of the landing. After an error the landing is to be dropped, which wipes it.
pub(super) fn fill(
    store: &Store,
    openers: &[PayloadOpener],
    landing: &mut Landing<Filling>,
    threads: NonZeroUsize,
    observer: &impl Observer,
) -> Result<(), Error> {
    for (index, opener) in openers.iter().enumerate() {
        if let Some(ranges) = store.ranges(index) {
            let mut window = landing.file_mut(index)?.window()?;
            let read = |span: &Span, buffer: &mut [u8]| ranges.read(span.offset, buffer);
            // They wait for the network more than they work.
            open_reading(opener, threads.max(REQUESTS), read, window.bytes_mut(), observer)?;
            continue;
        }
        let blob = store.payload(index)?;
        let mut window = landing.file_mut(index)?.window()?;
        let source = MappedSource::open(&blob.file, blob.offset, blob.length)
            .map_err(Error::file("map the ciphertext", &blob.path))?;
        match source {
            Some(source) => open_slices(opener, threads, source.bytes(), window.bytes_mut(), observer)?,
            // Not this machine's own pages: read once, straight into the invisible destination.
            None => {
                opener.require_blob_length(blob.length)?;
                open_reading(
                    opener,
                    threads,
                    |span, buffer| blob.read(span, buffer),
                    window.bytes_mut(),
                    observer,
                )?;
            }
        }
    }
    Ok(())
}

/// Lets the chip decrypt every payload into its file of the landing. After an error the landing is to be dropped, which wipes it.
pub(super) fn fill_by_dma(
    store: &Store,
    session: &mut Session<'_, Presented>,
    handle: Handle,
    path: DataPath,
    landing: &mut Landing<Filling>,
    observer: &impl Observer,
) -> Result<(), Error> {
    for (index, _) in (0_u32..).zip(store.core.payloads()) {
        let payload = PayloadIndex::new(index);
        let ranges = store.ranges(payload.as_usize());
        let blob = ranges.is_none().then(|| store.payload(payload.as_usize())).transpose()?;
        let tag_table = store.tag_table(payload.as_usize())?;
        let job = UnsealJob {
            handle,
            core: &store.core,
            payload,
            tag_table: &tag_table,
            staging: SharedMemoryProvider::Emulated,
        };
        let mut read = |offset: u64, buffer: &mut [u8]| match (&blob, ranges) {
            (Some(blob), _) => blob.file.read_exact_at(buffer, blob.offset.saturating_add(offset)),
            (None, Some(ranges)) => ranges.read(offset, buffer).map_err(std::io::Error::other),
            (None, None) => Err(std::io::ErrorKind::NotFound.into()),
        };
        let mut advanced = |bytes: u64| observer.advanced(bytes);
        let file = landing.file_mut(payload.as_usize())?;
        if path == DataPath::DmaDirect {
            session.unseal_direct(&job, &mut read, file, &mut advanced)?;
        } else {
            session.unseal_sealed(&job, &mut read, file.window()?.bytes_mut(), &mut advanced)?;
        }
    }
    Ok(())
}

/// Compares the payload digests of landed files that nobody can write any more.
pub(super) fn verify_landed(store: &Store, landed: &Landing<Complete>) -> Result<(), Error> {
    for (index, _) in (0_u32..).zip(store.core.payloads()) {
        let payload = PayloadIndex::new(index);
        verify_payload_digest(&store.core, payload, landed.map(payload.as_usize())?.bytes())?;
    }
    Ok(())
}

/// Decrypts one payload into a plain file: for `--insecure-to-disk`.
///
/// # Errors
///
/// A segment that is not authentic; what was written before it stays in the file.
pub fn write_to(
    store: &Store,
    opener: &PayloadOpener,
    index: usize,
    (file, path): (&std::fs::File, &std::path::Path),
    threads: NonZeroUsize,
    observer: &impl Observer,
) -> Result<(), Error> {
    let blob = store.payload(index)?;
    opener.require_blob_length(blob.length)?;
    let write = |span: &Span, bytes: &[u8]| {
        file.write_all_at(bytes, span.offset).map_err(Error::file("write plaintext to", path))
    };
    open_streaming(opener, threads, |span, buffer| blob.read(span, buffer), write, observer)
}
