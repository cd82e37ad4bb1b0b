//! A device that does not keep to its map: it writes to the client's files wherever they can be reached.
//!
//! Nothing in front of a vfio-user device stops that: a file that is passed is passed whole.

use std::sync::Arc;

use chip_client::abi::Sgl;

use super::{Direction, DmaMemory};
use crate::sys::FileMapping;

const PATTERN: [u8; 4_096] = [0xa5; 4_096];

/// Bytes `start .. end` of a client's file.
struct Stretch {
    file: Arc<FileMapping>,
    start: u64,
    end: u64,
}

impl DmaMemory {
    /// Writes over everything that is condemned, once. Returns how many bytes.
    pub(crate) fn scribble(&self) -> u64 {
        let condemned = std::mem::take(&mut self.write_lock().condemned);
        let writable = condemned.iter().filter(|entry| entry.writable);
        writable
            .map(|entry| entry.backing.as_ref().map_or(0, |b| fill(&b.file, b.offset, entry.length)))
            .sum()
    }

    /// Writes a page at an offset of the file that lies behind an address. Returns how many bytes.
    pub(crate) fn write_outside(&self, iova: u64, offset: u64) -> u64 {
        let behind = self.stretches(&Sgl::single(iova, 1));
        behind.first().map_or(0, |stretch| fill(&stretch.file, offset, PATTERN.len() as u64))
    }

    /// Writes `length` bytes before and behind what the list covers, as it lies in the client's files. Returns how many bytes.
    pub(crate) fn write_beside(&self, list: &Sgl, length: u64) -> u64 {
        let mut stretches = self.stretches(list);
        stretches.sort_unstable_by_key(|s| (Arc::as_ptr(&s.file).addr(), s.start));
        stretches.dedup_by(|next, last| {
            let follows = Arc::ptr_eq(&next.file, &last.file) && next.start <= last.end;
            if follows {
                last.end = last.end.max(next.end);
            }
            follows
        });
        let beside = |s: &Stretch| {
            let before = length.min(s.start);
            fill(&s.file, s.start - before, before).saturating_add(fill(&s.file, s.end, length))
        };
        stretches.iter().map(beside).sum()
    }

    /// Where the writable parts of a list lie.
    fn stretches(&self, list: &Sgl) -> Vec<Stretch> {
        let table = self.read_lock();
        let mut stretches = Vec::new();
        for entry in &list.entries {
            let _ = table.walk(entry.iova, entry.length, Direction::Write, &mut |piece| {
                let start = piece.offset as u64;
                let end = start.saturating_add(piece.length as u64);
                stretches.push(Stretch { file: Arc::clone(piece.file), start, end });
                Some(())
            });
        }
        stretches
    }
}

/// Writes the pattern over a range of a file, as far as the file goes.
fn fill(file: &FileMapping, offset: u64, length: u64) -> u64 {
    let Ok(start) = usize::try_from(offset) else { return 0 };
    let room = file.length().saturating_sub(start);
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(room);
    let mut written = 0;
    while let Some(chunk) = PATTERN.get(..PATTERN.len().min(length - written)).filter(|c| !c.is_empty()) {
        if file.write(start + written, chunk).is_none() {
            break;
        }
        written += chunk.len();
    }
    written as u64
}
