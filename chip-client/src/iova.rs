//! Where memory lies in the device's address space.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protected_memory::dma::{DmaBuffer, DmaRegion, Visibility};

use crate::backing::{DeviceBacking, DmaAccess, Iova};
use crate::error::{ChipError, TransportError};

const ALIGN: u64 = 2 << 20;
const FIRST: u64 = ALIGN;
// 38 bits: within reach of every IOMMU.
const END: u64 = 1 << 38;
const MSI_START: u64 = 0xFEE0_0000;
const MSI_END: u64 = 0xFEF0_0000;

/// Hands out address ranges: aligned to 2 MiB, disjoint, outside the interrupt window.
#[derive(Debug, Default)]
pub struct IovaAllocator {
    // Start and length of what is taken.
    taken: BTreeMap<u64, u64>,
}

impl IovaAllocator {
    /// Hands out addresses of these ranges only.
    pub fn within(usable: &[RangeInclusive<u64>]) -> Self {
        let mut usable: Vec<(u64, u64)> = usable.iter().map(|range| (*range.start(), *range.end())).collect();
        usable.sort_unstable();
        let mut taken = BTreeMap::new();
        let mut block = |start: u64, end: u64| {
            // Whole units: an address is handed out only if all of its unit is usable.
            let (start, end) = (start / ALIGN * ALIGN, end.min(END).next_multiple_of(ALIGN));
            if start < end {
                let len: &mut u64 = taken.entry(start).or_default();
                *len = (*len).max(end - start);
            }
        };
        let mut next = 0;
        for (first, last) in usable {
            if first > next {
                block(next, first);
            }
            next = next.max(last.saturating_add(1));
        }
        block(next, END);
        Self { taken }
    }

    /// Takes the lowest free range of at least `len` bytes.
    pub fn allocate(&mut self, len: u64) -> Option<Iova> {
        let len = len.max(1).checked_next_multiple_of(ALIGN)?;
        let mut start = FIRST;
        for (used, used_len) in &self.taken {
            let candidate = outside_msi(start, len);
            if candidate.checked_add(len)? <= *used {
                break;
            }
            start = start.max(used + used_len);
        }
        let start = outside_msi(start, len);
        if start.checked_add(len)? > END {
            return None;
        }
        self.taken.insert(start, len);
        Some(Iova(start))
    }

    /// Gives a range back.
    pub fn release(&mut self, iova: Iova) {
        self.taken.remove(&iova.0);
    }
}

fn outside_msi(start: u64, len: u64) -> u64 {
    if start < MSI_END && start.saturating_add(len) > MSI_START {
        MSI_END.next_multiple_of(ALIGN)
    } else {
        start
    }
}

/// Maps memory for a device at addresses of its own choice.
#[derive(Clone)]
pub struct DmaMapper {
    backing: Arc<dyn DeviceBacking>,
    iovas: Arc<Mutex<IovaAllocator>>,
}

impl DmaMapper {
    pub(crate) fn new(backing: Arc<dyn DeviceBacking>) -> Self {
        let iovas = IovaAllocator::within(&backing.dma().usable());
        Self { backing, iovas: Arc::new(Mutex::new(iovas)) }
    }

    /// Makes a piece of memory visible to the device. Its length must not be zero.
    ///
    /// # Errors
    ///
    /// No address is left, or the device refuses.
    pub fn map(&self, region: &DmaRegion<'_>, access: DmaAccess) -> Result<DmaMapping, ChipError> {
        let len = region.len();
        let iova = self.lock().allocate(len).ok_or(TransportError::IovaExhausted { len })?;
        if let Err(e) = self.backing.dma().map(iova, region, access) {
            self.lock().release(iova);
            return Err(e);
        }
        Ok(DmaMapping { mapper: self.clone(), iova, len, mapped: true })
    }

    /// Makes a buffer visible and keeps both together.
    ///
    /// # Errors
    ///
    /// As [`Self::map`].
    pub fn map_buffer<V: Visibility>(
        &self,
        buffer: DmaBuffer<V>,
        access: DmaAccess,
    ) -> Result<MappedBuffer<V>, ChipError> {
        let mapping = self.map(&buffer.region(), access)?;
        Ok(MappedBuffer { mapping, buffer })
    }

    fn lock(&self) -> MutexGuard<'_, IovaAllocator> {
        self.iovas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for DmaMapper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DmaMapper").field("iovas", &*self.lock()).finish_non_exhaustive()
    }
}

/// Memory that a device sees until this is unmapped.
#[derive(Debug)]
#[must_use = "the device sees the memory until it is unmapped"]
pub struct DmaMapping {
    mapper: DmaMapper,
    iova: Iova,
    len: u64,
    mapped: bool,
}

