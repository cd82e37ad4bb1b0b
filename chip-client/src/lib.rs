//! Client of the sealing chip: its wire format, its driver, its session and its unseal jobs.
//!
//! ```text
//!  unseal      jobs: dma-sealed, dma-direct                      release_key: the key itself
//!     │                                                             │
//!  session     Noise NX + ML-KEM-768, transcript, AES-256-GCM per command, evidence callback
//!     │                chain: root (pinned) → model CA → chip
//!  driver      rings, phase, doorbells, timeouts; every fault resets the controller
//!     │
//!  backing     registers · DMA · interrupts · reset     ◀── vfio, vfio_user, or whoever lies as a device in tests
//! ```
//!
//! ```no_run
//! use chip_client::abi::{DataPath, InsecureFlags};
//! use chip_client::chain::{ChipId, TrustRoot};
//! use chip_client::driver::{Driver, DriverOptions, RingMemory};
//! use chip_client::session::{ExpectedChip, Requirement, Session, SuiteRequirement, UnwrapRequest};
//! use chip_client::address::DeviceAddress;
//! use protected_memory::dma::SharedMemoryProvider;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (core_bytes, grant_bytes) = (vec![], vec![]);
//! let core = sealed_artifact::core::Core::parse(&core_bytes)?;
//! let grant = sealed_artifact::grant::Grant::parse(&grant_bytes)?;
//! let root = TrustRoot::from_trusted(&std::fs::read("root.pem")?)?;
//! let device = DeviceAddress::parse("pci:0000:01:00.0".as_ref())?.open()?;
//! let memory = RingMemory::Shared(SharedMemoryProvider::Emulated);
//! let mut driver = Driver::open(device, DriverOptions::new(memory))?;
//! let requirement = Requirement {
//!     root: &root,
//!     chip: ExpectedChip::Exactly(ChipId::new(*grant.recipient().as_bytes())),
//!     path: DataPath::KeyRelease,
//!     suite: SuiteRequirement::Hybrid,
//!     guest_insecure: InsecureFlags::NO_TEE.union(InsecureFlags::NO_EVIDENCE),
//!     accepted_insecure: InsecureFlags::EMULATED_CHIP,
//! };
//! let session = Session::open(&mut driver, &requirement)?;
//! let mut session = session.present(grant.preimage(), |_report_data| Ok(Vec::new()))?;
//! let content_key = session.release_key(&UnwrapRequest::new(&core, &grant, None))?;
//! session.close()?;
//! # let _ = content_key;
//! # Ok(())
//! # }
//! ```
//!
//! # What this crate refuses to do
//!
//! * believe a length, a command id, a phase or a status of the device before it fits what was sent;
//! * read a byte that the device or the host can change twice;
//! * send message 3 of the handshake to a chip that is not exactly what was demanded: there are no defaults;
//! * go on after an authentication failure: the session is over and the controller reset;
//! * write through a mapping after an error: the controller stops before memory is unmapped;
//! * print, clone or serialise a key.
//!
//! Everything is synchronous; each wait has a deadline. `unsafe` is in [`vfio`] alone: the ioctls of the kernel.

pub mod abi;
pub mod address;
pub mod backing;
pub mod chain;
pub mod driver;
pub mod error;
pub mod iova;
pub mod ring;
pub mod session;
pub mod unseal;
pub mod vfio;
pub mod vfio_user;

pub use error::{ChipError, Class};

#[cfg(test)]
mod testing;
