//! The ioctls of kernel VFIO (`linux/vfio.h`): island 2 of `unsafe`.
//!
//! What the kernel fills in is a struct of `vfio-bindings` or bytes that are parsed elsewhere; it is given a unique
//! reference to it, with its true size in `argsz`.

#![expect(unsafe_code, reason = "kernel VFIO is spoken to by ioctl")]

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE, VFIO_TYPE, VFIO_TYPE1v2_IOMMU, vfio_device_info,
    vfio_group_status, vfio_iommu_type1_dma_map, vfio_iommu_type1_dma_unmap, vfio_iommu_type1_info,
    vfio_irq_info, vfio_irq_set, vfio_region_info,
};

use crate::backing::DmaAccess;

const GET_API_VERSION: u32 = 0;
const CHECK_EXTENSION: u32 = 1;
const SET_IOMMU: u32 = 2;
const GROUP_GET_STATUS: u32 = 3;
const GROUP_SET_CONTAINER: u32 = 4;
const GROUP_GET_DEVICE_FD: u32 = 6;
const DEVICE_GET_INFO: u32 = 7;
const DEVICE_GET_REGION_INFO: u32 = 8;
const DEVICE_GET_IRQ_INFO: u32 = 9;
const DEVICE_SET_IRQS: u32 = 10;
const DEVICE_RESET: u32 = 11;
const IOMMU_GET_INFO: u32 = 12;
const IOMMU_MAP_DMA: u32 = 13;
const IOMMU_UNMAP_DMA: u32 = 14;

/// Longest description of an IOMMU that is taken.
const IOMMU_INFO_MAX: usize = 64 << 10;

/// # Safety
///
/// `argument` must be what the kernel takes for this request on this kind of file: a number, or a pointer to memory that
/// it may read and write as far as the request says.
unsafe fn ioctl(file: BorrowedFd<'_>, request: u32, argument: *mut c_void) -> io::Result<c_int> {
    let request = libc::Ioctl::from((u32::from(VFIO_TYPE) << 8) | (VFIO_BASE + request));
    // SAFETY: as the caller promises.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A request whose argument is a number. These touch no memory of this process.
fn number(file: BorrowedFd<'_>, request: u32, argument: usize) -> io::Result<c_int> {
    debug_assert!(matches!(request, GET_API_VERSION | CHECK_EXTENSION | SET_IOMMU | DEVICE_RESET));
    // SAFETY: the kernel takes the argument of these requests as a number or ignores it.
    unsafe { ioctl(file, request, std::ptr::without_provenance_mut(argument)) }
}

/// A request whose argument is a struct that begins with its size.
///
/// # Safety
///
/// `T` must be the struct of the request, its `argsz` at most its size, and every bit pattern a valid `T`.
unsafe fn fill<T>(file: BorrowedFd<'_>, request: u32, argument: &mut T) -> io::Result<c_int> {
    // SAFETY: the kernel reads and writes at most `argsz` bytes of a struct that is borrowed for writing.
    unsafe { ioctl(file, request, std::ptr::from_mut(argument).cast()) }
}

fn size<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(0)
}

/// Version of the interface.
pub(super) fn api_version(container: BorrowedFd<'_>) -> io::Result<c_int> {
    number(container, GET_API_VERSION, 0)
}

/// Whether the kernel has IOMMU type 1, version 2.
pub(super) fn has_type1v2(container: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(number(container, CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU as usize)? > 0)
}

/// Makes the container one of IOMMU type 1, version 2.
pub(super) fn set_type1v2(container: BorrowedFd<'_>) -> io::Result<()> {
    number(container, SET_IOMMU, VFIO_TYPE1v2_IOMMU as usize).map(drop)
}

/// Flags of a group.
pub(super) fn group_flags(group: BorrowedFd<'_>) -> io::Result<u32> {
    let mut status = vfio_group_status { argsz: size::<vfio_group_status>(), flags: 0 };
    // SAFETY: the struct of this request; integers only.
    unsafe { fill(group, GROUP_GET_STATUS, &mut status)? };
    Ok(status.flags)
}

/// Puts a group into a container.
pub(super) fn set_container(group: BorrowedFd<'_>, container: BorrowedFd<'_>) -> io::Result<()> {
    let mut descriptor: c_int = container.as_raw_fd();
    // SAFETY: the kernel reads one descriptor number.
    unsafe { fill(group, GROUP_SET_CONTAINER, &mut descriptor) }.map(drop)
}

