//! The filter of system calls: an OCI profile becomes a program of the kernel's classic BPF.
//!
//! ```text
//!  profile ──▶ rules by ABI and number ──▶ ranges of numbers with the same answer ──▶ a binary search over them
//!  of the rules that match a call the strictest answers; where none does, the default
//! ```
//!
//! What another ABI of the processor calls is killed unless the profile lists that ABI; x32 does not exist. Of a name that no table has
//! the rule is left out where that denies more, as other runtimes do, and refused where it would allow more.

use protocol::oci;

use super::{Limits, SpecError, within};

mod abi;
mod assemble;
mod profile;
#[cfg(test)]
mod tests;

pub use abi::Machine;

/// Most instructions that the kernel takes.
pub const MAXIMUM_INSTRUCTIONS: usize = 4096;

/// One instruction, as the kernel's `struct sock_filter` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SockFilter {
    /// What it does.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Its operand.
    pub k: u32,
}

/// A filter for `seccomp(SECCOMP_SET_MODE_FILTER, flags, …)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeccompProgram {
    /// The instructions, at most 4096, as the kernel takes them.
    pub instructions: Vec<SockFilter>,
    /// `SECCOMP_FILTER_FLAG_…`: of TSYNC, LOG and SPEC_ALLOW.
    pub flags: u32,
}

/// Makes the program of a profile.
///
/// # Errors
/// `SPEC_SECCOMP`: an action, ABI, operator or flag that is none, or a rule whose absence would allow more. `SPEC_NOT_ENFORCED`: calls
/// that somebody else would have to answer. `SPEC_TOO_MANY`.
pub fn compile(profile: &oci::LinuxSeccomp, machine: Machine) -> Result<SeccompProgram, SpecError> {
    let parsed = profile::parse(profile, machine)?;
    let instructions = assemble::program(&parsed);
    within("linux.seccomp", instructions.len(), MAXIMUM_INSTRUCTIONS)?;
    Ok(SeccompProgram { instructions, flags: parsed.flags })
}

impl Limits {
    /// Rules of a profile.
    const SECCOMP_RULES: usize = 2048;
    /// Names of a rule.
    const SECCOMP_NAMES: usize = 2048;
    /// Names of all rules, each with its alternatives: a program of 4096 instructions has fewer.
    const SECCOMP_ENTRIES: usize = 4096;
    /// Conditions of a rule.
    const SECCOMP_CONDITIONS: usize = 16;
}
