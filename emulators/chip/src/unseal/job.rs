//! UNSEAL: each ciphertext byte is read once, verified, and only then does its plaintext go anywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chip_client::abi::limits::{BULK_NONCE_BASE, TAG};
use chip_client::abi::{DataPath, LABEL_BULK_AAD, Opcode, SealedReply, Status, Unseal};
use sealed_artifact::layout::Span;
use sealed_artifact::names::SegmentIndex;
use sealed_artifact::open::PayloadOpener;
use zeroize::Zeroizing;

use super::scatter::{Cursor, inside};
use super::transfer::Transfer;
use crate::dma::Direction;
use crate::faults::Kind;
use crate::firmware::{Context, Failure, Firmware, Output};
use crate::session::{LiveSession, Protected};

/// A job whose every condition holds: from here on bytes move.
pub(super) struct Job<'a> {
    pub(super) body: &'a Unseal,
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

    fn unseal_direct(&self, context: &Context<'_>, session: &LiveSession, job: &Job<'_>) -> Output {
        let result = self.each_segment(context, session, job, |_, _| Ok(()));
        if let Err(failure) = result {
            if matches!(failure, Failure::Planned(_)) {
                return Err(failure);
            }
            // What this command wrote is no one's to read.
            for entry in &job.body.destination.entries {
                let _ = context.bus.zero(entry.iova, entry.length);
            }
            return Err(failure);
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
        let word = BULK_NONCE_BASE.wrapping_add(context.queue.into());
        let tags = self.each_segment(context, session, job, |place, data| {
            let segment = job.spans.get(place).map_or(SegmentIndex::new(0), |span| span.segment);
            let aad = bulk_aad(protected.hash(), job.body.payload, segment);
            let counter = job.counter.checked_add(place as u64).ok_or(Status::Internal)?;
            Ok(protected.keys().seal_bulk(word, counter, &aad, data).ok_or(Status::Internal)?)
        })?;
        Ok(Zeroizing::new(SealedReply { first_counter: job.counter, tags }.encode()))
    }

    /// Reads, verifies and decrypts each segment, lets `seal` have it, and writes what is left in the buffer. Several at a time,
    /// as a chip with several engines would; the first failure in the order of segments is the one reported.
    fn each_segment<R: Send>(
        &self,
        context: &Context<'_>,
        session: &LiveSession,
        job: &Job<'_>,
        seal: impl Fn(usize, &mut [u8]) -> Result<R, Failure> + Sync,
    ) -> Result<Vec<R>, Failure> {
        context.bus.prepare(&job.body.destination);
        // With a plan there is one engine, so that "after so many bytes" means something.
        let engines = if self.faults.is_empty() { engines(job.spans.len()) } else { 1 };
        let share = job.spans.len().div_ceil(engines).max(1);
        let failed = AtomicBool::new(false);
        let run = |part: usize| {
            let result = self.run_part(context, session, job, part * share, share, &seal, &failed);
            failed.fetch_or(result.is_err(), Ordering::AcqRel);
            result
        };
        let parts: Vec<Result<Vec<R>, Failure>> = std::thread::scope(|scope| {
            let run = &run;
            let others: Vec<_> = (1..engines).map(|part| scope.spawn(move || run(part))).collect();
            let first = run(0);
            let others = others.into_iter().map(|o| o.join().unwrap_or(Err(Status::Internal.into())));
            std::iter::once(first).chain(others).collect()
        });
        // A part that stopped because another failed says ABORTED: the other's reason is the better one.
        let failures = parts.iter().filter_map(|part| part.as_ref().err());
        let aborted = Failure::from(Status::Aborted);
        if let Some(failure) = failures.clone().find(|f| **f != aborted).or(failures.clone().next()) {
            return Err(*failure);
        }
        Ok(parts.into_iter().flatten().flatten().collect())
    }

    /// The segments at `start` and the `share − 1` behind it.
    #[expect(clippy::too_many_arguments, reason = "one engine's whole task")]
    fn run_part<R>(
        &self,
        context: &Context<'_>,
        session: &LiveSession,
        job: &Job<'_>,
        start: usize,
        share: usize,
        seal: &(impl Fn(usize, &mut [u8]) -> Result<R, Failure> + Sync),
        failed: &AtomicBool,
    ) -> Result<Vec<R>, Failure> {
        let skipped =
            job.spans.iter().take(start).fold(0u64, |sum, span| sum.saturating_add(span.length as u64));
        let mut source = Cursor::new(&job.body.source);
        let mut destination = Cursor::new(&job.body.destination);
        source.skip(skipped);
        destination.skip(skipped);
        let spans = job.spans.iter().enumerate().skip(start).take(share);
        let largest = spans.clone().map(|(_, span)| span.length).max().unwrap_or(0);
        let mut buffer = Zeroizing::new(vec![0; largest]);
        let mut results = Vec::with_capacity(share.min(job.spans.len()));
        let whole = share >= job.spans.len();
        let mut transfer = if whole { Transfer::planned(&self.faults, job) } else { Transfer::default() };
        for (place, span) in spans {
            let stop = context.cancel.is_cancelled() || session.has_ended() || failed.load(Ordering::Acquire);
            // GUARD: job-cancelled -> evil_job_of_an_ended_session_stops
            if stop {
                return Err(Status::Aborted.into());
            }
            let data = buffer.get_mut(..span.length).unwrap_or_default();
            source.read(&context.bus, data)?;
            // GUARD: verified-before-written -> evil_altered_segment_releases_nothing
            if job.opener.open_in_place(span.segment, data).is_err() {
                return Err(Failure::Status(Status::SegmentAuth, span.segment.value()));
            }
            if self.faults.take(Kind::CorruptData, Some(Opcode::Unseal)).is_some()
                && let Some(first) = data.first_mut()
            {
                *first ^= 1;
            }
            results.push(seal(place, data)?);
            transfer.write(&self.faults, context, &mut destination, data)?;
        }
        Ok(results)
    }
}

/// How many segments are worked on at once.
fn engines(segments: usize) -> usize {
    const MOST: usize = 4;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cores.min(MOST).min(segments).max(1)
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
