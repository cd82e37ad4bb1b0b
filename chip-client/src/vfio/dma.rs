//! The device's view of memory: the IOMMU behind the container.

use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::sync::Arc;

use protected_memory::dma::DmaRegion;
use vfio_bindings::bindings::vfio::{
    VFIO_IOMMU_INFO_CAPS, VFIO_IOMMU_INFO_PGSIZES, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
};

use super::VfioError;
use super::device::Link;
use super::sys::{self, Pages};
use crate::backing::{DmaAccess, DmaSpace, Iova};
use crate::error::ChipError;

const PAGE: u64 = 4_096;
/// Most capabilities and ranges that are looked at.
const CHAIN_MAX: usize = 32;
const RANGES_MAX: usize = 1_024;

/// Maps memory at the IOMMU.
pub(super) struct VfioDma {
    link: Arc<Link>,
    ranges: Vec<RangeInclusive<u64>>,
}

impl VfioDma {
    pub(super) fn new(link: Arc<Link>, ranges: Vec<RangeInclusive<u64>>) -> Self {
        Self { link, ranges }
    }
}

impl DmaSpace for VfioDma {
    fn usable(&self) -> Vec<RangeInclusive<u64>> {
        self.ranges.clone()
    }

    #[expect(unsafe_code, reason = "a device gets the right to write into memory")]
    fn map(&self, iova: Iova, region: &DmaRegion<'_>, access: DmaAccess) -> Result<(), ChipError> {
        let pages = pages(region)?;
        let failed = |source| VfioError::Map { len: pages.len, source };
        // SAFETY: a `DmaRegion` is made only of memory that is accessed as memory that others change, or not at all
        // until it was unmapped; the bytes up to the page's end belong to the same mapping.
        unsafe { sys::map(self.link.container.as_fd(), iova.0, pages, access) }.map_err(failed)?;
        Ok(())
    }

    fn unmap(&self, iova: Iova, len: u64) -> Result<(), ChipError> {
        let expected = whole_pages(len)?;
        let found = sys::unmap(self.link.container.as_fd(), iova.0, expected)
            .map_err(VfioError::kernel("VFIO_IOMMU_UNMAP_DMA"))?;
        confirm_unmapped(expected, found)?;
        Ok(())
    }
}

/// Whether an unmap took everything.
pub(super) fn confirm_unmapped(expected: u64, found: u64) -> Result<(), VfioError> {
    // GUARD: vfio-unmap-whole -> unmapping_of_less_is_an_error
    if expected != found {
        return Err(VfioError::Unmap { expected, found });
    }
    Ok(())
}

/// The pages of a region. A file's mapping reaches to the end of its last page.
fn pages(region: &DmaRegion<'_>) -> Result<Pages, VfioError> {
    let address = region.address().ok_or(VfioError::Region { found: "no address" })?;
    if !(address as u64).is_multiple_of(PAGE) {
        return Err(VfioError::Region { found: "an address inside a page" });
    }
    Ok(Pages { address, len: whole_pages(region.len())? })
}

fn whole_pages(len: u64) -> Result<u64, VfioError> {
    let pages = len.checked_next_multiple_of(PAGE).filter(|pages| *pages != 0);
    pages.ok_or(VfioError::Region { found: "no length, or one without end" })
}

/// The addresses that the IOMMU can map, from `struct vfio_iommu_type1_info`; an IOMMU that cannot map pages of 4 KiB is
/// refused. A kernel that names no ranges refuses bad addresses when they are mapped.
pub(super) fn usable(info: &[u8]) -> Result<Vec<RangeInclusive<u64>>, VfioError> {
    let malformed = |expected, found: usize| VfioError::Interface {
        what: "description of the IOMMU",
        expected,
        found: found as u64,
    };
    let flags = u32_at(info, 4).ok_or_else(|| malformed(24, info.len()))?;
    let page_sizes = u64_at(info, 8).ok_or_else(|| malformed(24, info.len()))?;
    if flags & VFIO_IOMMU_INFO_PGSIZES == 0 || page_sizes & PAGE == 0 {
        return Err(VfioError::Interface {
            what: "page sizes of the IOMMU",
            expected: PAGE,
            found: page_sizes,
        });
    }
    if flags & VFIO_IOMMU_INFO_CAPS == 0 {
        return Ok(vec![0..=u64::MAX]);
    }
    // Capabilities are a chain: id (2 bytes), version (2), offset of the next (4), content.
    let mut at = u32_at(info, 16).ok_or_else(|| malformed(24, info.len()))? as usize;
    for _ in 0..CHAIN_MAX {
        if at == 0 {
            return Ok(vec![0..=u64::MAX]);
        }
        let id = u32_at(info, at).ok_or_else(|| malformed(at as u64 + 8, info.len()))? & 0xFFFF;
        if id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE {
            return ranges(info, at + 8).ok_or_else(|| malformed(at as u64 + 16, info.len()));
        }
        at = u32_at(info, at + 4).ok_or_else(|| malformed(at as u64 + 8, info.len()))? as usize;
    }
    Err(malformed(CHAIN_MAX as u64, CHAIN_MAX + 1))
}

/// Number of ranges (4 bytes), 4 bytes of nothing, then first and last address of each.
fn ranges(info: &[u8], at: usize) -> Option<Vec<RangeInclusive<u64>>> {
    let count = usize::try_from(u32_at(info, at)?).ok().filter(|count| *count <= RANGES_MAX)?;
    let range = |index: usize| {
        let at = at + 8 + 16 * index;
        Some(u64_at(info, at)?..=u64_at(info, at + 8)?)
    };
    (0..count).map(range).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}
