//! Blobs to a verified tree: fed to a child that unpacks them, until somebody gives the pull up.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::Error;
use crate::composefs::erofs;
use crate::composefs::mount::{PrivateMemory, Verified};
use crate::composefs::pin::Pin;
use crate::image::layer::confine::{self, Job, JobLayer};
use crate::image::layer::{Compression, DiffId, LayerError, Limits};
use crate::image::ocicrypt::LayerKey;
use crate::image::policy::Cause;
use crate::image::tree::Tree;
use crate::registry::store::StoredBlob;
use crate::worker::channel::{Mark, job_file, pair, send};
use crate::worker::{Trade, Workers};

use super::PullError;
use crate::artifact::Landed;

/// What is read and fed at once, and what a pipe to the child holds.
const PIECE: usize = 1 << 18;
const PIPE_BYTES: usize = 1 << 20;

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

impl Layer {
    fn job(&self) -> JobLayer {
        JobLayer { compression: self.compression, diff_id: self.diff_id }
    }

    fn landed(&self) -> Option<Arc<Landed>> {
        match &self.bytes {
            Bytes::Landed(landed, _) => Some(Arc::clone(landed)),
            Bytes::Stored(..) => None,
        }
    }
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

/// Unpacks in a child. When the future is dropped, the child is killed, and threads end at their next read.
pub(super) async fn unpack(workers: &dyn Workers, order: Order) -> Result<Verified, Error> {
    let Order { layers, mut limits, memory: (bytes, files), pins, transform } = order;
    limits.content_bytes = limits.content_bytes.min(bytes);
    let memory = PrivateMemory::create(bytes, files)?;
    let job = Job { layers: layers.iter().map(Layer::job).collect(), limits, reserve: 0, transform };
    let cancel = Cancel::default();
    let tree = tree_of(workers, job, &memory, layers, &cancel).await?;
    let given_up = cancel.flag();
    let verified = tokio::task::spawn_blocking(move || {
        let found = verify(&tree, memory, &pins);
        if given_up.load(Ordering::Relaxed) { Err(PullError::Interrupted.into()) } else { found }
    });
    let verified = verified.await.map_err(|_| PullError::Interrupted)?;
    drop(cancel);
    verified
}

/// The tree that a child makes of a job, which has ended when this returns.
async fn tree_of(
    workers: &dyn Workers,
    job: Job,
    memory: &PrivateMemory,
    layers: Vec<Layer>,
    cancel: &Cancel,
) -> Result<Tree, Error> {
    let (ours, theirs) = pair().map_err(unpacker("make a socket for"))?;
    let (answer, told) = pipe_with(PipeFlags::CLOEXEC).map_err(unpacker("make a pipe for"))?;
    let process = workers.start(Trade::Unpack, theirs).await.map_err(unpacker("start"))?;
    {
        let (file, objects) = (job_file(&job).map_err(unpacker("write the job of"))?, memory.directory()?);
        send(&ours, Mark::Job, &[file.as_fd(), objects.as_fd(), told.as_fd()])
            .map_err(unpacker("send a job to"))?;
    }
    // From here on nobody but the child can write there: where it ends, the answer ends.
    drop(told);
    let given_up = cancel.flag();
    // Memory that landed is wiped when nobody holds it: not before the child is gone, who reads it.
    let landed: Vec<Arc<Landed>> = layers.iter().filter_map(Layer::landed).collect();
    let fed = tokio::task::spawn_blocking(move || feed(&ours, layers, &given_up));
    let received = tokio::task::spawn_blocking(move || confine::receive(File::from(answer), &job));
    let received = received.await.map_err(|_| PullError::Interrupted)?;
    // It has said all that it can say, and does nothing more.
    // GUARD: unpacker-ended -> evil_process_whose_end_nobody_knows
    process.end().await.map_err(unpacker("end"))?;
    let fed = fed.await.map_err(|_| PullError::Interrupted)?;
    tokio::task::spawn_blocking(move || drop(landed)).await.map_err(|_| PullError::Interrupted)?;
    let (is_all, failed) = fed.map_or_else(|error| (true, Some(error)), |is_all| (is_all, None));
    // What was fed may have been altered under the hands of who read it: then nothing that came of it counts, a refusal neither.
    // GUARD: unpacker-fed-authentic -> evil_host_alters_a_blob_while_it_is_unpacked
    if let Some(error) = failed {
        return Err(error);
    }
    let tree = received?;
    // GUARD: unpacker-fed-all -> evil_layer_takes_over_the_process_that_unpacks
    if !is_all {
        return Err(LayerError::ChildAnswer { expected: "to read all of each layer" }.into());
    }
    Ok(tree)
}

fn verify(tree: &Tree, memory: PrivateMemory, pins: &[Pin]) -> Result<Verified, Error> {
    if let Some(others) = pins.get(1..).filter(|others| !others.is_empty()) {
        let options = erofs::Options { format: Pin::FORMAT, ..erofs::Options::default() };
        let image = erofs::write(tree, &options)?;
        for pin in others {
            // GUARD: pull-every-pin -> evil_pin_of_the_operator_beside_one_of_the_image
            pin.check(&image)?;
        }
    }
    Ok(Verified::in_memory(tree, memory, pins.first())?)
}

/// Gives the child its layers, in their order. Whether it took all of them: who ends early may have its reasons, and says them in its answer.
fn feed(socket: &OwnedFd, layers: Vec<Layer>, given_up: &AtomicBool) -> Result<bool, Error> {
    for Layer { bytes, .. } in layers {
        let is_taken = match bytes {
            // Each byte was authenticated, and nobody can write there any more.
            Bytes::Landed(landed, index) => show(socket, landed.landing.open(index)?.as_fd())?,
            Bytes::Stored(blob, None) => pour(socket, Watched { inner: blob.reader(), given_up })?,
            Bytes::Stored(blob, Some(key)) => {
                let ciphertext = Watched { inner: Ciphertext { blob: &blob, offset: 0 }, given_up };
                // Both passes: nothing is decrypted for anybody before all of it was verified.
                pour(socket, key.verify(ciphertext, blob.size())?)?
            }
        };
        if !is_taken {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sends one descriptor. Whether there was somebody to receive it.
fn show(socket: &OwnedFd, layer: BorrowedFd<'_>) -> Result<bool, Error> {
    match send(socket, Mark::Next, &[layer]) {
        Ok(()) => Ok(true),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(unpacker("send a layer to")(error).into()),
    }
}

/// Sends a pipe, and all of a layer into it. Whether all of it was taken.
fn pour(socket: &OwnedFd, mut layer: impl Read) -> Result<bool, Error> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(unpacker("make a pipe for"))?;
    // One that stays as small as it is costs time alone.
    let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
    if !show(socket, read.as_fd())? {
        return Ok(false);
    }
    drop(read);
    let (mut write, mut buffer) = (File::from(write), vec![0; PIECE]);
    loop {
        let count = match layer.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(LayerError::Read(error).into()),
        };
        match write.write_all(buffer.get(..count).unwrap_or_default()) {
            Ok(()) => {}
            Err(error) if is_gone(&error) => return Ok(false),
            Err(error) => return Err(unpacker("feed")(error).into()),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}

fn unpacker<E: Into<Cause>>(action: &'static str) -> impl FnOnce(E) -> PullError {
    move |source| PullError::Unpacker { action, source: source.into() }
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