impl DmaMapping {
    /// Address for the device.
    pub fn iova(&self) -> Iova {
        self.iova
    }

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Takes the memory back. Success means that the device confirmed it.
    ///
    /// # Errors
    ///
    /// The device did not confirm: it may still see the memory.
    pub fn unmap(mut self) -> Result<(), ChipError> {
        self.unmap_once()
    }

    fn unmap_once(&mut self) -> Result<(), ChipError> {
        if !std::mem::take(&mut self.mapped) {
            return Ok(());
        }
        self.mapper.backing.dma().unmap(self.iova, self.len)?;
        // An address whose unmap was not confirmed is never given out again.
        self.mapper.lock().release(self.iova);
        Ok(())
    }
}

impl Drop for DmaMapping {
    fn drop(&mut self) {
        let _ = self.unmap_once();
    }
}

/// A buffer that a device sees.
#[derive(Debug)]
pub struct MappedBuffer<V: Visibility> {
    // Declared first: unmapped before the buffer is given back.
    mapping: DmaMapping,
    buffer: DmaBuffer<V>,
}

impl<V: Visibility> MappedBuffer<V> {
    /// The buffer.
    pub fn buffer(&self) -> &DmaBuffer<V> {
        &self.buffer
    }

    /// Address of a byte of the buffer for the device.
    pub fn iova(&self, offset: usize) -> u64 {
        self.mapping.iova().0.saturating_add(offset as u64)
    }

    /// Takes the memory back and returns the buffer.
    ///
    /// # Errors
    ///
    /// The device did not confirm.
    pub fn unmap(self) -> Result<DmaBuffer<V>, ChipError> {
        self.mapping.unmap()?;
        Ok(self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_avoid_the_interrupt_window() {
        let mut iovas = IovaAllocator::default();
        let first = iovas.allocate(0xFEC0_0000 - 1).unwrap();
        assert_eq!(first, Iova(FIRST));
        assert_eq!(iovas.allocate(1), Some(Iova(0xFF00_0000)));
        assert_eq!(iovas.allocate(END), None);
        assert_eq!(iovas.allocate(u64::MAX), None);
    }

    #[test]
    fn only_usable_ranges_are_handed_out() {
        let usable = [0x1_0000_0000..=0x1_00FF_FFFF, 0x40_0000..=0x50_0FFF];
        let mut iovas = IovaAllocator::within(&usable);
        // The second range has no whole unit, so it cannot be told from none.
        assert_eq!(iovas.allocate(8 << 20), Some(Iova(0x1_0000_0000)));
        assert_eq!(iovas.allocate(16 << 20), None);
        assert_eq!(iovas.allocate(8 << 20), Some(Iova(0x1_0080_0000)));
        assert_eq!(iovas.allocate(1), None);
        iovas.release(Iova(0x1_0000_0000));
        assert_eq!(iovas.allocate(1), Some(Iova(0x1_0000_0000)));
        assert_eq!(IovaAllocator::within(&[]).allocate(1), None);
        assert_eq!(IovaAllocator::within(&[0..=u64::MAX]).allocate(1), Some(Iova(FIRST)));
    }

    proptest! {
        #[test]
        fn usable_ranges_are_kept(
            ranges in prop::collection::vec((0u64..(1 << 39), 1u64..(1 << 33)), 0..6),
            lens in prop::collection::vec(1u64..(1 << 30), 1..20),
        ) {
            let usable: Vec<_> = ranges.iter().map(|(start, len)| *start..=start + len).collect();
            let mut iovas = IovaAllocator::within(&usable);
            for len in lens {
                let Some(Iova(start)) = iovas.allocate(len) else { continue };
                // Every page is in some range.
                for at in (start..start + len).step_by(1 << 20) {
                    prop_assert!(usable.iter().any(|range| range.contains(&at)), "{at:#x}");
                }
            }
        }

        #[test]
        fn ranges_are_aligned_and_disjoint(steps in prop::collection::vec((1u64..(1 << 34), any::<bool>()), 1..60)) {
            let mut iovas = IovaAllocator::default();
            let mut live: Vec<(u64, u64)> = Vec::new();
            for (len, release) in steps {
                if release && !live.is_empty() {
                    let (start, _) = live.swap_remove(usize::try_from(len).unwrap() % live.len());
                    iovas.release(Iova(start));
                } else if let Some(Iova(start)) = iovas.allocate(len) {
                    let end = start + len;
                    prop_assert_eq!(start % ALIGN, 0);
                    prop_assert!(start >= FIRST && end <= END);
                    prop_assert!(end <= MSI_START || start >= MSI_END);
                    prop_assert!(live.iter().all(|(s, l)| end <= *s || s + l <= start));
                    live.push((start, len));
                }
            }
        }
    }
}
