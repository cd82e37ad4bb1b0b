//! `mount_setattr` on a mount that is held by a file descriptor.

#![expect(unsafe_code, reason = "rustix does not wrap mount_setattr")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::mount::MountAttrFlags;

/// Sets attributes of the mount (not of its superblock); with `recursive` of those below it, too. Others stay.
pub(crate) fn set(mount: BorrowedFd<'_>, attributes: MountAttrFlags, recursive: bool) -> io::Result<()> {
    // A way to update times replaces the one before it.
    let changes_time = attributes.intersects(MountAttrFlags::MOUNT_ATTR__ATIME);
    let attr_clr = if changes_time { libc::MOUNT_ATTR__ATIME } else { 0 };
    let wanted =
        libc::mount_attr { attr_set: attributes.bits().into(), attr_clr, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a terminated empty string and the structure outlives the call; its size is passed with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
