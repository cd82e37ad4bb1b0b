//! Shared memory for ciphertext, cut into lanes of one command each.

use protected_memory::dma::{DmaBuffer, Shared, SharedMemoryProvider};

use crate::backing::DmaAccess;
use crate::error::ChipError;
use crate::iova::{DmaMapper, MappedBuffer};

const ALIGN: usize = 2 << 20;

/// Shared memory that the chip sees while a job runs.
#[derive(Debug)]
pub(super) struct Staging {
    memory: MappedBuffer<Shared>,
    lane: usize,
    output: bool,
}

impl Staging {
    /// `lanes` pieces of `chunk` bytes of input each, with as much for output if asked for, and room for a tag table.
    pub(super) fn allocate(
        mapper: &DmaMapper,
        provider: SharedMemoryProvider,
        shape: Shape,
        tag_table: usize,
    ) -> Result<Self, ChipError> {
        let lane = if shape.output { shape.chunk * 2 } else { shape.chunk };
        let len = (lane * shape.lanes).max(tag_table).max(1).next_multiple_of(ALIGN);
        let buffer = DmaBuffer::<Shared>::allocate(provider, len)?;
        let memory = mapper.map_buffer(buffer, DmaAccess::ReadWrite)?;
        Ok(Self { memory, lane, output: shape.output })
    }

    /// Copies bytes to the start, before any lane is used.
    pub(super) fn put_whole(&self, bytes: &[u8]) -> Result<u64, ChipError> {
        self.memory.buffer().copy_in(0, bytes)?;
        Ok(self.memory.iova(0))
    }

    /// Copies a lane's input in; its address.
    pub(super) fn put(&self, lane: usize, bytes: &[u8]) -> Result<u64, ChipError> {
        let offset = lane * self.lane;
        self.memory.buffer().copy_in(offset, bytes)?;
        Ok(self.memory.iova(offset))
    }

    /// Address of a lane's output.
    pub(super) fn output_iova(&self, lane: usize) -> u64 {
        self.memory.iova(self.output_offset(lane))
    }

    /// Copies a piece of a lane's output out, once.
    pub(super) fn take(&self, lane: usize, offset: usize, to: &mut [u8]) -> Result<(), ChipError> {
        Ok(self.memory.buffer().copy_out(self.output_offset(lane) + offset, to)?)
    }

    /// Takes the memory back from the chip, confirmed.
    pub(super) fn release(self) -> Result<(), ChipError> {
        self.memory.unmap().map(drop)
    }

    fn output_offset(&self, lane: usize) -> usize {
        lane * self.lane + if self.output { self.lane / 2 } else { 0 }
    }
}

/// How staging is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Commands outstanding.
    pub(super) lanes: usize,
    /// Bytes of input of one command.
    pub(super) chunk: usize,
    /// Whether output comes back through staging.
    pub(super) output: bool,
}

impl Shape {
    const LEAST_CHUNK: usize = 1 << 20;
    const MOST_BYTES: usize = 8 << 20;

    /// Chunks of whole segments, at least 1 MiB; as many lanes as the queue has and 8 MiB allow.
    pub(super) fn new(segment: usize, depth: u16, output: bool) -> Self {
        let chunk = Self::LEAST_CHUNK.next_multiple_of(segment.max(1));
        let lane = if output { chunk * 2 } else { chunk };
        Self { lanes: (Self::MOST_BYTES / lane).clamp(1, usize::from(depth.max(1))), chunk, output }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_stays_within_its_budget() {
        for log in 16..=22 {
            for output in [false, true] {
                let shape = Shape::new(1 << log, 16, output);
                let lane = if output { 2 } else { 1 } * shape.chunk;
                assert!(shape.lanes >= 1 && lane * shape.lanes <= 8 << 20, "{shape:?}");
                assert_eq!(shape.chunk % (1 << log), 0);
            }
        }
    }
}
