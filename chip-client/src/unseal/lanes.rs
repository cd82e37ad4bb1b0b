//! The loop of both jobs: fill free lanes, wait for any command, let the job take its answer.

use sealed_artifact::layout::Layout;

use super::staging::{Shape, Staging};
use super::{Progress, ReadCiphertext, UnsealJob};
use crate::abi::limits::MAX_SEGMENTS;
use crate::abi::{LoadTags, Opcode, QUEUE_BULK, Sgl, Unseal};
use crate::error::{ChipError, DeviceError, JobError};
use crate::session::{Answer, Inner, Submitted};

/// Segments of one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) offset: u64,
    pub(super) length: usize,
}

/// All segments of a payload in order, in batches of at most `chunk` bytes.
pub(super) fn batches(layout: &Layout, chunk: usize) -> impl Iterator<Item = Batch> + use<> {
    let (size, segments) = (layout.size(), layout.segments());
    let segment = layout.segment_size().bytes();
    let most = u32::try_from(chunk as u64 / segment).unwrap_or(MAX_SEGMENTS).clamp(1, MAX_SEGMENTS);
    (0..segments).step_by(most as usize).map(move |first| {
        let count = most.min(segments - first);
        let offset = u64::from(first) * segment;
        let length = (u64::from(count) * segment).min(size - offset);
        Batch { first, count, offset, length: usize::try_from(length).unwrap_or(0) }
    })
}

/// A command that finished: its lane, its segments, its authentic answer.
pub(super) struct Landed<'a> {
    pub(super) lane: usize,
    pub(super) batch: Batch,
    pub(super) submitted: &'a Submitted,
    pub(super) answer: &'a Answer,
}

/// One running job.
pub(super) struct Lanes<'s, 'd, 'j> {
    pub(super) inner: &'s mut Inner<'d>,
    pub(super) job: &'j UnsealJob<'j>,
    pub(super) staging: &'s Staging,
    pub(super) shape: Shape,
}

impl Lanes<'_, '_, '_> {
    /// Gives the chip the tag table.
    pub(super) fn load_tags(&mut self) -> Result<(), ChipError> {
        let iova = self.staging.put_whole(self.job.tag_table)?;
        let table = Sgl::single(iova, self.job.tag_table.len() as u64);
        let body = LoadTags { handle: self.job.handle.0, payload: self.job.payload.value(), table };
        self.inner.call(Opcode::LoadTags, &body.encode(), 0).map(drop)
    }

    /// Unseals every segment. `destination` says where a batch goes, given its lane; `land` takes what finished.
    pub(super) fn run(
        &mut self,
        layout: &Layout,
        read: &mut ReadCiphertext<'_>,
        progress: &mut Progress<'_>,
        destination: impl Fn(usize, &Batch) -> u64,
        out_cap: impl Fn(&Batch) -> u32,
        mut land: impl FnMut(&Inner<'_>, Landed<'_>) -> Result<(), ChipError>,
    ) -> Result<(), ChipError> {
        let mut todo = batches(layout, self.shape.chunk).peekable();
        let mut busy: Vec<Option<(Batch, Submitted)>> = (0..self.shape.lanes).map(|_| None).collect();
        let mut scratch = vec![0; self.shape.chunk];
        loop {
            while let Some(lane) = busy.iter().position(Option::is_none) {
                let Some(batch) = todo.next_if(|_| true) else { break };
                let ciphertext = scratch.get_mut(..batch.length).unwrap_or_default();
                let what = "ciphertext";
                read(batch.offset, ciphertext).map_err(|source| JobError::Source { what, source })?;
                let source = self.staging.put(lane, ciphertext)?;
                let submitted = self.submit(&batch, source, destination(lane, &batch), out_cap(&batch))?;
                if let Some(place) = busy.get_mut(lane) {
                    *place = Some((batch, submitted));
                }
            }
            if busy.iter().all(Option::is_none) {
                return Ok(());
            }
            let (ticket, finished) = self.inner.driver.wait(QUEUE_BULK, None, Opcode::Unseal.name())?;
            let ours =
                |place: &Option<(Batch, Submitted)>| matches!(place, Some((_, s)) if s.ticket == ticket);
            let lane = busy.iter().position(ours).ok_or(DeviceError::Down)?;
            let Some((batch, submitted)) = busy.get_mut(lane).and_then(Option::take) else { continue };
            let answer = self.inner.answer(&submitted, &finished)?;
            land(self.inner, Landed { lane, batch, submitted: &submitted, answer: &answer })?;
            progress(batch.length as u64);
        }
    }

    fn submit(
        &mut self,
        batch: &Batch,
        source: u64,
        destination: u64,
        out_cap: u32,
    ) -> Result<Submitted, ChipError> {
        let length = batch.length as u64;
        let body = Unseal {
            handle: self.job.handle.0,
            payload: self.job.payload.value(),
            first: batch.first.into(),
            count: batch.count,
            source: Sgl::single(source, length),
            destination: Sgl::single(destination, length),
        };
        let submitted = self.inner.submit(QUEUE_BULK, Opcode::Unseal, &body.encode(), out_cap)?;
        // There are no more lanes than command slots.
        Ok(submitted.ok_or(DeviceError::Down)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sealed_artifact::names::{PayloadIndex, SegmentSize};

    use super::*;

    proptest! {
        #[test]
        fn batches_cover_each_segment_once(size in 0u64..(20 << 20), log in 16u32..=22, chunk in 1usize..(8 << 20)) {
            let segment = SegmentSize::parse(1 << log).unwrap();
            let layout = Layout::new(PayloadIndex::new(0), size, segment).unwrap();
            let (mut next, mut offset) = (0, 0);
            for batch in batches(&layout, chunk) {
                prop_assert_eq!((batch.first, batch.offset), (next, offset));
                prop_assert!(batch.count >= 1 && batch.count <= MAX_SEGMENTS);
                prop_assert!(batch.length <= chunk.max(1 << log));
                next += batch.count;
                offset += batch.length as u64;
            }
            prop_assert_eq!((next, offset), (layout.segments(), size));
        }
    }
}
