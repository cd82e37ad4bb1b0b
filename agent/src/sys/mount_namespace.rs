//! A thread in another mount namespace: it has to leave the working directory and root that all threads share, which `rustix` calls unsafe
//! because of another flag.
#![expect(unsafe_code, reason = "rustix marks unshare(2) as a whole")]

use std::io;
use std::os::fd::BorrowedFd;

use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces, unshare_unsafe};

/// Does something inside the mount namespace of a process, in a thread that runs nothing else and ends with it: its root and working directory
/// are that namespace's, its memory and descriptors are ours. Nothing is executed there. Blocks until it is done.
pub(crate) fn within<T: Send>(process: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("attach".to_owned());
        let thread = thread.spawn_scoped(scope, move || -> io::Result<T> {
            // SAFETY: what is unsafe is CLONE_FILES, after which threads do not mean the same by a descriptor. It is not among the flags.
            unsafe { unshare_unsafe(UnshareFlags::FS) }?;
            move_into_thread_name_spaces(process, ThreadNameSpaceType::MOUNT)?;
            Ok(work())
        })?;
        thread.join().map_err(|_| io::Error::other("the thread ended by a defect"))?
    })
}
