//! The one system call of device-mapper.

#![expect(unsafe_code, reason = "rustix does not wrap ioctls of device-mapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct dm_ioctl` of linux/dm-ioctl.h.
pub const HEADER_BYTES: usize = 312;
/// `data_size` in it: how much the kernel may read and write.
const DATA_SIZE: std::ops::Range<usize> = 12..16;
/// `_IOWR(0xfd, 0, struct dm_ioctl)`.
const REQUEST: u64 = (3 << 30) | ((HEADER_BYTES as u64) << 16) | (0xfd << 8);

/// Sends a command. The buffer begins with a header; what the kernel answers is written over it.
///
/// # Errors
/// `InvalidInput` if the buffer has no room for a header; those of the kernel.
pub fn control(control: BorrowedFd<'_>, command: u8, buffer: &mut [u8]) -> io::Result<()> {
    let length = u32::try_from(buffer.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    if buffer.len() < HEADER_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    buffer.get_mut(DATA_SIZE).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(&length.to_ne_bytes());
    let request = REQUEST | u64::from(command);
    // SAFETY: the kernel reads and writes at most `data_size` bytes at the pointer, which is the length of the buffer, at least that of
    // a header; the buffer outlives the call and nobody else has it.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), request as _, buffer.as_mut_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
