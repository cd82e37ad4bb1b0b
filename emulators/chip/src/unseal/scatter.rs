//! Scatter lists taken piece by piece.

use chip_client::abi::{Sgl, SglEntry};

use crate::dma::{Bus, DmaError};

/// A position in a scatter list.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [SglEntry],
    /// Bytes of the first remaining entry already taken.
    taken: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(list: &'a Sgl) -> Self {
        Self { rest: &list.entries, taken: 0 }
    }

    /// The next piece of at most `limit` bytes. `None`: the list is at its end.
    fn piece(&mut self, limit: usize) -> Option<(u64, usize)> {
        let (entry, rest) = self.rest.split_first()?;
        let left = entry.length.saturating_sub(self.taken);
        let length = left.min(limit as u64);
        let iova = entry.iova.checked_add(self.taken)?;
        if length == left {
            self.rest = rest;
            self.taken = 0;
        } else {
            self.taken = self.taken.saturating_add(length);
        }
        Some((iova, usize::try_from(length).ok()?))
    }

    /// Copies the next bytes of the list out.
    pub(super) fn read(&mut self, bus: &Bus<'_>, mut out: &mut [u8]) -> Result<(), DmaError> {
        while !out.is_empty() {
            let (iova, length) = self.piece(out.len()).ok_or(DmaError::Fault)?;
            let (head, tail) = out.split_at_mut_checked(length).ok_or(DmaError::Fault)?;
            bus.read(iova, head)?;
            out = tail;
        }
        Ok(())
    }

    /// Writes the next bytes of the list.
    pub(super) fn write(&mut self, bus: &Bus<'_>, mut bytes: &[u8]) -> Result<(), DmaError> {
        while !bytes.is_empty() {
            let (iova, length) = self.piece(bytes.len()).ok_or(DmaError::Fault)?;
            let (head, tail) = bytes.split_at_checked(length).ok_or(DmaError::Fault)?;
            bus.write(iova, head)?;
            bytes = tail;
        }
        Ok(())
    }

    /// Passes over the next `length` bytes.
    pub(super) fn skip(&mut self, mut length: u64) {
        while length > 0 {
            let limit = usize::try_from(length).unwrap_or(usize::MAX);
            let Some((_, piece)) = self.piece(limit) else { return };
            length = length.saturating_sub(piece as u64);
        }
    }
}

/// Whether every entry of `list` lies inside the union of `ranges`.
pub(super) fn inside(list: &Sgl, ranges: &Sgl) -> bool {
    let mut sorted: Vec<(u64, u64)> =
        ranges.entries.iter().map(|r| (r.iova, r.iova.saturating_add(r.length))).collect();
    sorted.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, end) in sorted {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    list.entries.iter().all(|entry| {
        let end = entry.iova.saturating_add(entry.length);
        let at = merged.partition_point(|(start, _)| *start <= entry.iova);
        at.checked_sub(1).and_then(|i| merged.get(i)).is_some_and(|(_, range_end)| end <= *range_end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(ranges: &[(u64, u64)]) -> Sgl {
        Sgl { entries: ranges.iter().map(|&(iova, length)| SglEntry { iova, length }).collect() }
    }

    #[test]
    fn pieces_follow_the_list_whatever_the_cuts() {
        let list = list(&[(100, 5), (300, 1), (200, 4)]);
        let addresses = |cuts: &[usize]| {
            let mut cursor = Cursor::new(&list);
            let mut out = Vec::new();
            for cut in cuts {
                let mut left = *cut;
                while left > 0 {
                    let Some((iova, length)) = cursor.piece(left) else { break };
                    out.extend((0..length as u64).map(|i| iova + i));
                    left -= length;
                }
            }
            out
        };
        let all = [100, 101, 102, 103, 104, 300, 200, 201, 202, 203];
        assert_eq!(addresses(&[10]), all);
        assert_eq!(addresses(&[1; 10]), all);
        assert_eq!(addresses(&[3, 4, 3]), all);
        assert_eq!(addresses(&[11]), all);
    }

    #[test]
    fn destinations_are_inside_the_union_of_the_ranges() {
        let ranges = list(&[(100, 10), (110, 10), (50, 10), (130, 1), (105, 2)]);
        assert!(inside(&list(&[(100, 20), (50, 10), (130, 1), (109, 2)]), &ranges));
        for bad in [(99, 1), (100, 21), (120, 1), (59, 2), (130, 2), (0, 1), (u64::MAX - 1, 1)] {
            assert!(!inside(&list(&[(100, 1), bad]), &ranges), "{bad:?}");
        }
        assert!(!inside(&list(&[(1, 1)]), &Sgl::default()));
        assert!(inside(&Sgl::default(), &Sgl::default()));
    }
}
