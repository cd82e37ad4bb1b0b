//! A thread that leaves its namespaces, which `rustix` calls unsafe because of one flag that is not used here.
#![expect(unsafe_code, reason = "rustix marks unshare(2) as a whole")]

use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The calling thread gets new namespaces for System V IPC and for the host name. It is a thread that nothing else runs on later:
/// it cannot go back.
pub(crate) fn leave_ipc_and_uts() -> Result<(), Errno> {
    // SAFETY: what is unsafe is CLONE_FILES, after which threads do not mean the same by a descriptor. It is not among the flags.
    unsafe { unshare_unsafe(UnshareFlags::NEWIPC | UnshareFlags::NEWUTS) }
}
