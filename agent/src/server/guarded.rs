//! A connection that cannot cost more than it may: frames that are begun have to end, answers have to be taken, and what
//! all requests without an answer hold together has a limit.

use std::collections::HashMap;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use protocol::envelope::Envelope;
use protocol::frame::{FrameEvent, FrameHeader, FrameKind, Frames};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// What a unit of the budget stands for: the least that a request holds while it is answered.
const UNIT_BYTES: u32 = 4096;
/// Units that all connections have together: 32 MiB.
const BUDGET_UNITS: usize = 8192;
/// Units that one connection has of them: a peer that takes no answers holds up itself. The largest frame needs half of it.
const CONNECTION_UNITS: usize = 2048;
/// How long a frame may take from its first byte to its last.
const FRAME: Duration = Duration::from_secs(30);
/// How soon the budget is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What connections may cost. Clones share the budget.
#[derive(Clone, Debug)]
pub struct Limits {
    frame: Duration,
    budget: Arc<Semaphore>,
    connection_units: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame: FRAME,
            budget: Arc::new(Semaphore::new(BUDGET_UNITS)),
            connection_units: CONNECTION_UNITS,
        }
    }
}

/// A time by which something has to be over, once it has begun.
#[derive(Debug, Default)]
struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    fn begin(&mut self, limit: Duration) {
        self.0.get_or_insert_with(|| Box::pin(sleep(limit)));
    }

    fn over(&mut self) {
        self.0 = None;
    }

    /// Ready when it has passed.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let Some(sleep) = &mut self.0 else { return Poll::Pending };
        sleep.as_mut().poll(context).map(|()| io::ErrorKind::TimedOut.into())
    }
}

/// What a frame holds of both budgets, until it is dropped.
struct Share {
    of_all: OwnedSemaphorePermit,
    of_connection: OwnedSemaphorePermit,
}

impl Share {
    fn merge(&mut self, more: Self) {
        self.of_all.merge(more.of_all);
        self.of_connection.merge(more.of_connection);
    }
}

/// A stream of frames.
pub struct Guarded<S> {
    stream: S,
    limits: Limits,
    /// This connection's part of the budget.
    budget: Arc<Semaphore>,
    inbound: Frames,
    /// The envelope of the request that is read.
    envelope: Envelope,
    outbound: Frames,
    reading: Deadline,
    writing: Deadline,
    /// The share of the frame that is read: a unit before its first byte.
    share: Option<Share>,
    /// Units that the frame needs beside it, before its payload is read.
    wanted: u32,
    retry: Deadline,
    /// Shares of requests without an answer, by the call.
    unanswered: HashMap<u32, Vec<Share>>,
}

impl<S> std::fmt::Debug for Guarded<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unanswered: usize = self.unanswered.values().map(Vec::len).sum();
        f.debug_struct("Guarded").field("unanswered", &unanswered).finish_non_exhaustive()
    }
}

impl<S> Guarded<S> {
    /// Guards a connection.
    pub fn new(stream: S, limits: Limits) -> Self {
        Self {
            stream,
            budget: Arc::new(Semaphore::new(limits.connection_units)),
            limits,
            inbound: Frames::new(),
            envelope: Envelope::default(),
            outbound: Frames::new(),
            reading: Deadline::default(),
            writing: Deadline::default(),
            share: None,
            wanted: 1,
            retry: Deadline::default(),
            unanswered: HashMap::new(),
        }
    }

    /// A share of both budgets, or of neither.
    fn try_share(&self) -> Option<Share> {
        let of_connection = Arc::clone(&self.budget).try_acquire_many_owned(self.wanted).ok()?;
        let of_all = Arc::clone(&self.limits.budget).try_acquire_many_owned(self.wanted).ok()?;
        Some(Share { of_all, of_connection })
    }

    /// Ready when the frame has its share of the budget. What it is waited for stays with the peer.
    fn poll_share(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.wanted > 0 {
            if let Some(more) = self.try_share() {
                self.wanted = 0;
                match &mut self.share {
                    Some(share) => share.merge(more),
                    none => *none = Some(more),
                }
                self.retry.over();
                break;
            }
            if let Poll::Ready(error) = self.reading.poll(context) {
                return Poll::Ready(Err(error));
            }
            self.retry.begin(LOOK_AGAIN);
            let _ = ready!(self.retry.poll(context));
            self.retry.over();
        }
        Poll::Ready(Ok(()))
    }

    /// Follows what was read.
    fn has_read(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self { inbound, share, wanted, unanswered, reading, envelope, .. } = self;
        let mut verdict = Ok(());
        let events = |event| match event {
            FrameEvent::Begins(header) => *wanted = units(header).saturating_sub(1),
            FrameEvent::Ends(header) => {
                reading.over();
                if let Some(share) = share.take().filter(|_| is_answered(header)) {
                    unanswered.entry(header.stream).or_default().push(share);
                }
                // The next frame's.
                *wanted = 1;
            }
        };
        inbound.follow_payloads(bytes, events, |header, offset, piece| {
            // What is too long is thrown away unread.
            if header.kind == FrameKind::Request && !header.is_oversize() && verdict.is_ok() {
                if offset == 0 {
                    *envelope = Envelope::default();
                }
                verdict = envelope.follow(piece);
            }
        });
        if self.inbound.is_within() {
            self.reading.begin(self.limits.frame);
        }
        // GUARD: envelope-before-decoding -> evil_host_request_of_many_pairs
        verdict.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(())
    }

    /// Follows what was written.
    fn has_written(&mut self, bytes: &[u8]) {
        let Self { outbound, unanswered, writing, .. } = self;
        outbound.follow(bytes, |event| {
            if let FrameEvent::Ends(header) = event {
                writing.over();
                if let Some(shares) = unanswered.get_mut(&header.stream) {
                    shares.pop();
                    if shares.is_empty() {
                        unanswered.remove(&header.stream);
                    }
                }
            }
        });
        if self.outbound.is_within() {
            self.writing.begin(self.limits.frame);
        }
    }
}

/// What a frame holds. A payload that is thrown away costs no more than its answer.
fn units(header: FrameHeader) -> u32 {
    if header.is_oversize() { 1 } else { header.payload_bytes.div_ceil(UNIT_BYTES).max(1) }
}

/// Whether a frame is followed by an answer with its number.
fn is_answered(header: FrameHeader) -> bool {
    matches!(header.kind, FrameKind::Request | FrameKind::Data)
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // GUARD: request-budget -> evil_host_announces_more_than_fits
        ready!(this.poll_share(context))?;
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                let read = this.has_read(buffer.filled().get(before..).unwrap_or_default());
                if read.is_err() {
                    // Nobody decodes what was refused.
                    buffer.set_filled(before);
                }
                Poll::Ready(read)
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.reading.poll(context).map(Err),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_write(context, bytes) {
            Poll::Ready(Ok(count)) => {
                this.has_written(bytes.get(..count).unwrap_or_default());
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                this.writing.begin(this.limits.frame);
                this.writing.poll(context).map(Err)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
