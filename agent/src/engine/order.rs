//! What the engine is asked to make.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use protocol::ids::ContainerId;
use zeroize::Zeroizing;

use crate::reaper::Admitted;
use crate::spec::{Prepared, PreparedProcess};

/// A container: its namespaces, its cgroup and its first process, which runs nothing until [`super::Engine::start`].
#[derive(Debug)]
pub struct CreateOrder {
    /// Its id, which names its state on disk.
    pub id: ContainerId,
    /// The directory that holds `rootfs/`. The engine writes `config.json` there.
    pub bundle: PathBuf,
    /// What it is.
    pub prepared: Prepared,
    /// Its standard streams: a terminal exactly if `prepared` says so.
    pub stdio: Stdio,
}

/// Longest entry of an environment that the kernel takes, without the NUL at its end (`MAX_ARG_STRLEN`).
pub(super) const MAXIMUM_ENTRY_BYTES: usize = (128 << 10) - 1;

/// A variable whose value nobody but the process itself is to see: it is in no file, no order and no state of the container. The process gets
/// it at its latch, in the place of the value that the specification has under this name. Wiped when dropped.
pub struct SecretVariable {
    entry: Zeroizing<Vec<u8>>,
}

impl SecretVariable {
    /// `NAME` and `VALUE`. `None`: the name is empty or has a `=`, one of them has a NUL, or both are longer than the kernel takes
    /// (131,070 bytes).
    #[must_use]
    pub fn new(name: &str, value: &str) -> Option<Self> {
        let length = name.len().saturating_add(value.len()).saturating_add(1);
        let fits = length <= MAXIMUM_ENTRY_BYTES && !name.is_empty() && !name.contains(['=', '\0']);
        // GUARD: secret-variable-form -> evil_secrets_that_are_no_values
        if !fits || value.contains('\0') {
            return None;
        }
        let mut entry = Zeroizing::new(Vec::with_capacity(length));
        entry.extend_from_slice(name.as_bytes());
        entry.push(b'=');
        entry.extend_from_slice(value.as_bytes());
        Some(Self { entry })
    }

    /// Whether it is the same.
    #[cfg(test)]
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.entry == other.entry
    }

    /// `NAME=VALUE`.
    pub(super) fn entry(&self) -> &[u8] {
        &self.entry
    }
}

impl fmt::Debug for SecretVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretVariable(..)")
    }
}

/// A process that joins a running container.
#[derive(Debug)]
pub struct ExecOrder {
    /// The container.
    pub id: ContainerId,
    /// The process.
    pub process: PreparedProcess,
    /// Its standard streams: a terminal exactly if `process` says so.
    pub stdio: Stdio,
}

/// The standard streams of a process.
#[derive(Debug)]
pub enum Stdio {
    /// The ends that the process holds. They are closed in this process before the answer.
    Pipes {
        /// What it reads.
        stdin: OwnedFd,
        /// What it writes.
        stdout: OwnedFd,
        /// What it complains to.
        stderr: OwnedFd,
    },
    /// A terminal of the container's own; its master comes back in [`Created::terminal`].
    Terminal,
}

/// A process that was made.
#[derive(Debug)]
pub struct Created {
    /// Its end, which nobody else waits for, and a way to signal it.
    pub process: Admitted,
    /// Its number in the guest.
    pub pid: i32,
    /// The master of its terminal, if it was to have one. Its size is 0 × 0.
    pub terminal: Option<OwnedFd>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_secrets_that_are_no_values() {
        assert_eq!(SecretVariable::new("KEY", "a=b").unwrap().entry(), b"KEY=a=b");
        assert_eq!(format!("{:?}", SecretVariable::new("KEY", "hunter2")), "Some(SecretVariable(..))");
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0"), ("A", "\0")] {
            assert!(SecretVariable::new(name, value).is_none(), "{name:?} {value:?}");
        }
        assert!(SecretVariable::new("A", &"x".repeat(MAXIMUM_ENTRY_BYTES - 2)).is_some());
        assert!(SecretVariable::new("A", &"x".repeat(MAXIMUM_ENTRY_BYTES - 1)).is_none());
    }
}
