//! Hardening of this process, and what the kernel says about itself.

use std::io;
use std::path::Path;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{no_new_privs, set_no_new_privs};

use crate::Class;
use crate::landing::read_capped;

/// An error of the hardening.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HardenError {
    /// The state of the kernel could not be read.
    #[error("read of {path} failed")]
    Read {
        /// The file.
        path: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A step was refused.
    #[error("hardening of the process: {step} failed")]
    Step {
        /// The step.
        step: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl HardenError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Step { .. } => "MEM-080",
            Self::Read { .. } => "MEM-081",
        }
    }

    /// Who misbehaved.
    pub fn class(&self) -> Class {
        Class::HostFault
    }
}

/// No core dumps of this process or what it starts, and no other process of the same user may look into this one.
///
/// Call it after [`crate::confine::enter_private_namespaces`] and before the first secret.
///
/// # Errors
///
/// The kernel refuses a step.
pub fn harden_process() -> Result<(), HardenError> {
    // GUARD: core-limit -> hardened_process_cannot_dump_core
    forbid_core_dumps()?;
    // GUARD: not-dumpable -> hardened_process_is_not_dumpable
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("not dumpable"))?;
    Ok(())
}

/// No core file of this process or of what it starts: the part of [`harden_process`] that can come before everything else.
///
/// # Errors
///
/// The kernel refuses.
pub fn forbid_core_dumps() -> Result<(), HardenError> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(step("core limit"))
}

/// Neither this process nor what it starts gains privileges by an exec any more.
///
/// # Errors
///
/// The kernel refuses.
pub fn forbid_new_privileges() -> Result<(), HardenError> {
    set_no_new_privs(true).map_err(step("no_new_privs"))
}

/// What is true of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessState {
    /// The limit on core dumps in bytes; `None` is unlimited.
    pub core_limit_bytes: Option<u64>,
    /// Core dumps and looks from outside are possible.
    pub dumpable: bool,
    /// The limit on locked memory in bytes; `None` is unlimited.
    pub locked_memory_limit_bytes: Option<u64>,
    /// No privileges can be gained by an exec.
    pub no_new_privileges: bool,
}

impl ProcessState {
    /// Reads the state.
    ///
    /// # Errors
    ///
    /// The kernel refuses to tell.
    pub fn read() -> Result<Self, HardenError> {
        Ok(Self {
            core_limit_bytes: getrlimit(Resource::Core).current,
            dumpable: dumpable_behavior().map_err(step("read of dumpable"))? != DumpableBehavior::NotDumpable,
            locked_memory_limit_bytes: getrlimit(Resource::Memlock).current,
            no_new_privileges: no_new_privs().map_err(step("read of no_new_privs"))?,
        })
    }
}

/// Where the kernel sends core dumps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CorePattern {
    /// To a file, which the core limit forbids.
    File(String),
    /// Nowhere.
    None,
    /// To a program, which also gets dumps of processes whose core limit is zero: only "not dumpable" helps.
    Program(String),
}

impl CorePattern {
    fn parse(text: &str) -> Self {
        match text.trim_end_matches('\n') {
            "" => Self::None,
            pattern => match pattern.strip_prefix('|') {
                Some(program) => Self::Program(program.to_owned()),
                None => Self::File(pattern.to_owned()),
            },
        }
    }
}

/// Whether the kernel clears pages when they are freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitOnFree {
    /// The kernel command line says no.
    Off,
    /// The kernel command line says yes.
    On,
    /// The kernel command line does not say: the kernel's build decides, in most of them no.
    Unstated,
}

impl InitOnFree {
    fn parse(command_line: &str) -> Self {
        let last = command_line
            .split_ascii_whitespace()
            .filter_map(|word| word.strip_prefix("init_on_free="))
            .next_back();
        match last {
            Some("1" | "on" | "y" | "Y") => Self::On,
            Some(_) => Self::Off,
            None => Self::Unstated,
        }
    }
}

/// What the kernel says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelState {
    /// Where core dumps go.
    pub core_pattern: CorePattern,
    /// Whether freed pages are cleared. If not, plaintext of a killed process stays in free memory.
    pub init_on_free: InitOnFree,
}

impl KernelState {
    /// Reads the state from `/proc`.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read.
    pub fn read() -> Result<Self, HardenError> {
        let read = |path: &'static str| {
            read_capped(Path::new(path)).map_err(|source| HardenError::Read { path, source })
        };
        Ok(Self {
            core_pattern: CorePattern::parse(&read("/proc/sys/kernel/core_pattern")?),
            init_on_free: InitOnFree::parse(&read("/proc/cmdline")?),
        })
    }
}

fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> HardenError {
    move |source| HardenError::Step { step, source: source.into() }
}

#[cfg(test)]
mod tests;
