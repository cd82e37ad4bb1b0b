//! The device's side of DMA: copies by address, on behalf of one generation of the controller.

use chip_client::abi::Sgl;

use super::table::{Direction, DmaMemory};

/// Largest piece copied under one lock, so that a change of the map waits only briefly.
const CHUNK: usize = 1 << 20;

/// Why a copy was not made, or not to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DmaError {
    /// A part of the range is not mapped with the needed direction.
    Fault,
    /// The controller was reset in the meantime: the command is dropped without a completion.
    Stopped,
}

/// Access to the client's memory for one generation of the controller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bus<'a> {
    memory: &'a DmaMemory,
    generation: u64,
}

impl<'a> Bus<'a> {
    pub(crate) fn new(memory: &'a DmaMemory, generation: u64) -> Self {
        Self { memory, generation }
    }

    /// Copies a range into private memory, each byte once.
    pub(crate) fn read(&self, iova: u64, out: &mut [u8]) -> Result<(), DmaError> {
        let mut at = iova;
        for chunk in out.chunks_mut(CHUNK) {
            let length = chunk.len() as u64;
            let mut rest = chunk;
            self.memory.for_pieces(self.generation, at, length, Direction::Read, |piece| {
                let (head, tail) = std::mem::take(&mut rest).split_at_mut_checked(piece.length)?;
                rest = tail;
                piece.file.read(piece.offset, head)
            })?;
            at = at.saturating_add(length);
        }
        Ok(())
    }

    /// Writes a range.
    pub(crate) fn write(&self, iova: u64, bytes: &[u8]) -> Result<(), DmaError> {
        let mut at = iova;
        for chunk in bytes.chunks(CHUNK) {
            let mut rest = chunk;
            self.memory.for_pieces(self.generation, at, chunk.len() as u64, Direction::Write, |piece| {
                let (head, tail) = rest.split_at_checked(piece.length)?;
                rest = tail;
                piece.file.write(piece.offset, head)
            })?;
            at = at.saturating_add(chunk.len() as u64);
        }
        Ok(())
    }

    /// Overwrites a range with zeros.
    pub(crate) fn zero(&self, iova: u64, length: u64) -> Result<(), DmaError> {
        self.memory.for_pieces(self.generation, iova, length, Direction::Write, |piece| {
            piece.file.zero(piece.offset, piece.length)
        })
    }

    /// Lets the kernel set up the pages of a destination at once instead of one fault a page; it may fail without harm.
    pub(crate) fn prepare(&self, list: &Sgl) {
        for entry in &list.entries {
            let _ = self.memory.for_pieces(
                self.generation,
                entry.iova,
                entry.length,
                Direction::Write,
                |piece| {
                    piece.file.populate(piece.offset, piece.length);
                    Some(())
                },
            );
        }
    }

    /// Stores two bytes after everything written before.
    pub(crate) fn publish(&self, iova: u64, value: [u8; 2]) -> Result<(), DmaError> {
        self.memory.for_pieces(self.generation, iova, 2, Direction::Write, |piece| {
            if piece.length == 2 { piece.file.publish(piece.offset, value) } else { None }
        })
    }

    /// Whether every range of the list is mapped for this direction.
    pub(crate) fn covers(&self, list: &Sgl, direction: Direction) -> Result<(), DmaError> {
        for entry in &list.entries {
            self.memory.for_pieces(self.generation, entry.iova, entry.length, direction, |_| Some(()))?;
        }
        Ok(())
    }
}
