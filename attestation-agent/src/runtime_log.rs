//! The runtime log: entries of the agent, each in the log exactly if its register was extended with it.
//!
//! ```text
//!  write-ahead file: offset, register, value it will have, entry ── fdatasync ── rename
//!  space for the entry is reserved ─▶ register extended ─▶ entry appended, fdatasync ─▶ write-ahead file removed
//! ```
//! Until the write-ahead file is complete nothing is extended. From there on the next start, or the next request,
//! finishes what was begun: it knows from the register's value how far things went.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use evidence::Octets;
use evidence::abi::aael::AaelEvent;
use evidence::abi::event_log::{EV_EVENT_TAG, EventLog, LogAlgorithm, LogEntry};
use evidence::verify::replay;
use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use rustix::io::Errno;

use crate::error::{AttestationError, MeasureError};
use crate::provider::{LogIndex, RuntimeRegisters};
use crate::run_directory::{RunDirectory, RunLock, failed, open_own};

mod write_ahead;

use write_ahead::WriteAhead;

/// Longest runtime log. With a firmware's log of usual size it still fits into what a chip is presented.
pub const MAXIMUM_RUNTIME_LOG_BYTES: u64 = 128 * 1024;
/// Longest firmware log that is read.
pub const MAXIMUM_FIRMWARE_LOG_BYTES: u64 = 1024 * 1024;
const LOG: &str = "eventlog";

/// The runtime log of one guest.
#[derive(Debug)]
pub(crate) struct RuntimeLog {
    directory: RunDirectory,
}

impl RuntimeLog {
    pub(crate) fn new(directory: RunDirectory) -> Self {
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(LOG)
    }

    /// Finishes what an interrupted extension began.
    ///
    /// # Errors
    /// `ATTEST_LOG_CONFLICT` if the register is neither before nor after it.
    pub(crate) fn recover(
        &self,
        _lock: &RunLock,
        registers: &dyn RuntimeRegisters,
    ) -> Result<(), AttestationError> {
        let Some(pending) = WriteAhead::read(&self.directory)? else { return Ok(()) };
        let entry = pending.entry()?;
        let digest = sha384_of(&entry)?;
        let found = registers.read(pending.register)?;
        if found != pending.expected {
            let extended = replay::extend(&found, &digest.0);
            // GUARD: recovery-one-step -> evil_workload_register_moved_during_recovery
            if extended != pending.expected {
                return Err(MeasureError::Conflict {
                    what: pending.register.name(),
                    expected: pending.expected.to_string(),
                    found: found.to_string(),
                }
                .into());
            }
            registers.extend(pending.register, &digest)?;
        }
        self.append(pending.offset, &pending.entry)?;
        WriteAhead::remove(&self.directory)?;
        Ok(())
    }

    /// Extends a register with an event and logs it: the register that is logged is the one that is extended.
    ///
    /// # Errors
    /// `ATTEST_LOG_FULL`, `ATTEST_RUN_DIRECTORY`: nothing was extended. Otherwise those of the register.
    pub(crate) fn extend(
        &self,
        lock: &RunLock,
        registers: &dyn RuntimeRegisters,
        event: &AaelEvent,
        register: LogIndex,
    ) -> Result<(), AttestationError> {
        self.recover(lock, registers)?;
        let entry = LogEntry::new(register.log(), EV_EVENT_TAG, event.encode());
        let digest = sha384_of(&entry)?;
        let entry = entry.encode();
        let offset = self.reserve(u64::try_from(entry.len()).unwrap_or(u64::MAX))?;
        let expected = replay::extend(&registers.read(register)?, &digest.0);
        let pending = WriteAhead { offset, register, expected, entry };
        pending.write(&self.directory)?;
        registers.extend(register, &digest)?;
        let found = registers.read(register)?;
        // GUARD: register-extended -> evil_host_register_that_does_not_move
        if found != expected {
            return Err(MeasureError::Conflict {
                what: register.name(),
                expected: expected.to_string(),
                found: found.to_string(),
            }
            .into());
        }
        self.append(offset, &pending.entry)?;
        WriteAhead::remove(&self.directory)?;
        Ok(())
    }

