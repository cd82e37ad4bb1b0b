//! The filter of system calls: an OCI profile becomes a program of the kernel's classic BPF.

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
