//! The two controls of the kernel's random number generator (random(4)).
#![expect(unsafe_code, reason = "ioctl")]

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::ioctl::{NoArg, Opcode, Setter, ioctl, opcode};

/// Counts bits of entropy in favour of what was written. Needs `CAP_SYS_ADMIN`.
pub(crate) fn credit(device: impl AsFd, bits: i32) -> Result<(), Errno> {
    const RNDADDTOENTCNT: Opcode = opcode::write::<i32>(b'R', 1);
    // SAFETY: the operation reads one int, which is what it is given.
    unsafe { ioctl(device, Setter::<RNDADDTOENTCNT, i32>::new(bits)) }
}

/// From now on numbers depend on what was written. Needs `CAP_SYS_ADMIN`.
pub(crate) fn reseed(device: impl AsFd) -> Result<(), Errno> {
    const RNDRESEEDCRNG: Opcode = opcode::none(b'R', 7);
    // SAFETY: the operation has no argument.
    unsafe { ioctl(device, NoArg::<RNDRESEEDCRNG>::new()) }
}
