//! A filter of system calls: a list of those that are left, and nothing else.
//!
//! ```text
//!  another ABI ─▶ killed     on the list ─▶ done, some by one argument     anything else ─▶ EPERM     hidden ─▶ ENOSYS
//! ```

#![expect(unsafe_code, reason = "rustix does not wrap seccomp(2) and close_range(2)")]

use std::io;
use std::mem::offset_of;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W,
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, seccomp_data, sock_filter, sock_fprog,
};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
/// Numbers of x32 have this bit; no number of another ABI reaches it.
const X32: u32 = 0x4000_0000;

/// A call that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    number: libc::c_long,
    only: Only,
}

/// With which arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Only {
    Any,
    /// None of these bits in the lower half of this argument.
    Without(usize, u32),
    /// One of two values in the lower half of this argument.
    OneOf(usize, [u32; 2]),
    /// All of these bits in the lower half of this argument.
    With(usize, u32),
    /// Not at all: as if the kernel did not know it.
    Unknown,
}

impl Call {
    pub(crate) const fn any(number: libc::c_long) -> Self {
        Self { number, only: Only::Any }
    }

    pub(crate) const fn without(number: libc::c_long, argument: usize, bits: u32) -> Self {
        Self { number, only: Only::Without(argument, bits) }
    }

    pub(crate) const fn one_of(number: libc::c_long, argument: usize, values: [u32; 2]) -> Self {
        Self { number, only: Only::OneOf(argument, values) }
    }

    pub(crate) const fn with(number: libc::c_long, argument: usize, bits: u32) -> Self {
        Self { number, only: Only::With(argument, bits) }
    }

    /// Whoever is told so asks for an older call that can be judged.
    pub(crate) const fn unknown(number: libc::c_long) -> Self {
        Self { number, only: Only::Unknown }
    }
}

/// Puts the filter on this thread, which can gain no privileges any more, and on whatever it starts.
pub(crate) fn install(calls: &[Call]) -> io::Result<()> {
    let mut program = program(calls)?;
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the kernel reads `len` instructions of the layout that it defines, from a vector that is that long and outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0_u64, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor from 3 on.
pub(crate) fn close_descriptors() -> io::Result<()> {
    // SAFETY: called first in a program of its own, before anything has opened a descriptor that it would use later.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn program(calls: &[Call]) -> io::Result<Vec<sock_filter>> {
    let kill = instruction(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    let refuse = instruction(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs());
    let unknown = instruction(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs());
    let allow = instruction(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    let mut program = vec![
        load(offset_of!(seccomp_data, arch))?,
        jump(BPF_JEQ, ARCHITECTURE, 1, 0),
        kill,
        load(offset_of!(seccomp_data, nr))?,
        jump(BPF_JGE, X32, 0, 1),
        kill,
    ];
    for call in calls {
        let number = u32::try_from(call.number).map_err(io::Error::other)?;
        // The number stays loaded for whoever is not meant: only an answer follows another load.
        let mut body = match call.only {
            Only::Any => vec![],
            Only::Without(argument, bits) => {
                vec![load_argument(argument)?, jump(BPF_JSET, bits, 0, 1), refuse]
            }
            Only::OneOf(argument, [one, other]) => {
                vec![load_argument(argument)?, jump(BPF_JEQ, one, 2, 0), jump(BPF_JEQ, other, 1, 0), refuse]
            }
            Only::With(argument, bits) => {
                let masked = instruction(BPF_ALU | BPF_AND | BPF_K, bits);
                vec![load_argument(argument)?, masked, jump(BPF_JEQ, bits, 1, 0), refuse]
            }
            Only::Unknown => vec![unknown],
        };
        body.push(allow);
        program.push(jump(BPF_JEQ, number, 0, u8::try_from(body.len()).map_err(io::Error::other)?));
        program.extend(body);
    }
    program.push(refuse);
    Ok(program)
}

fn load_argument(argument: usize) -> io::Result<sock_filter> {
    // Both machines have the lower half first.
    load(offset_of!(seccomp_data, args) + argument * size_of::<u64>())
}

fn load(offset: usize) -> io::Result<sock_filter> {
    Ok(instruction(BPF_LD | BPF_W | BPF_ABS, u32::try_from(offset).map_err(io::Error::other)?))
}

fn instruction(code: u32, k: u32) -> sock_filter {
    jump_code(code, k, 0, 0)
}

fn jump(comparison: u32, k: u32, holds: u8, else_: u8) -> sock_filter {
    jump_code(BPF_JMP | comparison | BPF_K, k, holds, else_)
}

fn jump_code(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    // Codes of instructions have 16 bits, all of them below 256.
    sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k }
}

/// Maps a page that may be executed, and lets one be executed that was mapped otherwise.
#[cfg(test)]
pub(crate) fn executable() -> [io::Result<()>; 2] {
    let map = |flags| {
        // SAFETY: the kernel chooses an address where nothing is.
        let page = unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, flags, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(page) }
    };
    let protected = map(libc::PROT_READ).and_then(|page| {
        // SAFETY: nobody else knows the page.
        let result = unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    });
    [map(libc::PROT_READ | libc::PROT_EXEC).map(drop), protected]
}

/// Makes a process, which ends at once.
#[cfg(test)]
pub(crate) fn forked() -> io::Result<()> {
    // SAFETY: the child does nothing but end.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: ends the child without running the parent's exit handlers.
        0 => unsafe { libc::_exit(0) },
        _ => Ok(()),
    }
}
