//! Files of saved records.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use policy_engine::audit::{AuditError, Frame};

use crate::error::Failure;
use crate::files;

const MAGIC: &[u8] = b"IKAUDIT1";
/// Largest file in bytes.
pub(super) const MAXIMUM: usize = 64 << 20;

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Vec<Frame>, Failure> {
    let cap = u64::try_from(MAXIMUM).unwrap_or(u64::MAX);
    let bytes = files::read("read the saved records", path, cap)?;
    let frames =
        bytes.strip_prefix(MAGIC).ok_or(AuditError::Malformed { what: "a file of saved records" })?;
    Ok(Frame::parse_all(frames)?)
}

/// The number of the record that comes after frames.
pub(super) fn next(frames: &[Frame]) -> u64 {
    let last = frames.iter().filter_map(|frame| match frame {
        Frame::Clear { sequence, .. } | Frame::Sealed { sequence, .. } => Some(*sequence),
        Frame::Gap(gap) => Some(gap.last),
        _ => None,
    });
    last.max().map_or(0, |last| last.saturating_add(1))
}

/// A file that records are added to.
#[derive(Debug)]
pub(super) struct Saved {
    file: File,
    path: PathBuf,
    pub(super) frames: Vec<Frame>,
}

impl Saved {
    /// Opens a file, or begins one.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let exists = path.exists();
        let frames = if exists { read(path)? } else { Vec::new() };
        let mut options = OpenOptions::new();
        options.append(true).create_new(!exists).mode(0o600);
        let file = options.open(path).map_err(Failure::file("open the saved records", path))?;
        let mut saved = Self { file, path: path.to_owned(), frames };
        if !exists {
            saved.write(MAGIC)?;
        }
        Ok(saved)
    }

    /// Adds frames; they are on the disk when this returns.
    pub(super) fn add(&mut self, bytes: &[u8], frames: Vec<Frame>) -> Result<(), Failure> {
        self.write(bytes)?;
        self.frames.extend(frames);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_data());
        written.map_err(Failure::file("write the saved records", &self.path))
    }
}
