//! `dma-sealed`: the chip seals each segment anew to the session; it crosses shared memory and is opened here.

use aws_lc_rs::aead::Aad;
use sealed_artifact::layout::Layout;

use super::lanes::{Landed, Lanes};
use super::staging::{Shape, Staging};
use super::{Progress, ReadCiphertext, UnsealJob, verify_payload_digest};
use crate::abi::limits::{BULK_NONCE_BASE, TAG};
use crate::abi::{DataPath, LABEL_BULK_AAD, Opcode, QUEUE_BULK, SealedReply};
use crate::error::{ChipError, JobError};
use crate::session::{Inner, Presented, Session, nonce};

impl Session<'_, Presented> {
    /// Unseals a payload into guest-private memory, on path `dma-sealed`. After an error `destination` is zero.
    ///
    /// # Errors
    ///
    /// The session has another path; lengths that are not the core's; `SEGMENT_AUTH` and `TAGS_MISMATCH` of the chip;
    /// `CHIP_SEGMENT_FORGED` for what shared memory did to a segment. Every error ends the session.
    pub fn unseal_sealed(
        &mut self,
        job: &UnsealJob<'_>,
        read: &mut ReadCiphertext<'_>,
        destination: &mut [u8],
        progress: &mut Progress<'_>,
    ) -> Result<(), ChipError> {
        self.inner.require_path("unsealing through shared memory", DataPath::DmaSealed)?;
        let layout = job.layout(destination.len() as u64)?;
        let shape = Shape::new(layout.segment_size().as_usize(), self.inner.driver.bulk_depth(), true);
        let mapper = self.inner.driver.mapper().clone();
        let staging = Staging::allocate(&mapper, job.staging, shape, job.tag_table.len())?;
        let inner = &mut self.inner;
        let mut lanes = Lanes { inner, job, staging: &staging, shape };
        let run = run(&mut lanes, &layout, read, destination, progress);
        let run = run.and_then(|()| verify_payload_digest(job.core, job.payload, destination));
        match run {
            Ok(()) => staging.release(),
            Err(e) => {
                let e = self.inner.end(e);
                // GUARD: sealed-wipe -> evil_flipped_bit_in_shared_memory
                destination.fill(0);
                Err(e)
            }
        }
    }
}

fn run(
    lanes: &mut Lanes<'_, '_, '_>,
    layout: &Layout,
    read: &mut ReadCiphertext<'_>,
    destination: &mut [u8],
    progress: &mut Progress<'_>,
) -> Result<(), ChipError> {
    lanes.load_tags()?;
    let (staging, job) = (lanes.staging, lanes.job);
    let segment_size = layout.segment_size().as_usize();
    lanes.run(
        layout,
        read,
        progress,
        |lane, _| staging.output_iova(lane),
        |batch| u32::try_from(8 + TAG * batch.count as usize).unwrap_or(0),
        |inner, landed| {
            let start = usize::try_from(landed.batch.offset).unwrap_or(usize::MAX);
            let end = start.saturating_add(landed.batch.length);
            let window = destination.get_mut(start..end).unwrap_or_default();
            // One fetch from shared memory, into memory that nobody else sees; opened where it lies.
            staging.take(landed.lane, 0, window)?;
            open(inner, job, &landed, segment_size, window)
        },
    )
}

/// Opens the segments of one command in place.
fn open(
    inner: &Inner<'_>,
    job: &UnsealJob<'_>,
    landed: &Landed<'_>,
    segment_size: usize,
    window: &mut [u8],
) -> Result<(), ChipError> {
    let reply = SealedReply::parse(&landed.answer.output, landed.batch.count)
        .map_err(ChipError::malformed(Opcode::Unseal))?;
    let payload = job.payload.value();
    let mut rest = window;
    for (index, tag) in (0u64..).zip(&reply.tags) {
        let (piece, behind) = rest.split_at_mut(segment_size.min(rest.len()));
        rest = behind;
        let segment = u64::from(landed.batch.first) + index;
        let aad =
            [LABEL_BULK_AAD, &landed.submitted.hash, &payload.to_le_bytes(), &segment.to_le_bytes()].concat();
        let counter = reply.first_counter.wrapping_add(index);
        let nonce = nonce(BULK_NONCE_BASE + u32::from(QUEUE_BULK), counter);
        let opened = inner.bulk_key().open_in_place_separate_tag(nonce, Aad::from(aad), tag, piece);
        // GUARD: sealed-segment -> evil_flipped_bit_in_shared_memory, evil_segments_swapped_in_shared_memory
        opened.map_err(|_| JobError::SegmentForged { payload, segment })?;
    }
    Ok(())
}
