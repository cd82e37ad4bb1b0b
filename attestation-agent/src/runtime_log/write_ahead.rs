//! The write-ahead file: an extension that was begun.
//!
//! `"IKWAL v1" ‖ u64 offset ‖ u32 register ‖ 48 bytes expected ‖ u32 length ‖ entry ‖ SHA-256 of all before`, little-endian.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};

use evidence::Octets;
use evidence::abi::event_log::{EventLog, LogEntry};
use rustix::fs::fdatasync;
use sha2::{Digest, Sha256};

use crate::error::MeasureError;
use crate::provider::LogIndex;
use crate::run_directory::{RunDirectory, failed, open_own};

use super::remove_if_present;

const NAME: &str = ".wal_event_entry";
const DRAFT: &str = ".wal_event_entry.draft";
const MAGIC: &[u8; 8] = b"IKWAL v1";
const MAXIMUM_BYTES: usize = 256 * 1024;

/// An extension that was begun.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WriteAhead {
    /// Where its entry goes in the log.
    pub(super) offset: u64,
    /// Which register.
    pub(super) register: LogIndex,
    /// What the register holds afterwards.
    pub(super) expected: Octets<48>,
    /// The entry's bytes.
    pub(super) entry: Vec<u8>,
}

impl WriteAhead {
    /// The entry, parsed; it is for the register that is named.
    pub(super) fn entry(&self) -> Result<LogEntry, MeasureError> {
        let mut entries = EventLog::parse_entries(&self.entry).map_err(MeasureError::Log)?;
        match (entries.pop(), entries.is_empty()) {
            (Some(entry), true) if entry.index == self.register.log() => Ok(entry),
            _ => Err(conflict("one entry for its register")),
        }
    }

    /// What is pending, if anything.
    pub(super) fn read(directory: &RunDirectory) -> Result<Option<Self>, MeasureError> {
        remove_if_present(&directory.join(DRAFT))?;
        let path = directory.join(NAME);
        let file = match open_own(OpenOptions::new().read(true), &path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let mut bytes = Vec::new();
        let cap = u64::try_from(MAXIMUM_BYTES).unwrap_or(u64::MAX);
        file.take(cap).read_to_end(&mut bytes).map_err(failed("read", &path))?;
        Self::parse(&bytes).map(Some).ok_or_else(|| conflict("a complete write-ahead file"))
    }

    /// Puts the file there, complete or not at all.
    pub(super) fn write(&self, directory: &RunDirectory) -> Result<(), MeasureError> {
        let draft = directory.join(DRAFT);
        let path = directory.join(NAME);
        let mut file = open_own(OpenOptions::new().write(true).create(true).truncate(true), &draft)
            .map_err(failed("make", &draft))?;
        file.write_all(&self.encode()).map_err(failed("write", &draft))?;
        fdatasync(&file).map_err(|error| failed("write", &draft)(error.into()))?;
        fs::rename(&draft, &path).map_err(failed("rename", &draft))
    }

    /// The extension is complete.
    pub(super) fn remove(directory: &RunDirectory) -> Result<(), MeasureError> {
        remove_if_present(&directory.join(NAME))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.offset.to_le_bytes());
        out.extend(self.register.log().to_le_bytes());
        out.extend(self.expected.0);
        out.extend(u32::try_from(self.entry.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(&self.entry);
        let digest = Sha256::digest(&out);
        out.extend(digest);
        out
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, digest) = bytes.split_last_chunk::<32>()?;
        if Sha256::digest(body).as_slice() != digest {
            return None;
        }
        let (magic, rest) = body.split_first_chunk::<8>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (register, rest) = rest.split_first_chunk::<4>()?;
        let (expected, rest) = rest.split_first_chunk::<48>()?;
        let (length, entry) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        (magic == MAGIC && length == entry.len()).then_some(())?;
        Some(Self {
            offset: u64::from_le_bytes(*offset),
            register: LogIndex::of_log(u32::from_le_bytes(*register))?,
            expected: Octets(*expected),
            entry: entry.to_vec(),
        })
    }
}

fn conflict(expected: &'static str) -> MeasureError {
    MeasureError::Conflict {
        what: "write-ahead file",
        expected: expected.to_owned(),
        found: "something else".to_owned(),
    }
}
