//! The child's side: it gets its job, gives everything else up, and only then connects to anybody.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as Socket;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt as _;
use protected_memory::confine::{WorkerKind, WorkerLimits, become_worker};
use protected_memory::harden::harden_process;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::frame::{Answer, Fault, Request};
use super::{DESCRIPTORS, JOB_BYTES_MAX, Job, MEMORY_BYTES, READY, THREADS, USER};
use crate::registry::error::RegistryError;
use crate::registry::wire::{Response, Wire};
use crate::worker::channel::{Mark, read_job, receive};

/// Threads on which names are looked up at a time, and how much of a stack each has.
const LOOKUPS: usize = 4;
const STACK_BYTES: usize = 512 << 10;

/// All that a child does with the socket of its parent. Returns the exit status; who asked is told why there is no confinement.
#[must_use]
pub fn run(socket: OwnedFd) -> i32 {
    i32::from(begin(socket).is_err())
}

fn begin(socket: OwnedFd) -> io::Result<()> {
    harden_process().map_err(io::Error::other)?;
    let mut found = receive(&socket, Mark::Job)?.into_iter();
    let (Some(job), Some(root), Some(answer)) = (found.next(), found.next(), found.next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let (job, mut answer) = (read_job::<Job>(job, JOB_BYTES_MAX)?, File::from(answer));
    // What takes calls that are refused afterwards.
    rustix::io::ioctl_fionbio(&socket, true)?;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime =
        runtime.max_blocking_threads(LOOKUPS).thread_stack_size(STACK_BYTES).enable_all().build()?;
    let limits = WorkerLimits { file_bytes: 0, memory_bytes: MEMORY_BYTES, descriptors: DESCRIPTORS };
    // GUARD: fetcher-confined -> evil_registry_takes_over_the_process_that_fetches
    if let Err(error) = become_worker(root.as_fd(), USER, WorkerKind::Network { threads: THREADS }, &limits) {
        write!(answer, "\0{error}")?;
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    drop(root);
    let wire = Wire::new(job.trust().map_err(io::Error::other)?, job.patience());
    answer.write_all(&[READY])?;
    drop(answer);
    let longest = job.patience().connect + job.patience().answer + Duration::from_secs(1);
    runtime.block_on(serve(socket, Arc::new(wire), longest))
}

/// Serves requests, whose sockets come one after the other, until nobody can send another one.
pub(super) async fn serve(socket: OwnedFd, wire: Arc<Wire>, longest: Duration) -> io::Result<()> {
    // The runtime waits for it as for any other; it keeps messages apart all the same.
    let socket = UnixStream::from_std(Socket::from(socket))?;
    loop {
        let found = match socket.async_io(Interest::READABLE, || receive(&socket, Mark::Next)).await {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let request = found.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
        let request = UnixStream::from_std(Socket::from(request))?;
        let wire = Arc::clone(&wire);
        // Whoever does not wait for it any more has closed it.
        tokio::spawn(async move { answer(request, &wire, longest).await.ok() });
    }
}

async fn answer(mut socket: UnixStream, wire: &Wire, longest: Duration) -> io::Result<()> {
    let request = Request::read(&mut socket).await?;
    let (mut read, mut write) = socket.split();
    let mut one = [0];
    // Nothing follows a request but the end.
    tokio::select! {
        _ = read.read(&mut one) => Ok(()),
        answered = exchange(request, wire, longest, &mut write) => answered,
    }
}

async fn exchange(
    request: Request,
    wire: &Wire,
    longest: Duration,
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let (ask, proxy) = request.ask().ok_or(io::ErrorKind::InvalidData)?;
    let from = ask.url.origin.to_string();
    let Response { status, headers, mut body, kept } =
        match wire.send(ask, proxy.as_ref(), Instant::now() + longest).await {
            Ok(response) => response,
            Err(error) => return Answer::Fault(Fault::of(error)).write(to).await,
        };
    Answer::head(status, &headers).write(to).await?;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    piece(data, to).await?;
                }
            }
            Err(error) => return Fault::of(RegistryError::broken(&from, error)).write(to).await,
        }
    }
    kept.give_back();
    to.write_u32(0).await
}

async fn piece(data: Bytes, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    // None is what the end is written as.
    if data.is_empty() {
        return Ok(());
    }
    let length = u32::try_from(data.len()).map_err(io::Error::other)?.to_be_bytes();
    to.write_all_buf(&mut Buf::chain(length.as_slice(), data)).await
}
