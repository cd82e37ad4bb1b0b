//! One piece of memory for rings and command buffers, and where everything lies in it.

use protected_memory::dma::{DmaBuffer, Private, Shared};

use super::{Lengths, RingMemory};
use crate::abi::{COMPLETION_LEN, SUBMISSION_LEN};
use crate::backing::DmaAccess;
use crate::error::ChipError;
use crate::iova::{DmaMapper, MappedBuffer};
use crate::ring::RingSize;

const ARENA_LEN: usize = 2 << 20;
const PAGE: usize = 4_096;

/// Largest ring that this driver uses.
pub(super) const RING_ENTRIES: u16 = 64;
const RINGS_PER_QUEUE: usize = 2 * PAGE;
const _: () = assert!(RING_ENTRIES as usize * SUBMISSION_LEN <= PAGE);
const _: () = assert!(RING_ENTRIES as usize * COMPLETION_LEN <= PAGE);

/// Offset of the submission ring of a queue pair; the completion ring is one page later.
pub(super) const fn submission_ring(queue: u16) -> usize {
    queue as usize * RINGS_PER_QUEUE
}

/// Offset of the completion ring of a queue pair.
pub(super) const fn completion_ring(queue: u16) -> usize {
    submission_ring(queue) + PAGE
}

/// Where input and output of a command lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) input: usize,
    pub(super) input_cap: usize,
    pub(super) output: usize,
    pub(super) output_cap: u32,
}

impl Place {
    pub(super) fn holds(&self, lengths: Lengths) -> bool {
        lengths.input as usize <= self.input_cap && lengths.output <= self.output_cap
    }
}

const CONTROL_START: usize = 2 * RINGS_PER_QUEUE;
/// Largest input.
pub(super) const CONTROL_INPUT: usize = 512 << 10;
const CONTROL_OUTPUT: u32 = 256 << 10;
const SMALL: u32 = 4 << 10;
const BULK_START: usize = CONTROL_START + CONTROL_INPUT + CONTROL_OUTPUT as usize + 2 * SMALL as usize;
const BULK_INPUT: usize = 8 << 10;
const BULK_OUTPUT: u32 = 32 << 10;
const BULK_SLOTS: usize = 16;
const BULK_STEP: usize = BULK_INPUT + BULK_OUTPUT as usize;
const _: () = assert!(BULK_START + BULK_SLOTS * BULK_STEP <= ARENA_LEN);

/// One slot for commands, and a small one so that a command can be aborted.
pub(super) const CONTROL: [Place; 2] = [
    Place {
        input: CONTROL_START,
        input_cap: CONTROL_INPUT,
        output: CONTROL_START + CONTROL_INPUT,
        output_cap: CONTROL_OUTPUT,
    },
    Place {
        input: BULK_START - 2 * SMALL as usize,
        input_cap: SMALL as usize,
        output: BULK_START - SMALL as usize,
        output_cap: SMALL,
    },
];

/// Slots of the bulk queue: at least one, at most what the ring holds.
pub(super) fn bulk_slots(depth: u16, size: RingSize) -> Vec<Place> {
    let most = usize::from(size.entries() - 1).min(BULK_SLOTS);
    let place = |slot: usize| {
        let input = BULK_START + slot * BULK_STEP;
        Place { input, input_cap: BULK_INPUT, output: input + BULK_INPUT, output_cap: BULK_OUTPUT }
    };
    (0..usize::from(depth).clamp(1, most)).map(place).collect()
}

/// The memory, mapped for the device.
#[derive(Debug)]
pub(super) enum Arena {
    Private(MappedBuffer<Private>),
    Shared(MappedBuffer<Shared>),
}

impl Arena {
    pub(super) fn allocate(mapper: &DmaMapper, memory: RingMemory) -> Result<Self, ChipError> {
        Ok(match memory {
            RingMemory::Private => {
                let buffer = DmaBuffer::<Private>::allocate(ARENA_LEN)?;
                Self::Private(mapper.map_buffer(buffer, DmaAccess::ReadWrite)?)
            }
            RingMemory::Shared(provider) => {
                let buffer = DmaBuffer::<Shared>::allocate(provider, ARENA_LEN)?;
                Self::Shared(mapper.map_buffer(buffer, DmaAccess::ReadWrite)?)
            }
        })
    }

    pub(super) fn iova(&self, offset: usize) -> u64 {
        match self {
            Self::Private(memory) => memory.iova(offset),
            Self::Shared(memory) => memory.iova(offset),
        }
    }

    pub(super) fn copy_in(&self, offset: usize, from: &[u8]) -> Result<(), ChipError> {
        Ok(match self {
            Self::Private(memory) => memory.buffer().copy_in(offset, from),
            Self::Shared(memory) => memory.buffer().copy_in(offset, from),
        }?)
    }

    pub(super) fn copy_out(&self, offset: usize, to: &mut [u8]) -> Result<(), ChipError> {
        Ok(match self {
            Self::Private(memory) => memory.buffer().copy_out(offset, to),
            Self::Shared(memory) => memory.buffer().copy_out(offset, to),
        }?)
    }

    pub(super) fn load_u64(&self, offset: usize) -> Result<u64, ChipError> {
        Ok(match self {
            Self::Private(memory) => memory.buffer().load_u64(offset),
            Self::Shared(memory) => memory.buffer().load_u64(offset),
        }?)
    }

    /// Zeroes the rings of both queue pairs.
    pub(super) fn clear_rings(&self) -> Result<(), ChipError> {
        self.copy_in(0, &[0; 2 * RINGS_PER_QUEUE])
    }
}
