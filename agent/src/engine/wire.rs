//! What agent and helper tell each other.
//!
//! An order is a sealed file, because a specification is larger than a message; the message that brings it is one byte, and brings the
//! descriptors that belong to it. The answer is one message.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use cdh::rest::Asked;
use cdh::worker::Trade;
use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process};
use rustix::fs::{MemfdFlags, SealFlags};
use serde::{Deserialize, Serialize};

use super::EngineError;
use crate::spec::{SeccompProgram, SockFilter};

/// Largest order.
const MAXIMUM_ORDER_BYTES: u64 = 8 << 20;
/// Largest answer.
pub(super) const MAXIMUM_ANSWER_BYTES: usize = 4096;
/// Largest answer that is a request: below what the kernel takes for one message.
pub(super) const MAXIMUM_ASKED_BYTES: usize = 192 << 10;
/// Longest reason of a refusal.
const MAXIMUM_REASON_BYTES: usize = 512;
/// The message that brings an order.
pub(super) const ORDER: &[u8] = b"O";

/// What the helper does.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// The directory of all containers' states.
    pub(super) state: PathBuf,
    /// The container.
    pub(super) id: String,
    /// What to do with it.
    pub(super) task: Task,
}

/// What the helper does to a container.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Task {
    /// Makes it of `config.json` in the bundle. Descriptors: latch, and three streams without a terminal.
    Create {
        /// The bundle.
        bundle: PathBuf,
        /// Whether it has a terminal.
        terminal: bool,
        /// What its first process becomes.
        guise: Guise,
    },
    /// Lets the first process go on to its latch.
    Start,
    /// Makes a process in it. Descriptors as for `Create`.
    Exec {
        /// The process.
        process: Box<Process>,
        /// What it becomes.
        guise: Guise,
    },
    /// Runs what belongs to its end.
    Delete,
    /// Reads the first request of a connection, of any container's. Descriptor: the connection.
    Ask,
    /// Works for the hub; of no container. Descriptor: the socket of whoever wants what comes of it.
    Work(Trade),
}

impl Task {
    /// How many descriptors come with it, behind the order itself.
    pub(super) fn descriptors(&self) -> usize {
        match self {
            Self::Create { terminal: true, .. } | Self::Ask | Self::Work(_) => 1,
            Self::Exec { process, .. } if process.terminal() == Some(true) => 1,
            Self::Create { .. } | Self::Exec { .. } => 4,
            Self::Start | Self::Delete => 0,
        }
    }
}

/// What a process becomes before it executes its program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Guise {
    /// Its user.
    pub(super) uid: u32,
    /// Its group.
    pub(super) gid: u32,
    /// Its other groups, and no others.
    pub(super) groups: Vec<u32>,
    /// Whether it gains no privileges by executing.
    pub(super) no_new_privileges: bool,
    /// Its capabilities.
    pub(super) capabilities: CapabilityBits,
    /// Its filter of system calls.
    pub(super) seccomp: Option<FilterBits>,
}

/// Sets of capabilities, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CapabilityBits {
    pub(super) bounding: u64,
    pub(super) effective: u64,
    pub(super) permitted: u64,
    pub(super) inheritable: u64,
    pub(super) ambient: u64,
}

/// A filter of system calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilterBits {
    /// Code, jt, jf, k of each instruction.
    instructions: Vec<(u16, u8, u8, u32)>,
    /// `SECCOMP_FILTER_FLAG_…`.
    pub(super) flags: u32,
}

impl FilterBits {
    fn of(program: &SeccompProgram) -> Self {
        let instructions = program.instructions.iter().map(|one| (one.code, one.jt, one.jf, one.k)).collect();
        Self { instructions, flags: program.flags }
    }

    /// As the kernel takes it.
    pub(super) fn instructions(&self) -> Vec<SockFilter> {
        self.instructions.iter().map(|&(code, jt, jf, k)| SockFilter { code, jt, jf, k }).collect()
    }
}

impl Guise {
    /// Of a process that was prepared.
    pub(super) fn of(process: &Process, seccomp: Option<&SeccompProgram>) -> Result<Self, EngineError> {
        // GUARD: capabilities-explicit -> evil_host_process_without_capability_sets
        if process.capabilities().as_ref().is_none_or(|sets| !is_explicit(sets)) {
            return Err(EngineError::Order { what: "a process without five sets of capabilities" });
        }
        // GUARD: arguments-present -> evil_host_process_without_arguments
        if process.args().as_ref().is_none_or(Vec::is_empty) {
            return Err(EngineError::Order { what: "a process without arguments" });
        }
        let sets = process.capabilities().clone().unwrap_or_default();
        let user = process.user();
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.sort_unstable();
        groups.dedup();
        Ok(Self {
            uid: user.uid(),
            gid: user.gid(),
            groups,
            no_new_privileges: process.no_new_privileges() == Some(true),
            capabilities: CapabilityBits {
                bounding: bits(sets.bounding().as_ref()),
                effective: bits(sets.effective().as_ref()),
                permitted: bits(sets.permitted().as_ref()),
                inheritable: bits(sets.inheritable().as_ref()),
                ambient: bits(sets.ambient().as_ref()),
            },
            seccomp: seccomp.map(FilterBits::of),
        })
    }
}

fn is_explicit(sets: &LinuxCapabilities) -> bool {
    [sets.bounding(), sets.effective(), sets.permitted(), sets.inheritable(), sets.ambient()]
        .iter()
        .all(|set| set.is_some())
}

fn bits(set: Option<&Capabilities>) -> u64 {
    use libcontainer::capabilities::CapabilityExt as _;
    set.into_iter().flatten().fold(0, |bits, capability| bits | capability.to_cap().bitmask())
}

/// The process as libcontainer gets it: what the executor does is not done twice, or half.
pub(super) fn undressed(process: &Process) -> Process {
    let mut process = process.clone();
    process.set_capabilities(None);
    // `Some(false)` means the opposite of nothing to libcontainer.
    let no_new_privileges = process.no_new_privileges().filter(|set| *set);
    process.set_no_new_privileges(no_new_privileges);
    process
}

/// What came of an order.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Answer {
    /// A process, by its number in the guest. With a terminal its master comes along.
    Made(i32),
    /// What was asked for.
    Done,
    /// A request, as its peer wrote it.
    Asked(Box<Asked>),
    /// Nothing: why.
    Refused(String),
}

impl Answer {
    /// A refusal, in words that may be shown.
    pub(super) fn refused(reason: &str) -> Self {
        Self::Refused(printable(reason))
    }
}

/// What is kept of a text from outside.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .take(MAXIMUM_REASON_BYTES)
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' })
        .collect()
}

impl Order {
    /// As a file that nobody changes any more.
    pub(super) fn to_file(&self) -> std::io::Result<OwnedFd> {
        sealed_file(c"order", &serde_json::to_vec(self)?)
    }

    /// What is in the file that came.
    pub(super) fn from_file(file: OwnedFd) -> std::io::Result<Self> {
        let mut bytes = Vec::new();
        let mut file = File::from(file);
        file.rewind()?;
        file.take(MAXIMUM_ORDER_BYTES).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// A file in memory that nobody changes any more.
pub(super) fn sealed_file(name: &std::ffi::CStr, bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(file);
    file.write_all(bytes)?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file.into())
}
