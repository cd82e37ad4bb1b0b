//! `mount_setattr` on a mount that is held by a file descriptor.

#![expect(unsafe_code, reason = "rustix does not wrap mount_setattr")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Makes the mount itself (not its superblock) read-only or writable.
pub(crate) fn set_mount_read_only(mount: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let (attr_set, attr_clr) =
        if read_only { (libc::MOUNT_ATTR_RDONLY, 0) } else { (0, libc::MOUNT_ATTR_RDONLY) };
    let attributes = libc::mount_attr { attr_set, attr_clr, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is a terminated empty string and the structure outlives the call; its size is passed with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
