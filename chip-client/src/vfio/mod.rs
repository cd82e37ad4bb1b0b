//! The chip over kernel VFIO: group and container, IOMMU type 1 version 2.
//!
//! ```text
//!  sysfs   whose device, which group, who else is in it: refused before anything is opened
//!    │
//!  device  container ◀─ group ◀─ device: configuration space, BARs, MSI-X, function reset
//!    │
//!  dma     VFIO_IOMMU_MAP_DMA / UNMAP_DMA: an unmap counts only when all bytes were unmapped
//! ```
//!
//! The kernel below is the guest's own and is believed. Configuration space, BARs and interrupts are the host's and are
//! not. Registers are read and written by the kernel (`pread`, `pwrite` of the BAR's region) and not through a mapping:
//! a device that is taken away under a mapping ends the process by `SIGBUS`, a kernel call just fails; and user space of
//! a TDX guest cannot touch a BAR that the host emulates. A command costs two such calls and carries up to a mebibyte.
//!
//! The system calls are made here, with the structs of `vfio-bindings`. The crate `vfio-ioctls` (0.10) was considered
//! and not taken: its device panics when it is dropped after the device has left sysfs, it loses the errors of a reset,
//! of reads and writes and of most set-up calls, it numbers regions wrongly after one that the kernel does not describe,
//! maps everything writable, and lets the kernel write the size of an unmap through a shared reference.

mod address;
mod device;
mod dma;
mod error;
mod leave;
mod sys;
mod sysfs;

pub use address::PciAddress;
pub use device::VfioDevice;
pub use error::VfioError;

#[cfg(test)]
mod tests;