/// Opens a device of a group by its name.
pub(super) fn open_device(group: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads a string that ends with a zero byte and writes nothing.
    let descriptor = unsafe { ioctl(group, GROUP_GET_DEVICE_FD, name.as_ptr().cast_mut().cast()) }?;
    // SAFETY: a fresh descriptor, which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// What the kernel says of a device.
pub(super) fn device_info(device: BorrowedFd<'_>) -> io::Result<vfio_device_info> {
    let mut info = vfio_device_info { argsz: size::<vfio_device_info>(), ..vfio_device_info::default() };
    // SAFETY: the struct of this request; integers only.
    unsafe { fill(device, DEVICE_GET_INFO, &mut info)? };
    Ok(info)
}

/// What the kernel says of a region.
pub(super) fn region_info(device: BorrowedFd<'_>, index: u32) -> io::Result<vfio_region_info> {
    let mut info =
        vfio_region_info { argsz: size::<vfio_region_info>(), index, ..vfio_region_info::default() };
    // SAFETY: the struct of this request; integers only.
    unsafe { fill(device, DEVICE_GET_REGION_INFO, &mut info)? };
    Ok(info)
}

/// What the kernel says of a kind of interrupt.
pub(super) fn irq_info(device: BorrowedFd<'_>, index: u32) -> io::Result<vfio_irq_info> {
    let mut info = vfio_irq_info { argsz: size::<vfio_irq_info>(), index, ..vfio_irq_info::default() };
    // SAFETY: the struct of this request; integers only.
    unsafe { fill(device, DEVICE_GET_IRQ_INFO, &mut info)? };
    Ok(info)
}

/// Has vectors 0 … of a kind of interrupt signal these events; none: switches all of them off.
pub(super) fn signal_irqs(device: BorrowedFd<'_>, index: u32, events: &[BorrowedFd<'_>]) -> io::Result<()> {
    let data = if events.is_empty() { VFIO_IRQ_SET_DATA_NONE } else { VFIO_IRQ_SET_DATA_EVENTFD };
    let count = u32::try_from(events.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let length = size_of::<vfio_irq_set>() + size_of::<c_int>() * events.len();
    let argsz = u32::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    let header = [argsz, data | VFIO_IRQ_SET_ACTION_TRIGGER, index, 0, count];
    let mut message: Vec<u8> = header.into_iter().flat_map(u32::to_ne_bytes).collect();
    message.extend(events.iter().flat_map(|event| event.as_raw_fd().to_ne_bytes()));
    debug_assert_eq!(message.len(), length);
    // SAFETY: the kernel reads `argsz` bytes, which is the length of the message, and writes nothing.
    unsafe { ioctl(device, DEVICE_SET_IRQS, message.as_mut_ptr().cast()) }.map(drop)
}

/// Resets the function.
pub(super) fn reset(device: BorrowedFd<'_>) -> io::Result<()> {
    number(device, DEVICE_RESET, 0).map(drop)
}

/// What the kernel says of the IOMMU: `struct vfio_iommu_type1_info` and the capabilities behind it.
pub(super) fn iommu_info(container: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut info = vec![0; size_of::<vfio_iommu_type1_info>()];
    loop {
        let have = info.len();
        let argsz = u32::try_from(have).map_err(|_| io::ErrorKind::InvalidData)?.to_ne_bytes();
        info.iter_mut().zip(argsz).for_each(|(to, from)| *to = from);
        // SAFETY: the kernel writes at most `argsz` bytes, which is the length of the buffer.
        unsafe { ioctl(container, IOMMU_GET_INFO, info.as_mut_ptr().cast())? };
        let argsz = info.first_chunk().map_or(0, |argsz| u32::from_ne_bytes(*argsz));
        let wanted = usize::try_from(argsz).map_err(|_| io::ErrorKind::InvalidData)?;
        if wanted <= have {
            return Ok(info);
        }
        if wanted > IOMMU_INFO_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        info = vec![0; wanted];
    }
}

/// Memory of this process that a device is to see.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages {
    /// Where it begins, on a page boundary.
    pub(super) address: usize,
    /// Whole pages, in bytes.
    pub(super) len: u64,
}

/// Maps pages for the container's devices.
///
/// # Safety
///
/// For [`DmaAccess::ReadWrite`] the pages must be memory that this process accesses only as memory that others change.
/// They are pinned: that they are unmapped from this process before they are unmapped here does no harm.
pub(super) unsafe fn map(
    container: BorrowedFd<'_>,
    iova: u64,
    pages: Pages,
    access: DmaAccess,
) -> io::Result<()> {
    let mut map = vfio_iommu_type1_dma_map {
        argsz: size::<vfio_iommu_type1_dma_map>(),
        flags: match access {
            DmaAccess::Read => VFIO_DMA_MAP_FLAG_READ,
            DmaAccess::ReadWrite => VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        },
        vaddr: pages.address as u64,
        iova,
        size: pages.len,
    };
    // SAFETY: the struct of this request; what the device may do with the pages is as the caller promises.
    unsafe { fill(container, IOMMU_MAP_DMA, &mut map) }.map(drop)
}

/// Takes pages back; how many bytes were unmapped.
pub(super) fn unmap(container: BorrowedFd<'_>, iova: u64, len: u64) -> io::Result<u64> {
    let mut unmap = vfio_iommu_type1_dma_unmap {
        argsz: size::<vfio_iommu_type1_dma_unmap>(),
        iova,
        size: len,
        ..vfio_iommu_type1_dma_unmap::default()
    };
    // SAFETY: the struct of this request without a bitmap behind it, as flags 0 say; integers only.
    unsafe { fill(container, IOMMU_UNMAP_DMA, &mut unmap)? };
    Ok(unmap.size)
}
