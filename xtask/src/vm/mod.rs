//! A guest kernel of its own under QEMU, without hardware virtualisation.
//!
//! ```text
//!  Tools ── QEMU, kernel, modules, busybox, virtiofsd: Debian packages, unpacked into a cache · vhost-device-vsock
//!    │
//!  Spec ── programs, files, modules, chips, disks ──boot──▶ Guest ── control (virtio-serial) ──▶ vm-init's witness
//!    │                                                        ├── QMP, serial log, vsock
//!    └── initramfs: vm-init, busybox, modules, static programs └── monitor: deadline, dead back ends
//! ```
//!
//! Nothing here is trusted by the product, and nothing of it is shipped. A guest that hangs, a back end that dies and a mirror that does not
//! answer are errors with a reason, never a test that passes.

mod backend;
mod control;
mod guest;
mod initramfs;
mod modules;
mod monitor;
mod packages;
mod plug;
mod programs;
mod qmp;
mod spec;
mod tools;
mod verity;
pub mod wire;

pub use control::{Expired, Running, Said, Stdin};
pub use guest::{End, Guest, connect_vsock};
pub use packages::Outage;
pub use programs::{GuestProgram, Programs, build};
pub use spec::{Init, Plan, Service, Spec};

pub use tools::Tools;
pub use verity::VerityRoot;
