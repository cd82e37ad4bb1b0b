//! The DMA map: ranges of I/O virtual addresses, each backed by a piece of a file that is mapped once as a whole.
//!
//! A client behind an IOMMU sends one DMA_MAP per page, so ranges are cheap (an entry of a tree) and files are mapped once per
//! (device, inode, writable). A read lock is held for each copy, the write lock for each change: a change waits for copies in flight.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use rustix::io::Errno;

use crate::sys::FileMapping;

mod disobey;

/// Entries of the map; one 4 KiB page each makes 16 GiB.
const MAX_ENTRIES: usize = 1 << 22;

/// Direction of an access, as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// One DMA_MAP.
#[derive(Debug)]
pub(crate) struct MapRequest {
    pub(crate) iova: u64,
    pub(crate) length: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) offset: u64,
    /// Without a file the range is known but cannot be reached.
    pub(crate) file: Option<OwnedFd>,
}

/// What an unmapped range leaves behind. Anything but nothing is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leftover {
    Nothing,
    /// The file stays mapped.
    Held,
    /// The same, and [`DmaMemory::scribble`] reaches it.
    Condemned,
    /// The range can be reached as before, until something else is mapped there.
    Stale,
}

#[derive(Clone, Debug)]
struct Entry {
    length: u64,
    readable: bool,
    writable: bool,
    backing: Option<Backing>,
    /// A fault: unmapped, and reachable all the same.
    stale: bool,
}

#[derive(Clone, Debug)]
struct Backing {
    file: Arc<FileMapping>,
    offset: u64,
}

