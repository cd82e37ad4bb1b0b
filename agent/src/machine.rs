//! The machine itself: what it has, processors and memory that come while it runs, its clock, its random numbers.
//!
//! All of it is the host's to give. In a confidential guest it does not get to say what time it was, and what it says about chance is mixed in
//! and counts for nothing.

mod clock;
mod details;
mod entropy;
mod online;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use attestation_agent::kbs::Dated;
use protocol::status::RpcError;

pub use clock::{Clock, RELEASED};
use rustix::io::Errno;

/// An error of a request about the machine. What it changed is as it was before, where the kernel can undo it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// The kernel's size of a block of memory.
    #[error("Invalid block size")]
    BlockSize,
    /// Processors did not come, or do not go online.
    #[error("failed to online {wanted} CPU(s) after {tries} retries")]
    Processors {
        /// How many have to be online.
        wanted: u32,
        /// How often it was tried.
        tries: u32,
    },
    /// The caller stopped waiting.
    #[error("timeout")]
    Late,
    /// A file of the kernel.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The kernel takes no memory by its address.
    #[error("the kernel of this guest has no memory probe: expected {}", path.display())]
    NoProbe {
        /// Where it would be.
        path: PathBuf,
    },
    /// No data to mix in.
    #[error("missing entropy data")]
    NoEntropy,
    /// The generator of random numbers.
    #[error("{what}: {source}")]
    Random {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: Errno,
    },
    /// A time that is none.
    #[error("time: expected seconds, and 0 to 999999 microseconds")]
    Time,
    /// A time that is over, in a confidential guest.
    #[error("time: expected {floor} s or later, found {found} s: it was later before")]
    ClockBack {
        /// The earliest that it can be.
        floor: i64,
        /// What came.
        found: i64,
    },
    /// The clock.
    #[error("set the clock: {0}")]
    Clock(#[source] Errno),
    /// A thread of the agent.
    #[error("machine: the work was lost")]
    Lost,
}

impl MachineError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BlockSize => "MACHINE_BLOCK_SIZE",
            Self::Processors { .. } => "MACHINE_PROCESSORS",
            Self::Late => "MACHINE_LATE",
            Self::File { .. } => "MACHINE_FILE",
            Self::NoProbe { .. } => "MACHINE_NO_PROBE",
            Self::NoEntropy => "MACHINE_NO_ENTROPY",
            Self::Random { .. } => "MACHINE_RANDOM",
            Self::Time => "MACHINE_TIME",
            Self::ClockBack { .. } => "MACHINE_CLOCK_BACK",
            Self::Clock(_) => "MACHINE_CLOCK",
            Self::Lost => "MACHINE_LOST",
        }
    }

    fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

impl From<MachineError> for RpcError {
    fn from(error: MachineError) -> Self {
        match error {
            MachineError::Late => Self::Deadline,
            MachineError::NoEntropy => Self::NoEntropy,
            other => Self::Failed(other.code(), other.to_string()),
        }
    }
}

/// The machine that this process runs on.
#[derive(Debug)]
pub struct Machine {
    sys: PathBuf,
    dev: PathBuf,
    tee_active: bool,
    clock: Arc<Clock>,
}

impl Machine {
    /// `sys` and `dev` are where `/sys` and `/dev` are; `tee_active`: whether the host is one that is not believed.
    #[must_use]
    pub fn new(sys: &Path, dev: &Path, tee_active: bool) -> Self {
        let clock = Arc::new(Clock::system(tee_active));
        Self { sys: sys.to_owned(), dev: dev.to_owned(), tee_active, clock }
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// For clients of key brokers: what a broker dated is over.
    #[must_use]
    pub fn dated(&self) -> Dated {
        let clock = Arc::clone(&self.clock);
        Dated::new(move |issued| {
            // A clock that cannot be set keeps its floor, which is what counts.
            let _ = clock.is_at_least(i64::try_from(issued).unwrap_or(i64::MAX));
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_host_time_before_a_token_of_the_broker() {
        let machine = |tee_active| Machine {
            sys: PathBuf::new(),
            dev: PathBuf::new(),
            tee_active,
            clock: Arc::new(Clock::new(tee_active, || i64::MAX, |_| Ok(()))),
        };
        let guest = machine(true);
        guest.dated().hear(RELEASED.cast_unsigned() + 100);
        assert_eq!(guest.clock().set(RELEASED + 99, 0).unwrap_err().code(), "MACHINE_CLOCK_BACK");
        guest.clock().set(RELEASED + 100, 0).unwrap();
        // Where the host is believed it goes on to be.
        let laptop = machine(false);
        laptop.dated().hear(RELEASED.cast_unsigned() + 100);
        laptop.clock().set(1, 0).unwrap();
    }
}
