//! UNSEAL: each ciphertext byte is read once, verified, and only then does its plaintext go anywhere.

use std::sync::Arc;

use chip_client::abi::limits::{BULK_NONCE_BASE, TAG};
use chip_client::abi::{DataPath, LABEL_BULK_AAD, Opcode, SealedReply, Status, Unseal};
use sealed_artifact::layout::Span;
use sealed_artifact::names::SegmentIndex;
use sealed_artifact::open::PayloadOpener;
use zeroize::Zeroizing;

use super::scatter::{Cursor, inside};
use crate::dma::Direction;
use crate::faults::Kind;
use crate::firmware::{Context, Failure, Firmware, Output};
use crate::session::{LiveSession, Protected};

/// A job whose every condition holds: from here on bytes move.
struct Job<'a> {
    body: &'a Unseal,
    opener: Arc<PayloadOpener>,
    spans: Vec<Span>,
    /// Bulk counter of the first segment.
    counter: u64,
}

impl Firmware {
    pub(crate) fn unseal(
        &self,
        context: &Context<'_>,
        session: &LiveSession,
        protected: &Protected,
        input: &[u8],
    ) -> Output {
        let body = Unseal::parse(input)?;
        let job = self.admit_job(context, session, &body)?;
        match session.path() {
            DataPath::DmaDirect => self.unseal_direct(context, session, &job),
            _ => self.unseal_sealed(context, session, protected, &job),
        }
    }

    fn admit_job<'a>(
        &self,
        context: &Context<'_>,
        session: &LiveSession,
        body: &'a Unseal,
    ) -> Result<Job<'a>, Failure> {
        let handle = super::handle(session, body.handle)?;
        let opener = handle.loaded(body.payload).ok_or(Status::TagsNotLoaded)?;
        let spans = spans(&opener, body.first, body.count).ok_or(Status::BadField)?;
        let total = spans.iter().fold(0u64, |sum, span| sum.saturating_add(span.length as u64));
        if body.source.total() != Some(total) || body.destination.total() != Some(total) {
            return Err(Status::BadLength.into());
        }
        if session.path() == DataPath::DmaDirect {
            // GUARD: direct-dma-state -> evil_direct_dma_job_without_tdisp_is_refused
            if !self.direct_dma_allowed(session.guest()) {
                return Err(Status::Path.into());
            }
            // GUARD: registered-ranges -> evil_destination_outside_the_registered_ranges_is_refused
            if !inside(&body.destination, &session.registered()) {
                return Err(Status::Range.into());
            }
        } else if 8 + TAG * spans.len() > context.entry.out_cap as usize {
            return Err(Status::BadLength.into());
        }
        context.bus.covers(&body.source, Direction::Read)?;
        // GUARD: destination-mapped -> evil_destination_that_is_not_mapped_gets_nothing
        context.bus.covers(&body.destination, Direction::Write)?;
        let counter = session.spend(total, body.count)?;
        self.note_destination(&body.destination);
        Ok(Job { body, opener, spans, counter })
    }

    /// Reads, verifies and decrypts one segment into `buffer`.
    fn open_segment(
        &self,
        context: &Context<'_>,
        session: &LiveSession,
        job: &Job<'_>,
        span: &Span,
        source: &mut Cursor<'_>,
        buffer: &mut [u8],
    ) -> Result<(), Failure> {
        // GUARD: job-cancelled -> evil_job_of_an_ended_session_stops
        if context.cancel.is_cancelled() || session.has_ended() {
            return Err(Status::Aborted.into());
        }
        source.read(&context.bus, buffer)?;
        let segment = span.segment;
        let opened = job.opener.open_in_place(segment, buffer);
        if opened.is_err() {
            return Err(Failure::Status(Status::SegmentAuth, segment.value()));
        }
        if self.faults.take(Kind::CorruptData, Some(Opcode::Unseal)).is_some()
            && let Some(first) = buffer.first_mut()
        {
            *first ^= 1;
        }
        Ok(())
    }

    fn unseal_direct(&self, context: &Context<'_>, session: &LiveSession, job: &Job<'_>) -> Output {
        let mut source = Cursor::new(&job.body.source);
        let mut destination = Cursor::new(&job.body.destination);
        let mut buffer = segment_buffer(job);
        let mut written = 0u64;
        for span in &job.spans {
            let data = buffer.get_mut(..span.length).unwrap_or_default();
            let result = self
                .open_segment(context, session, job, span, &mut source, data)
                .and_then(|()| Ok(destination.write(&context.bus, data)?));
            if let Err(failure) = result {
                // What this command wrote, the segment that failed half-way included, is no one's to read.
                Cursor::new(&job.body.destination)
                    .zero(&context.bus, written.saturating_add(span.length as u64));
                return Err(failure);
            }
            written = written.saturating_add(span.length as u64);
        }
        Ok(Zeroizing::default())
    }

    fn unseal_sealed(
        &self,
        context: &Context<'_>,
        session: &LiveSession,
        protected: &Protected,
        job: &Job<'_>,
    ) -> Output {
        let mut source = Cursor::new(&job.body.source);
        let mut destination = Cursor::new(&job.body.destination);
        let mut buffer = segment_buffer(job);
        let word = BULK_NONCE_BASE.wrapping_add(context.queue.into());
        let mut tags = Vec::with_capacity(job.spans.len());
        for (counter, span) in (job.counter..).zip(&job.spans) {
            let data = buffer.get_mut(..span.length).unwrap_or_default();
            self.open_segment(context, session, job, span, &mut source, data)?;
            let aad = bulk_aad(protected.hash(), job.body.payload, span.segment);
            tags.push(protected.keys().seal_bulk(word, counter, &aad, data).ok_or(Status::Internal)?);
            destination.write(&context.bus, data)?;
        }
        Ok(Zeroizing::new(SealedReply { first_counter: job.counter, tags }.encode()))
    }
}

fn segment_buffer(job: &Job<'_>) -> Zeroizing<Vec<u8>> {
    let largest = job.spans.iter().map(|span| span.length).max().unwrap_or(0);
    Zeroizing::new(vec![0; largest])
}

/// Where the segments lie. `None`: outside the payload.
fn spans(opener: &PayloadOpener, first: u64, count: u32) -> Option<Vec<Span>> {
    let layout = opener.layout();
    let end = first.checked_add(count.into())?;
    if end > layout.segments().into() {
        return None;
    }
    (first..end).map(|segment| layout.span(SegmentIndex::new(u32::try_from(segment).ok()?)).ok()).collect()
}

fn bulk_aad(hash: &[u8; 32], payload: u32, segment: SegmentIndex) -> Vec<u8> {
    let segment = u64::from(segment.value()).to_le_bytes();
    [LABEL_BULK_AAD, hash, &payload.to_le_bytes(), &segment].concat()
}
