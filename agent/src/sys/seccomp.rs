//! Filters of system calls.
#![expect(unsafe_code, reason = "rustix does not wrap seccomp(2)")]

use rustix::io::Errno;

use crate::spec::SockFilter;

const SET_MODE_FILTER: libc::c_ulong = 1;

/// Puts a filter on this thread, and on whatever it becomes or starts.
///
/// # Errors
/// `EACCES` without `no_new_privs` and `CAP_SYS_ADMIN`, `EINVAL` for a program that the kernel does not take.
pub(crate) fn load(program: &[SockFilter], flags: u32) -> Result<(), Errno> {
    /// The kernel's `struct sock_fprog`.
    #[repr(C)]
    struct Program {
        length: libc::c_ushort,
        instructions: *const SockFilter,
    }
    let length = libc::c_ushort::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: the kernel reads `length` instructions, of the layout that it defines, from a slice that is that long and outlives
    // the call.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, libc::c_ulong::from(flags), &raw const program)
    };
    match result {
        0 => Ok(()),
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
        // Another thread that could not be brought along.
        _ => Err(Errno::SRCH),
    }
}
