//! What holds plaintext: landing files, secret pages, DMA buffers, and the confinement of the process that reads.
//!
//! ```text
//!  plan + policy ──preflight──▶ Landing<Filling> ──complete──▶ Landing<Complete> ──attach──▶ path
//!                               │  detached tmpfs,               superblock read-only,        in the private
//!                               │  no path anywhere              no writer left               mount namespace
//!                               ├─ Window: threads write         ├─ open / map: read          └─▶ run(consumer)
//!                               └─ DmaRegion: a device writes    └─ release: wiped
//! ```
//!
//! * [`landing`]: one private tmpfs instance per artifact. It has no path until every byte is verified, and then it
//!   is read-only as a superblock, not only as a mount.
//! * [`secret`]: keys and small secrets in `memfd_secret` or locked, guarded pages.
//! * [`dma`]: memory that a device may see. Whether it is shared with the host is a type.
//! * [`confine`]: private namespaces and a consumer without capabilities, for use outside a container; workers, which read bytes of
//!   strangers and have nothing but what they were given.
//! * [`file_verity`], [`loop_device`]: what integrity of files at run time needs of the kernel.
//! * [`harden`]: core dumps off, not dumpable, and what the kernel says about itself.
//!
//! ```no_run
//! use protected_memory::confine::enter_private_namespaces;
//! use protected_memory::landing::{FileName, Landing, LandingPlan, LandingPolicy, SwapPolicy, TeePolicy, TeeState};
//!
//! # fn main() -> Result<(), protected_memory::Error> {
//! let mut namespaces = enter_private_namespaces()?; // first thing in `main`, before any thread
//! let plan = LandingPlan::new([(FileName::parse("model.safetensors")?, 90_868_376)])?;
//! let policy = LandingPolicy { tee: TeePolicy::InsecureNoTee, swap: SwapPolicy::Refuse };
//! let mut landing = Landing::create(&plan, policy, TeeState::None)?; // as attestation found it
//! for mut window in landing.file_mut(0)?.segments(1 << 20)? {
//!     window.bytes_mut().fill(7); // an AEAD opens straight into the window, on any thread
//! }
//! let landed = landing.complete()?; // no writer left, superblock read-only
//! let mount = namespaces.attach(&landed, &FileName::parse("model")?)?;
//! let mut command = std::process::Command::new("ls");
//! command.arg(mount.path());
//! let status = namespaces.run(command)?; // no capabilities, nested namespaces
//! landed.release()?; // wiped
//! # let _ = status;
//! # Ok(())
//! # }
//! ```
//!
//! # What this crate refuses to do
//!
//! * hand out plaintext as something that can be printed, cloned or serialised;
//! * attach a file that a device or another process can still write;
//! * land without an active TEE, beside an emulated one, or where pages can be swapped, unless the caller says so by name;
//! * give out memory that a device can rewrite as a slice;
//! * log: every fact is in a report or an error, and neither carries contents.
//!
//! # What it cannot do
//!
//! DMA pins are not seen by the superblock check: unmap at the IOMMU and confirm before `complete`. Freed pages are
//! the kernel's to clear after SIGKILL (`init_on_free=1`; see [`harden::KernelState`]).

#![deny(missing_docs)]

pub mod confine;
pub mod dma;
mod error;
pub mod harden;
pub mod landing;
mod page;
pub mod secret;
pub mod source;
mod sys;
#[cfg(test)]
mod testing;

pub mod device_mapper {
    //! The system call of device-mapper. What is behind it is the caller's.
    pub use crate::sys::device_mapper::{HEADER_BYTES, control};
}

pub mod file_verity {
    //! fs-verity of the kernel: contents that cannot change, and a digest that stands for them.
    pub use crate::sys::file_verity::{Measured, enable, measure};
}

pub mod loop_device {
    //! Files as block devices.
    pub use crate::sys::loop_device::{FileId, LoopDevice, is_shown};
}

pub use error::{CODES, Class, MemoryError as Error};
pub use page::{HUGE_PAGE_BYTES, PageClass};
