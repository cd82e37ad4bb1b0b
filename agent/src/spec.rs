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
use std::fmt;

use oci_spec::runtime as run;
use protocol::oci;

mod capabilities;
mod cgroup_path;
pub mod devices;
mod error;
mod facts;
pub mod floor;
pub mod forbidden;
mod hooks;
mod identity;
mod linux;
mod mounts;
mod process;
mod resources;
pub mod seccomp;
mod sysctl;
#[cfg(test)]
mod tests;
pub mod visible;

pub use cgroup_path::{AGENT_GROUP, CgroupPath};
pub use devices::{Access, DeviceKind, DeviceRule};
pub use error::SpecError;
pub use facts::{Facts, Resolve, SandboxNamespaces};
pub use forbidden::ForbiddenDevices;
pub use identity::process_identity;
pub use seccomp::{Machine, SeccompProgram, SockFilter};

/// The version of the OCI runtime specification that is written for the engine.
const VERSION: &str = "1.2.0";

/// How much a specification may have: more is refused before anything is made of it.
pub(crate) struct Limits;

impl Limits {
    pub(crate) const ANNOTATIONS: usize = 512;
    pub(crate) const ARGUMENTS: usize = 8192;
    pub(crate) const DEVICES: usize = 512;
    pub(crate) const DEVICE_RULES: usize = 512;
    pub(crate) const ENVIRONMENT: usize = 8192;
    pub(crate) const HOOKS: usize = 64;
    pub(crate) const MOUNTS: usize = 1024;
    pub(crate) const MOUNT_OPTIONS: usize = 64;
    pub(crate) const NAMESPACES: usize = 16;
    pub(crate) const PATHS: usize = 256;
    pub(crate) const PATH_BYTES: usize = 4095;
    pub(crate) const RESOURCES: usize = 256;
    pub(crate) const RLIMITS: usize = 32;
    pub(crate) const SYSCTLS: usize = 256;
}

/// What the engine runs. Its `Debug` shows no argument, variable or annotation.
#[derive(Clone)]
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
    /// `net/…` below `/proc/sys` and their values: containers share the guest's network, so these are set there, before the container
    /// starts. Names are paths without `..`.
    pub net_sysctls: BTreeMap<String, String>,
    /// Whether this is a confidential guest: further processes are held to the same rules.
    pub(crate) tee_active: bool,
}

/// A further process of a container. Its `Debug` shows no argument or variable.
#[derive(Clone)]
#[non_exhaustive]
pub struct PreparedProcess {
    /// The process, with five explicit sets of capabilities.
    pub process: run::Process,
    /// The container's filter of system calls.
    pub seccomp: Option<SeccompProgram>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("cgroup_path", &self.cgroup_path).finish_non_exhaustive()
    }
}

impl fmt::Debug for PreparedProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedProcess").finish_non_exhaustive()
    }
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
    // GUARD: spec-version -> evil_host_specification_of_another_version
    if !(spec.Version.is_empty() || spec.Version.starts_with("1.")) || spec.Version.len() > 32 {
        return Err(SpecError::Value { at: "ociVersion".to_owned(), expected: "1.x" });
    }
    // GUARD: other-systems -> evil_host_specification_of_another_system
    if spec.Solaris.is_some() || spec.Windows.is_some() {
        return Err(SpecError::NotEnforced { at: "solaris, windows".to_owned(), what: "another system" });
    }
    let missing = |at: &str, expected| SpecError::Missing { at: at.to_owned(), expected };
    let linux = spec.Linux.as_ref().ok_or_else(|| missing("linux", "the part of Linux"))?;
    let first = spec.Process.as_ref().ok_or_else(|| missing("process", "a process"))?;
    let root = spec.Root.as_ref().ok_or_else(|| missing("root", "the root of the container's files"))?;
    // GUARD: hostname -> evil_host_name_of_another_form
    if !is_hostname(&spec.Hostname) {
        return Err(SpecError::Value {
            at: "hostname".to_owned(),
            expected: "at most 64 letters, digits, '-', '.', '_'",
        });
    }
    within("annotations", spec.Annotations.len(), Limits::ANNOTATIONS)?;

    let cgroup_path = CgroupPath::parse(&linux.CgroupsPath, &facts.container)?;
    let sysctls = sysctl::sort(&linux.Sysctl)?;
    let net_sysctls = sysctls.network.clone();
    let seccomp =
        linux.Seccomp.as_ref().map(|profile| seccomp::compile(profile, Machine::HERE)).transpose()?;
    let asked_rules =
        linux.Resources.as_ref().map(|resources| resources.Devices.as_slice()).unwrap_or_default();
    let device_rules = devices::rules(asked_rules, &facts.forbidden_devices, facts.tee_active)?;

    let mut run_root = run::Root::default();
    run_root.set_path(facts.bundle.join("rootfs")).set_readonly(Some(root.Readonly));
    let mut run_spec = run::Spec::default();
    run_spec
        .set_version(VERSION.to_owned())
        .set_root(Some(run_root))
        .set_mounts(Some(mounts::convert(&spec.Mounts, facts)?))
        .set_process(Some(process::convert(first, capabilities::none(), facts.tee_active)?))
        .set_hostname(Some(spec.Hostname.clone()).filter(|name| !name.is_empty()))
        .set_domainname(None)
        .set_hooks(hooks::convert(spec.Hooks.as_ref(), facts)?)
        .set_annotations(Some(spec.Annotations.clone()).filter(|annotations| !annotations.is_empty()))
        .set_linux(Some(linux::convert(linux, facts, &cgroup_path, sysctls)?))
        .set_solaris(None)
        .set_windows(None)
        .set_vm(None)
        .set_zos(None)
        .set_uid_mappings(None)
        .set_gid_mappings(None);
    Ok(Prepared {
        spec: run_spec,
        seccomp,
        device_rules,
        cgroup_path,
        net_sysctls,
        tee_active: facts.tee_active,
    })
}

/// Makes of a further process what the engine runs in a container.
///
/// # Errors
/// Every code of [`SpecError`].
pub fn prepare_process(process: &oci::Process, container: &Prepared) -> Result<PreparedProcess, SpecError> {
    let first = container.spec.process().as_ref();
    let inherited = first.and_then(|first| first.capabilities().clone()).unwrap_or_else(capabilities::none);
    Ok(PreparedProcess {
        process: process::convert(process, inherited, container.tee_active)?,
        seccomp: container.seccomp.clone(),
    })
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
    Ok(PreparedResources { resources: resources::convert(resources)?, device_rules })
}

/// Refuses a list that is too long.
pub(crate) fn within(at: &str, found: usize, most: usize) -> Result<(), SpecError> {
    if found > most {
        return Err(SpecError::TooMany { at: at.to_owned(), most, found });
    }
    Ok(())
}

/// Whether the kernel takes a text as it is.
pub(crate) fn plain(text: &str) -> bool {
    !text.contains('\0')
}

fn is_hostname(name: &str) -> bool {
    name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}
