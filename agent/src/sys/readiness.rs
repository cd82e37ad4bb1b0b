//! Files in the reactor of the runtime: `tokio` leaves it to its caller that a descriptor stays open while it is registered.
#![expect(unsafe_code, reason = "registering a descriptor is unsafe in tokio for types that could close it")]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers a file, to wait until it can be read or written. It should be one that never blocks. To be called inside a runtime.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is one descriptor for as long as it lives, and it is closed by its drop alone, which the AsyncFd that
    // owns it does after it has taken it out of the reactor.
    let registered = unsafe { AsyncFd::register(fd) };
    Ok(registered?)
}
