//! A strict reader of tar archives as layers are: ustar, GNU tar's long names and sparse files, PAX records.
//!
//! What two readers could understand differently is refused: two long names for one entry, headers for all entries that say more than a
//! comment, sizes of entries that have no data, data behind the end. What a PAX record says counts, not what it replaces. Taken from
//! the formats' authors' own programs: a name that ends with `/` is a directory's, and 8 bytes of octal digits need no NUL behind them.

mod entry;
mod header;
mod pax;
mod sparse;

pub use self::entry::{Entry, EntryKind, Piece};
use self::header::{BLOCK, Block, Header, more_runs};
use self::pax::Pax;
use self::sparse::{Lines, Map, push};
use super::LayerError;
use super::error::{Fault, Name};
use super::expand::Source;
use super::limits::{EXTENDED_MAX, MAJOR_MAX, MINOR_MAX, PATH_MAX};
use crate::image::tree::Timestamp;

/// What is read at once.
const BUFFER: usize = 1 << 17;

/// An archive that is read from its beginning to its end.
#[derive(Debug)]
pub struct Archive<S> {
    source: S,
    /// Of the entry that was read last: bytes of it that are left, those that fill its last block, and where they belong.
    stored: u64,
    padding: u64,
    map: Map,
    buffer: Vec<u8>,
}

/// What headers of other kinds said about the entry that follows.
#[derive(Default)]
struct Announced {
    pax: Option<Pax>,
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
}

impl Announced {
    fn is_something(&self) -> bool {
        self.pax.is_some() || self.path.is_some() || self.target.is_some()
    }
}

impl<S: Source> Archive<S> {
    /// Of these bytes.
    pub fn new(source: S) -> Self {
        Self { source, stored: 0, padding: 0, map: Map::whole(0), buffer: vec![0; BUFFER] }
    }

    /// The bytes behind the archive: none, once [`Self::next_entry`] said that there is no entry.
    pub fn into_source(self) -> S {
        self.source
    }