    /// The runtime log's bytes, where there is one.
    pub(crate) fn read(&self, _lock: &RunLock) -> Result<Option<Vec<u8>>, MeasureError> {
        let path = self.path();
        let file = match open_own(OpenOptions::new().read(true), &path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAXIMUM_RUNTIME_LOG_BYTES + 1).read_to_end(&mut bytes).map_err(failed("read", &path))?;
        let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if found > MAXIMUM_RUNTIME_LOG_BYTES {
            return Err(MeasureError::Full { maximum: MAXIMUM_RUNTIME_LOG_BYTES, found });
        }
        Ok(Some(bytes))
    }

    /// Makes sure that an entry of `length` bytes has room, and tells where it goes.
    fn reserve(&self, length: u64) -> Result<u64, MeasureError> {
        let path = self.path();
        let log =
            open_own(OpenOptions::new().write(true).create(true), &path).map_err(failed("open", &path))?;
        let offset = log.metadata().map_err(failed("look at", &path))?.len();
        let found = offset.saturating_add(length);
        // GUARD: runtime-log-cap -> evil_workload_fills_the_log
        if found > MAXIMUM_RUNTIME_LOG_BYTES {
            return Err(MeasureError::Full { maximum: MAXIMUM_RUNTIME_LOG_BYTES, found });
        }
        match fallocate(&log, FallocateFlags::KEEP_SIZE, offset, length) {
            // Not every file system reserves; then a full one is noticed later, and recovered from.
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(offset),
            Err(error) => Err(failed("reserve space in", &path)(error.into())),
        }
    }

    /// Puts an entry at its place and nothing behind it.
    fn append(&self, offset: u64, entry: &[u8]) -> Result<(), MeasureError> {
        let path = self.path();
        let mut log: File =
            open_own(OpenOptions::new().write(true).create(true), &path).map_err(failed("open", &path))?;
        let length = log.metadata().map_err(failed("look at", &path))?.len();
        // GUARD: log-not-cut -> evil_workload_cut_log_is_noticed
        if length < offset {
            return Err(MeasureError::Conflict {
                what: "length of the log",
                expected: format!("at least {offset} bytes"),
                found: format!("{length} bytes"),
            });
        }
        log.set_len(offset).map_err(failed("cut", &path))?;
        log.seek(SeekFrom::Start(offset)).map_err(failed("seek in", &path))?;
        log.write_all(entry).map_err(failed("append to", &path))?;
        fdatasync(&log).map_err(|error| failed("write", &path)(error.into()))
    }
}

/// The firmware's log and the runtime log as evidence carries them.
pub(crate) fn assemble(
    firmware: Option<&[u8]>,
    runtime: Option<&[u8]>,
) -> Result<Option<EventLog>, MeasureError> {
    EventLog::assemble(firmware, runtime).map_err(MeasureError::Log)
}

/// The firmware's log, where there is one.
pub(crate) fn read_firmware_log(path: &std::path::Path) -> Result<Option<Vec<u8>>, MeasureError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAXIMUM_FIRMWARE_LOG_BYTES + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    Ok(Some(bytes))
}

fn sha384_of(entry: &LogEntry) -> Result<Octets<48>, MeasureError> {
    let digest = entry.digest(LogAlgorithm::Sha384).and_then(|digest| digest.try_into().ok());
    digest.map(Octets).ok_or_else(|| MeasureError::Conflict {
        what: "pending entry",
        expected: "a SHA-384 digest".to_owned(),
        found: "none".to_owned(),
    })
}

/// Removes a file that may be absent.
fn remove_if_present(path: &std::path::Path) -> Result<(), MeasureError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
