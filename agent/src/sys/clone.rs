//! A copy of this process that is a child of its parent.
#![expect(
    unsafe_code,
    reason = "rustix does not wrap clone(2): a copied process is safe only if it had one thread"
)]

use std::os::fd::{FromRawFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::process::Pid;

/// Which of the two this is.
#[derive(Debug)]
pub(crate) enum Cloned {
    /// The copy.
    Copy,
    /// The one that was copied: number of the copy, and its pidfd.
    Original(Pid, OwnedFd),
}

/// Copies this process, whose only thread is the caller. Its parent gets another child, with the same exit signal.
///
/// # Errors
/// `EDEADLK` where there is another thread: what that one holds (a lock of the allocator, say) would be held for ever in the copy.
/// Otherwise those of clone(2).
pub(crate) fn sibling() -> Result<Cloned, Errno> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(|_| Errno::NOENT)?.count();
    // GUARD: copied-alone -> a_process_with_threads_is_not_copied
    if threads != 1 {
        return Err(Errno::DEADLK);
    }
    let mut pidfd: libc::c_int = -1;
    let flags = libc::CLONE_PARENT | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: without CLONE_VM the copy has its own memory, stack included (a null stack pointer keeps it), and there is no other
    // thread whose state could be copied half-way. The kernel writes one descriptor to `pidfd`, which outlives the call.
    let number = unsafe {
        libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0_usize, &raw mut pidfd, 0_usize, 0_usize)
    };
    if number == 0 {
        return Ok(Cloned::Copy);
    }
    let pid = i32::try_from(number).ok().filter(|number| *number > 0).and_then(Pid::from_raw);
    let Some(pid) = pid else {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL));
    };
    // SAFETY: the kernel made this descriptor for this call, and nobody else knows it.
    Ok(Cloned::Original(pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_copied() {
        // A test runs in a thread beside the first one.
        let copied = sibling();
        if matches!(copied, Ok(Cloned::Copy)) {
            // The copy of a test process must not go on.
            std::process::abort();
        }
        assert_eq!(copied.unwrap_err(), Errno::DEADLK);
    }
}
