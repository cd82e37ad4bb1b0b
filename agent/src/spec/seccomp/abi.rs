//! Ways to call the kernel, and their numbers.

use std::str::FromStr as _;

use syscalls::{aarch64, arm, x86, x86_64};

/// The processor that the guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Machine {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Machine {
    /// The one that this program is built for.
    #[cfg(target_arch = "x86_64")]
    pub const HERE: Self = Self::X86_64;
    /// The one that this program is built for.
    #[cfg(target_arch = "aarch64")]
    pub const HERE: Self = Self::Aarch64;

    /// Its ABIs: its own first, then the one of 32 bits.
    pub(super) const fn abis(self) -> [Abi; 2] {
        match self {
            Self::X86_64 => [Abi::X86_64, Abi::X86],
            Self::Aarch64 => [Abi::Aarch64, Abi::Arm],
        }
    }
}

/// A table of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Abi {
    X86_64,
    X86,
    Aarch64,
    Arm,
}

/// A call that is one of many behind one number: by which argument value, under which mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Multiplexed {
    /// The number that all share.
    pub(super) number: u32,
    /// Bits of the first argument that say which.
    pub(super) mask: u64,
    /// What they say.
    pub(super) value: u64,
}

/// `socketcall` of 32-bit x86, from 1 on.
const SOCKET_CALLS: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];
/// `ipc` of 32-bit x86.
const IPC_CALLS: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

impl Abi {
    /// What a profile calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X86 => "SCMP_ARCH_X86",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Arm => "SCMP_ARCH_ARM",
        }
    }

    /// `AUDIT_ARCH_…`
    pub(super) const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// The number of a call.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        let number = match self {
            Self::X86_64 => x86_64::Sysno::from_str(name).map(|call| call.id()),
            Self::X86 => x86::Sysno::from_str(name).map(|call| call.id()),
            Self::Aarch64 => aarch64::Sysno::from_str(name).map(|call| call.id()),
            Self::Arm => arm::Sysno::from_str(name).map(|call| call.id()),
        };
        number.ok().and_then(|number| u32::try_from(number).ok())
    }

    /// The other way to the same call.
    pub(super) fn multiplexed(self, name: &str) -> Option<Multiplexed> {
        if self != Self::X86 {
            return None;
        }
        if let Some(index) = SOCKET_CALLS.iter().position(|call| *call == name) {
            let value = u64::try_from(index).ok()?.checked_add(1)?;
            return Some(Multiplexed {
                number: self.number("socketcall")?,
                mask: u64::from(u32::MAX),
                value,
            });
        }
        let (_, value) = IPC_CALLS.iter().find(|(call, _)| *call == name)?;
        // The upper half is a version.
        Some(Multiplexed { number: self.number("ipc")?, mask: 0xffff, value: *value })
    }

    /// Whether a call of this name is in any table that is here.
    pub(super) fn is_known(name: &str) -> bool {
        [Self::X86_64, Self::X86, Self::Aarch64, Self::Arm].iter().any(|abi| abi.number(name).is_some())
    }
}
