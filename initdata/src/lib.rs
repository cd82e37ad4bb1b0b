//! Initdata: the configuration that an operator launches a guest with, and that the hardware vouches for.
//!
//! ```text
//!  block device ─▶ obtain ─▶ read once ───────▶ Unverified ──bind(register)──▶ Initdata ─▶ Document
//!  annotation ───────────────────────────────▶ Unverified      exactly one digest      policy.rego, aa.toml, cdh.toml,
//!  file ─────────────────────────────────────▶ Unverified      matches, then TOML      sealed.toml, audit.toml, innerkeep.toml
//!
//!  files ─▶ Package ─▶ text (exact bytes) ─▶ annotation, device image, digests
//! ```
//!
//! What the guest agent does, before it opens any port:
//!
//! ```
//! use initdata::{BlockDevices, InitdataError, Initdata, Platform, Register, Waiter, obtain};
//!
//! fn configuration(name: &str, value: &[u8], uevents: &mut impl Waiter) -> Result<Option<Initdata>, InitdataError> {
//!     let platform = Platform::Register(Register::new(name, value)?);
//!     // Waits for the device where the register says that there is one; refuses what does not match.
//!     obtain(&mut BlockDevices::system(), uevents, &platform)
//! }
//! ```
//!
//! And what a build pipeline does:
//!
//! ```
//! use initdata::{Algorithm, Package, RegisterKind, Unverified};
//! # fn main() -> Result<(), initdata::InitdataError> {
//! let mut package = Package::new(Algorithm::Sha256);
//! package.insert("policy.rego", "package agent_policy\n")?;
//! let packed = package.pack()?;
//! let host_data = packed.digest().fitted(RegisterKind::HostData.bytes());
//! // In the guest:
//! let register = initdata::Register::new("HOST_DATA", &host_data)?;
//! let initdata = Unverified::from_annotation(&packed.annotation())?.bind(&register)?;
//! assert_eq!(initdata.document().policy(), Some("package agent_policy\n"));
//! # Ok(())
//! # }
//! ```
//!
//! It refuses to: look into a document before its digest was found in the register; let a length that the host wrote size
//! an allocation; read a byte of the device twice; choose between two devices; take a register of zeros, or none, for
//! consent; skip a key that nobody knows. The normative text is `docs/spec/initdata.md`.
#![forbid(unsafe_code)]

mod annotation;
mod container;
mod devices;
mod discovery;
mod document;
mod error;
mod gzip;
mod pack;
mod register;
mod unverified;

pub use annotation::{ANNOTATION_KEY, OBJECT_ANNOTATIONS_LIMIT};
pub use container::{Device, HEADER_BYTES, Header, MAGIC, MAXIMUM_GZIP_BYTES};
pub use devices::BlockDevices;
pub use discovery::{DEVICE_DEADLINE, DeviceName, Devices, Platform, Waiter, obtain};
pub use document::container_identity::{
    Container, MAXIMUM_LAYERS, ProcessIdentity, ProcessRule, Root, VerityTree,
};
pub use document::values::{ContainerPath, Reference, Sha256Digest, Tag};
pub use document::{
    Document, FileName, MAXIMUM_CONFIG_BYTES, MAXIMUM_FILES, VERSION,
    audit::{AuditConfig, AuditSuite},
    sealed::{Artifact, Origin, SealedConfig, Sealer},
    settings::{InsecureMode, RestRoute, RestRule, Settings},
};
pub use error::{Class, InitdataError};
pub use pack::{Package, Packed};
pub use register::{Algorithm, Digest, Register, RegisterKind};
pub use unverified::{Binding, Initdata, MAXIMUM_TEXT_BYTES, Unverified};
