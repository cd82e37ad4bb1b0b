//! This process becomes another program.
#![expect(
    unsafe_code,
    reason = "rustix and the standard library do more than execve(2), which a filter may not allow"
)]

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use rustix::io::Errno;

/// Executes a program, by one system call. Returns only if that cannot be.
pub(crate) fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    let list = |texts: &[CString]| -> Vec<*const c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (arguments, environment) = (list(arguments), list(environment));
    // SAFETY: the path is terminated, both lists end with a null pointer and point to terminated texts that outlive the call.
    unsafe {
        libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr());
    }
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOEXEC)
}

/// Closes every descriptor from 3 on.
///
/// # Errors
/// Those of close_range(2).
pub(crate) fn close_all_but_standard_streams() -> Result<(), Errno> {
    // SAFETY: called first in a program of its own, before anything has opened a descriptor that it would use later.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}
