//! Scatter lists (spec §4).

use super::codec::{Reader, WireError, put_u32, put_u64};

/// Largest number of entries.
pub const MAX_SGL_ENTRIES: u32 = 4_096;

/// One contiguous range of the device's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SglEntry {
    /// Address.
    pub iova: u64,
    /// Length; at least 1, and the range does not wrap around.
    pub length: u64,
}

/// A scatter list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sgl {
    /// The ranges in order.
    pub entries: Vec<SglEntry>,
}

impl Sgl {
    /// A list of one range; empty when `length` is 0.
    pub fn single(iova: u64, length: u64) -> Self {
        if length == 0 { Self::default() } else { Self { entries: vec![SglEntry { iova, length }] } }
    }

    /// Sum of the lengths; `None` when it exceeds 2^64−1.
    pub fn total(&self) -> Option<u64> {
        self.entries.iter().try_fold(0u64, |sum, e| sum.checked_add(e.length))
    }

    /// Appends the encoding.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_u32(out, u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        for entry in &self.entries {
            put_u64(out, entry.iova);
            put_u64(out, entry.length);
        }
    }

    /// Takes a list off the front.
    pub fn take(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let n = r.u32("scatter list length")?;
        if n > MAX_SGL_ENTRIES {
            return Err(WireError::Field { what: "scatter list length", found: n.into() });
        }
        let mut entries = Vec::new();
        for _ in 0..n {
            let entry =
                SglEntry { iova: r.u64("scatter list address")?, length: r.u64("scatter list range")? };
            if entry.length == 0 || entry.iova.checked_add(entry.length).is_none() {
                return Err(WireError::Field { what: "scatter list range", found: entry.length });
            }
            entries.push(entry);
        }
        Ok(Self { entries })
    }
}
