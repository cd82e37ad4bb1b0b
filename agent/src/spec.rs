//! From the specification on the wire to what the engine runs: conversion, refusal of what cannot be enforced, and the floor
//! that holds whatever specification and policy say.
//!
//! ```text
//!  protocol::oci::Spec ──▶ inject (sandbox namespaces, hooks, root) ──▶ prepare ──▶ Prepared ──▶ engine
//!                                                                          │           ├─ spec: config.json, every field set
//!                                        Facts: confidential guest?        │           ├─ seccomp: a program, for first process and execs
//!                                        where do sources lead to?         │           ├─ device_rules: for the kernel's device program
//!                                        which devices are forbidden?   ───┘           ├─ cgroup_path: never the agent's own
//!                                                                                      └─ net_sysctls: the sandbox's, not the container's
//! ```
//!
//! It does not decide who may run what: the policy has, before. It makes no system call but by [`Facts`].

use std::collections::BTreeMap;

use oci_spec::runtime as run;
use protocol::oci;

mod cgroup_path;
pub mod devices;
mod error;
mod facts;
pub mod forbidden;
pub mod seccomp;

pub use cgroup_path::CgroupPath;
pub use devices::{Access, DeviceKind, DeviceRule};
pub use error::SpecError;
pub use facts::{Facts, Resolve};
pub use forbidden::ForbiddenDevices;
pub use seccomp::{SeccompProgram, SockFilter};

/// How much a specification may have: more is refused before anything is made of it.
pub(crate) struct Limits;

impl Limits {
    /// Device rules.
    pub(crate) const DEVICE_RULES: usize = 512;
}

/// What the engine runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Prepared {
    /// The specification, every field set on purpose. It has no seccomp profile, no device rules and no sysctls of the
    /// network: those are beside it, because the engine's library would leave them out.
    pub spec: run::Spec,
    /// The filter of system calls: for the first process and for every other one.
    pub seccomp: Option<SeccompProgram>,
    /// Which devices may be used: always there, always beginning with "none".
    pub device_rules: Vec<DeviceRule>,
    /// The group of its processes.
    pub cgroup_path: CgroupPath,
    /// `net.*`: containers share the sandbox's network, so these are the sandbox's to set, after `floor` and policy.
    pub net_sysctls: BTreeMap<String, String>,
    /// Whether this is a confidential guest: further processes are held to the same rules.
    pub(crate) tee_active: bool,
}

/// A further process of a container.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PreparedProcess {
    /// The process, with five explicit sets of capabilities.
    pub process: run::Process,
    /// The container's filter of system calls.
    pub seccomp: Option<SeccompProgram>,
}

/// New limits for a container.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PreparedResources {
    /// The limits; what is absent stays as it is, -1 is no limit.
    pub resources: run::LinuxResources,
    /// The device rules, where the update has some.
    pub device_rules: Option<Vec<DeviceRule>>,
}

/// Makes of a specification what the engine runs.
///
/// # Errors
/// Every code of [`SpecError`].
pub fn prepare(spec: &oci::Spec, facts: &Facts) -> Result<Prepared, SpecError> {
    let _ = (spec, facts);
    Err(SpecError::NotEnforced { at: "spec".to_owned(), what: "it" })
}

/// Makes of a further process what the engine runs in a container.
///
/// # Errors
/// Every code of [`SpecError`].
pub fn prepare_process(process: &oci::Process, container: &Prepared) -> Result<PreparedProcess, SpecError> {
    let _ = (process, container);
    Err(SpecError::NotEnforced { at: "process".to_owned(), what: "it" })
}

/// Makes of new limits what is written to the group of a container.
///
/// # Errors
/// `SPEC_VALUE`, `SPEC_TOO_MANY`, `SPEC_FLOOR_TEE`.
pub fn prepare_resources(
    resources: &oci::LinuxResources,
    container: &Prepared,
    forbidden: &ForbiddenDevices,
) -> Result<PreparedResources, SpecError> {
    within("linux.resources.devices", resources.Devices.len(), Limits::DEVICE_RULES)?;
    let device_rules = if resources.Devices.is_empty() {
        None
    } else {
        Some(devices::rules(&resources.Devices, forbidden, container.tee_active)?)
    };
    Ok(PreparedResources { resources: run::LinuxResources::default(), device_rules })
}

/// Refuses a list that is too long.
pub(crate) fn within(at: &str, found: usize, most: usize) -> Result<(), SpecError> {
    if found > most {
        return Err(SpecError::TooMany { at: at.to_owned(), most, found });
    }
    Ok(())
}
