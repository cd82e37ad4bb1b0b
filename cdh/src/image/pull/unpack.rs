//! Blobs to a verified tree, on a thread that may block, until somebody gives the pull up.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Error;
use crate::composefs::erofs;
use crate::composefs::mount::{PrivateMemory, Verified};
use crate::composefs::pin::Pin;
use crate::image::layer::{Compression, DiffId, Limits, Unpacker, transform_for_oci};
use crate::image::objects::Store;
use crate::image::ocicrypt::LayerKey;
use crate::registry::store::StoredBlob;

use super::PullError;
use crate::artifact::Landed;

/// Where the bytes of a layer are, which were authenticated.
pub(super) enum Bytes {
    /// A blob, and the key of an encrypted one.
    Stored(Arc<StoredBlob>, Option<LayerKey>),
    /// Landed, and the number of the file.
    Landed(Arc<Landed>, usize),
}

/// One layer.
pub(super) struct Layer {
    pub(super) bytes: Bytes,
    pub(super) compression: Compression,
    pub(super) diff_id: DiffId,
}

/// An image to unpack.
pub(super) struct Order {
    pub(super) layers: Vec<Layer>,
    pub(super) limits: Limits,
    pub(super) memory: (u64, u64),
    pub(super) pins: Vec<Pin>,
    pub(super) transform: bool,
}

/// Given up when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Set when it is dropped.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Unpacks on a thread of its own. When the future is dropped, the thread ends at its next read.
pub(super) async fn unpack(order: Order) -> Result<Verified, Error> {
    let cancel = Cancel::default();
    let given_up = Arc::clone(&cancel.0);
    let verified = tokio::task::spawn_blocking(move || {
        let found = unpack_here(order, &given_up);
        if given_up.load(Ordering::Relaxed) { Err(PullError::Interrupted.into()) } else { found }
    });
    let verified = verified.await.map_err(|_| PullError::Interrupted)?;
    drop(cancel);
    verified
}

fn unpack_here(order: Order, given_up: &AtomicBool) -> Result<Verified, Error> {
    let Order { layers, mut limits, memory: (bytes, files), pins, transform } = order;
    limits.content_bytes = limits.content_bytes.min(bytes);
    let memory = PrivateMemory::create(bytes, files)?;
    let store = Store::new(memory.directory()?, 0);
    let mut unpacker = Unpacker::new(&store, limits);
    for Layer { bytes, compression, diff_id } in layers {
        unpacker = match bytes {
            Bytes::Stored(blob, None) => {
                unpacker.layer(Watched { inner: blob.reader(), given_up }, compression, &diff_id)?
            }
            Bytes::Landed(landed, index) => {
                let inner = landed.landing.open(index)?;
                unpacker.layer(Watched { inner, given_up }, compression, &diff_id)?
            }
            Bytes::Stored(blob, Some(key)) => {
                let ciphertext = Watched { inner: Ciphertext { blob: &blob, offset: 0 }, given_up };
                // Both passes: nothing is decrypted for anybody before all of it was verified.
                let plaintext = key.verify(ciphertext, blob.size())?;
                unpacker.layer(plaintext, compression, &diff_id)?
            }
        };
    }
    let mut tree = unpacker.finish();
    // It holds a descriptor that can write.
    drop(store);
    if transform {
        transform_for_oci(&mut tree)?;
    }
    if let Some(others) = pins.get(1..).filter(|others| !others.is_empty()) {
        let options = erofs::Options { format: Pin::FORMAT, ..erofs::Options::default() };
        let image = erofs::write(&tree, &options)?;
        for pin in others {
            // GUARD: pull-every-pin -> evil_pin_of_the_operator_beside_one_of_the_image
            pin.check(&image)?;
        }
    }
    Ok(Verified::in_memory(&tree, memory, pins.first())?)
}

/// Ends in an error when the pull was given up.
struct Watched<'a, R> {
    inner: R,
    given_up: &'a AtomicBool,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given_up.load(Ordering::Relaxed) {
            return Err(io::Error::other(PullError::Interrupted));
        }
        self.inner.read(buffer)
    }
}

impl<R: Seek> Seek for Watched<'_, R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}

/// A blob from a place of its own: no other reader moves it.
struct Ciphertext<'a> {
    blob: &'a StoredBlob,
    offset: u64,
}

impl Read for Ciphertext<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.blob.file().read_at(buffer, self.offset)?;
        self.offset = self.offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}

impl Seek for Ciphertext<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let place = match position {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => self.offset.checked_add_signed(by),
            SeekFrom::End(by) => self.blob.size().checked_add_signed(by),
        };
        self.offset = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.offset)
    }
}