    /// The next entry; `None` behind the last one, when the source was read to its very end.
    ///
    /// # Errors
    ///
    /// `LAYER_TAR_…` for what is no strict archive, `LAYER_TRUNCATED`, `LAYER_TRAILING`, `LAYER_NAME`, `LAYER_XATTR`, `LAYER_DEVICE`, and
    /// those of the source. The archive is not read again then.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, LayerError> {
        let rest = self.stored.saturating_add(self.padding);
        self.skip(rest)?;
        (self.stored, self.padding, self.map) = (0, 0, Map::whole(0));
        let mut announced = Announced::default();
        loop {
            let block = self.block()?.filter(|block| block.iter().any(|byte| *byte != 0));
            let Some(block) = block else {
                if announced.is_something() {
                    return Err(order("an entry behind each extended header"));
                }
                self.expect_zeros()?;
                return Ok(None);
            };
            let header = Header::parse(&block)?;
            match header.kind() {
                b'x' => {
                    let bytes = self.extended(&header, EXTENDED_MAX, Fault::Pax)?;
                    if announced.pax.replace(Pax::parse(&bytes)?).is_some() {
                        return Err(order("one extended header for one entry"));
                    }
                }
                b'g' => {
                    let bytes = self.extended(&header, EXTENDED_MAX, Fault::Pax)?;
                    // GUARD: layer-pax-global -> evil_extended_headers
                    if !Pax::is_only_comment(&bytes)? {
                        return Err(order("an extended header for all entries with a comment at most"));
                    }
                }
                b'L' => {
                    let path = self.long(&header)?;
                    if announced.path.replace(path).is_some() {
                        return Err(order("one long name for one entry"));
                    }
                }
                b'K' => {
                    let target = self.long(&header)?;
                    if announced.target.replace(target).is_some() {
                        return Err(order("one long target for one entry"));
                    }
                }
                _ => return self.entry(&header, announced).map(Some),
            }
        }
    }

    /// Gives the pieces of the regular file that was the last entry, in their order.
    ///
    /// # Errors
    ///
    /// Those of the source and of `take`, and `LAYER_TRUNCATED`.
    pub fn body(
        &mut self,
        take: &mut dyn FnMut(Piece<'_>) -> Result<(), LayerError>,
    ) -> Result<(), LayerError> {
        let map = std::mem::replace(&mut self.map, Map::whole(0));
        let mut place = 0;
        for run in map.runs {
            if run.offset > place {
                take(Piece::Hole(run.offset - place))?;
            }
            let mut left = run.length;
            while left > 0 {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
                let buffer = self.buffer.get_mut(..count).unwrap_or_default();
                let count = self.source.read(buffer)?;
                let read = u64::try_from(count).unwrap_or(u64::MAX);
                if read == 0 {
                    return Err(LayerError::Truncated);
                }
                take(Piece::Data(buffer.get(..count).unwrap_or_default()))?;
                (left, self.stored) = (left.saturating_sub(read), self.stored.saturating_sub(read));
            }
            place = run.offset + run.length;
        }
        if map.size > place {
            take(Piece::Hole(map.size - place))?;
        }
        Ok(())
    }

    fn entry(&mut self, header: &Header<'_>, announced: Announced) -> Result<Entry, LayerError> {
        let pax = announced.pax.unwrap_or_default();
        // GUARD: layer-name-twice -> evil_extended_headers
        if (announced.path.is_some() && pax.path.is_some())
            || (announced.target.is_some() && pax.target.is_some())
        {
            return Err(order("one long name for one entry"));
        }
        let is_sparse = pax.sparse.is_something();
        let path = pax.sparse.name.clone().or(pax.path).or(announced.path).unwrap_or_else(|| header.path());
        let target = pax.target.or(announced.target).unwrap_or_else(|| header.target());
        let stored = match pax.size {
            Some(size) => size,
            None => header.size()?,
        };
        let kind = match header.kind() {
            b'0' | 0 | b'7' if path.ends_with(b"/") => EntryKind::Directory,
            b'0' | 0 | b'7' | b'S' => EntryKind::Regular(0),
            b'1' => EntryKind::HardLink(target),
            b'2' => EntryKind::Symlink(target),
            b'3' | b'4' => {
                let (major, minor) = device(header.device()?, &path)?;
                if header.kind() == b'3' {
                    EntryKind::CharDevice(major, minor)
                } else {
                    EntryKind::BlockDevice(major, minor)
                }
            }
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            _ => return Err(LayerError::tar(Fault::Type, "a file, directory, link, device or pipe")),
        };
        let kind = if let EntryKind::Regular(_) = kind {
            self.stored = stored;
            self.padding = stored.wrapping_neg() % BLOCK_BYTES;
            self.map = self.regular(header, pax.sparse)?;
            EntryKind::Regular(self.map.size)
        } else {
            // GUARD: layer-data-of-no-file -> evil_sizes
            if stored != 0 || is_sparse {
                return Err(LayerError::tar(Fault::Size, "no data for what is no file"));
            }
            kind
        };
        Ok(Entry {
            path,
            kind,
            mode: header.mode()?,
            uid: owner(pax.uid, header.uid())?,
            gid: owner(pax.gid, header.gid())?,
            mtime: match pax.mtime {
                Some(mtime) => mtime,
                None => Timestamp { seconds: header.mtime()?, nanoseconds: 0 },
            },
            xattrs: pax.xattrs,
        })
    }

    /// Which bytes of a file the archive holds.
    fn regular(&mut self, header: &Header<'_>, stated: pax::Sparse) -> Result<Map, LayerError> {
        let refused = |expected| LayerError::tar(Fault::Sparse, expected);
        if header.kind() == b'S' {
            if stated.is_something() {
                return Err(refused("one format of sparse files at a time"));
            }
            let (mut runs, mut more, size) = header.sparse()?;
            while more {
                let block = self.block()?.ok_or(LayerError::Truncated)?;
                let (next, another) = more_runs(&block)?;
                next.into_iter().try_for_each(|run| push(&mut runs, run))?;
                more = another;
            }
            return Map::new(runs, size, self.stored);
        }
        if !stated.is_something() {
            return Ok(Map::whole(self.stored));
        }
        let size = stated.size.ok_or(refused("the size of a sparse file"))?;
        let runs = match (stated.major.unwrap_or(0), stated.minor.unwrap_or(0)) {
            (1, 0) if stated.runs.is_none() => {
                let mut lines = Lines::default();
                loop {
                    self.stored = self
                        .stored
                        .checked_sub(BLOCK_BYTES)
                        .ok_or(refused("the map of a sparse file in front of its data"))?;
                    let block = self.block()?.ok_or(LayerError::Truncated)?;
                    if lines.take(&block)? {
                        break lines.finish();
                    }
                }
            }
            (0, 0..=1) => {
                let runs = stated.runs.unwrap_or_default();
                if stated.count.is_some_and(|count| usize::try_from(count) != Ok(runs.len())) {
                    return Err(refused("as many runs of a sparse file as stated"));
                }
                runs
            }
            _ => return Err(refused("sparse files of formats 0.0, 0.1 or 1.0")),
        };
        Map::new(runs, size, self.stored)
    }

    /// What an extended header holds.
    fn extended(&mut self, header: &Header<'_>, limit: u64, fault: Fault) -> Result<Vec<u8>, LayerError> {
        let size = header.size()?;
        // GUARD: layer-extended-bounded -> evil_extended_headers
        if size > limit {
            return Err(LayerError::tar(
                fault,
                "an extended header of at most 1 MiB, or a name of at most 4095 bytes",
            ));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        if self.fill(&mut bytes)? != bytes.len() {
            return Err(LayerError::Truncated);
        }
        self.skip(size.wrapping_neg() % BLOCK_BYTES)?;
        Ok(bytes)
    }

    /// A long name, which ends with a NUL.
    fn long(&mut self, header: &Header<'_>) -> Result<Vec<u8>, LayerError> {
        let limit = u64::try_from(PATH_MAX + 1).unwrap_or(0);
        let mut bytes = self.extended(header, limit, Fault::Size)?;
        if bytes.last() == Some(&0) {
            bytes.pop();
        }
        // GUARD: layer-long-nul -> evil_extended_headers
        if bytes.is_empty() || bytes.contains(&0) {
            return Err(LayerError::Name { name: Name::new(&bytes) });
        }
        Ok(bytes)
    }

    /// A block; `None` at the end.
    fn block(&mut self) -> Result<Option<Block>, LayerError> {
        let mut block = [0; BLOCK];
        match self.fill(&mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(LayerError::Truncated),
        }
    }

    /// As much as there is.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    fn skip(&mut self, mut left: u64) -> Result<(), LayerError> {
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = self.source.read(self.buffer.get_mut(..count).unwrap_or_default())?;
            if count == 0 {
                return Err(LayerError::Truncated);
            }
            left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// Programs fill the end up with zeros, to 10 KiB and more. Some leave the end mark out.
    fn expect_zeros(&mut self) -> Result<(), LayerError> {
        loop {
            let count = self.source.read(&mut self.buffer)?;
            if count == 0 {
                return Ok(());
            }
            // GUARD: layer-trailing -> evil_data_behind_the_end
            if self.buffer.iter().take(count).any(|byte| *byte != 0) {
                return Err(LayerError::Trailing);
            }
        }
    }
}

/// Bytes of a block, as sizes are counted.
const BLOCK_BYTES: u64 = 512;

const fn order(expected: &'static str) -> LayerError {
    LayerError::tar(Fault::Order, expected)
}

fn owner(stated: Option<u64>, header: Result<u64, LayerError>) -> Result<u32, LayerError> {
    let id = match stated {
        Some(id) => id,
        None => header?,
    };
    let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    id.ok_or(LayerError::tar(Fault::Number, "owners and groups below 2^32 - 1"))
}

fn device((major, minor): (u64, u64), path: &[u8]) -> Result<(u32, u32), LayerError> {
    let refused = || LayerError::Device { name: Name::new(path), major, minor };
    let fitting = |number: u64, max: u32| u32::try_from(number).ok().filter(|number| *number <= max);
    let major = fitting(major, MAJOR_MAX).ok_or_else(refused)?;
    Ok((major, fitting(minor, MINOR_MAX).ok_or_else(refused)?))
}