impl Entry {
    /// The part of this entry from `skip` on, `length` bytes.
    fn part(&self, skip: u64, length: u64) -> Self {
        let backing = self
            .backing
            .as_ref()
            .map(|b| Backing { file: Arc::clone(&b.file), offset: b.offset.saturating_add(skip) });
        Self { length, backing, ..*self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FileKey {
    device: u64,
    inode: u64,
    writable: bool,
}

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<u64, Entry>,
    files: HashMap<FileKey, Weak<FileMapping>>,
    /// Ranges that a faulty device kept though they were unmapped.
    held: Vec<Entry>,
    /// The same, to be written over.
    condemned: Vec<Entry>,
    /// DMA on behalf of another generation of the controller is refused.
    generation: u64,
}

/// The DMA map of one device.
#[derive(Debug, Default)]
pub(crate) struct DmaMemory {
    table: RwLock<Table>,
}

/// A contiguous piece of a mapped file.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) file: &'a Arc<FileMapping>,
    pub(super) offset: usize,
    pub(super) length: usize,
}

impl DmaMemory {
    fn read_lock(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lock(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn map(&self, request: MapRequest) -> Result<(), Errno> {
        let end = request.iova.checked_add(request.length).ok_or(Errno::INVAL)?;
        if request.length == 0 {
            return Err(Errno::INVAL);
        }
        let mut table = self.write_lock();
        if table.entries.len() >= MAX_ENTRIES {
            return Err(Errno::NOSPC);
        }
        // GUARD: dma-map-overlap -> evil_client_maps_over_a_mapping
        if overlapping(&table.entries, request.iova, end).any(|(_, entry)| !entry.stale) {
            return Err(Errno::EXIST);
        }
        cut(&mut table.entries, request.iova, end, |_, _| None);
        let backing = match request.file {
            None => None,
            Some(file) => {
                let file = table.open(&file, request.offset, request.length, request.writable)?;
                Some(Backing { file, offset: request.offset })
            }
        };
        let MapRequest { length, readable, writable, .. } = request;
        table.entries.insert(request.iova, Entry { length, readable, writable, backing, stale: false });
        Ok(())
    }

    /// Removes everything in the range; entries that reach beyond it keep their outer parts. The last entry of a file unmaps
    /// the file before this returns, unless a fault leaves something behind.
    pub(crate) fn unmap(&self, iova: u64, length: u64, leftover: Leftover) {
        let mut table = self.write_lock();
        let table = &mut *table;
        let (held, condemned) = (&mut table.held, &mut table.condemned);
        cut(&mut table.entries, iova, iova.saturating_add(length), |start, entry| {
            match leftover {
                Leftover::Nothing => {}
                Leftover::Held => held.push(entry),
                Leftover::Condemned => condemned.push(entry),
                Leftover::Stale => return Some((start, Entry { stale: true, ..entry })),
            }
            None
        });
        table.files.retain(|_, file| file.strong_count() > 0);
    }

    /// Whether a byte of the range is mapped.
    pub(crate) fn has_part_of(&self, iova: u64, length: u64) -> bool {
        overlapping(&self.read_lock().entries, iova, iova.saturating_add(length)).next().is_some()
    }

    /// Forgets every mapping: the client is gone.
    pub(crate) fn clear(&self) {
        let mut table = self.write_lock();
        table.entries.clear();
        table.held.clear();
        table.condemned.clear();
        table.files.clear();
    }

    /// Waits for copies in flight and refuses those of other generations from here on.
    pub(crate) fn admit_only(&self, generation: u64) {
        self.write_lock().generation = generation;
    }

    /// Calls `each` for the pieces of the range in order. `None`: not mapped for this direction, or another generation.
    pub(super) fn for_pieces(
        &self,
        generation: u64,
        iova: u64,
        length: u64,
        direction: Direction,
        mut each: impl FnMut(Piece<'_>) -> Option<()>,
    ) -> Result<(), super::DmaError> {
        let table = self.read_lock();
        if table.generation != generation {
            return Err(super::DmaError::Stopped);
        }
        table.walk(iova, length, direction, &mut each).ok_or(super::DmaError::Fault)
    }

    /// Files mapped at this moment, those kept by a fault included.
    #[cfg(test)]
    pub(crate) fn mapped_files(&self) -> usize {
        self.read_lock().files.values().filter(|file| file.strong_count() > 0).count()
    }
}

/// Entries that have a byte in `iova .. end`, from the highest down.
fn overlapping(entries: &BTreeMap<u64, Entry>, iova: u64, end: u64) -> impl Iterator<Item = (u64, &Entry)> {
    let below = entries.range(..end).rev().map(|(start, entry)| (*start, entry));
    below.take_while(move |(start, entry)| start.saturating_add(entry.length) > iova)
}

/// Takes the range out; what lies outside it stays. `each` may put a part back.
fn cut(
    entries: &mut BTreeMap<u64, Entry>,
    iova: u64,
    end: u64,
    mut each: impl FnMut(u64, Entry) -> Option<(u64, Entry)>,
) {
    let hit: Vec<u64> = overlapping(entries, iova, end).map(|(start, _)| start).collect();
    for start in hit {
        let Some(entry) = entries.remove(&start) else { continue };
        let entry_end = start.saturating_add(entry.length);
        if start < iova {
            entries.insert(start, entry.part(0, iova - start));
        }
        if entry_end > end {
            entries.insert(end, entry.part(end - start, entry_end - end));
        }
        let from = start.max(iova);
        let inner = entry.part(from - start, entry_end.min(end) - from);
        if let Some((at, back)) = each(from, inner) {
            entries.insert(at, back);
        }
    }
}

impl Table {
    fn walk(
        &self,
        iova: u64,
        length: u64,
        direction: Direction,
        each: &mut impl FnMut(Piece<'_>) -> Option<()>,
    ) -> Option<()> {
        let end = iova.checked_add(length)?;
        let mut at = iova;
        let (first, _) = self.entries.range(..=iova).next_back()?;
        for (start, entry) in self.entries.range(*first..end.max(*first)) {
            let entry_end = start.checked_add(entry.length)?;
            // A gap, or a first entry that ends before the range starts.
            if at < *start || at >= entry_end {
                return None;
            }
            let allowed = match direction {
                Direction::Read => entry.readable,
                Direction::Write => entry.writable,
            };
            let backing = entry.backing.as_ref().filter(|_| allowed)?;
            let take = entry_end.min(end) - at;
            let offset = backing.offset.checked_add(at - start)?;
            let piece =
                Piece { file: &backing.file, offset: offset.try_into().ok()?, length: take.try_into().ok()? };
            each(piece)?;
            at += take;
            if at == end {
                return Some(());
            }
        }
        (length == 0).then_some(())
    }

    /// The mapping of this file, made on first use and again when the file has grown.
    fn open(
        &mut self,
        file: &OwnedFd,
        offset: u64,
        length: u64,
        writable: bool,
    ) -> Result<Arc<FileMapping>, Errno> {
        let stat = rustix::fs::fstat(file)?;
        let size = u64::try_from(stat.st_size).map_err(|_negative| Errno::INVAL)?;
        // GUARD: dma-map-inside-file -> evil_client_maps_more_than_its_file
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(Errno::INVAL);
        }
        let key = FileKey { device: stat.st_dev, inode: stat.st_ino, writable };
        let needed = usize::try_from(size).map_err(|_too_large| Errno::NOMEM)?;
        if let Some(mapping) = self.files.get(&key).and_then(Weak::upgrade)
            && mapping.length() >= needed
        {
            return Ok(mapping);
        }
        let mapping = FileMapping::new(file.as_fd(), needed, writable)
            .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::NOMEM))?;
        let mapping = Arc::new(mapping);
        self.files.insert(key, Arc::downgrade(&mapping));
        Ok(mapping)
    }
}

#[cfg(test)]
mod tests;
