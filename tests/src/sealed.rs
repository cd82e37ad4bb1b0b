//! The thief's tools for a `.sealed` file, written from the specification (artifact, section 10.2).

use crate::layout::canonical;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::path::{Path, PathBuf};

const SLOT: usize = 4096;

/// A `.sealed` file in memory.
#[derive(Clone, Debug)]
pub struct SealedFile {
    path: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl SealedFile {
    /// Reads it.
    pub fn read(path: &Path) -> Self {
        Self { path: path.to_owned(), bytes: std::fs::read(path).expect("read a sealed file") }
    }

    /// Writes it back.
    pub fn write(&self) {
        std::fs::write(&self.path, &self.bytes).expect("write a sealed file");
    }

    /// The slot (0 or 1) with the highest sequence.
    pub fn newest_slot(&self) -> usize {
        let sequence = |slot: usize| {
            (&self.bytes[slot * SLOT..][..8] == b"IKSEALED").then(|| self.number(slot * SLOT + 16))
        };
        if sequence(1) > sequence(0) { 1 } else { 0 }
    }

    /// The bytes of a slot.
    pub fn slot(&self, slot: usize) -> Range<usize> {
        slot * SLOT..(slot + 1) * SLOT
    }

    /// The directory that the newest slot names.
    pub fn directory(&self) -> Value {
        serde_json::from_slice(&self.bytes[self.directory_range()]).expect("the directory is JSON")
    }

    /// The bytes of a region of the directory, for example `core` or `payloads/0`.
    pub fn region(&self, pointer: &str) -> Range<usize> {
        let directory = self.directory();
        let region = directory
            .pointer(&format!("/{pointer}"))
            .unwrap_or_else(|| panic!("no {pointer} in {directory}"));
        let number = |name: &str| usize::try_from(region[name].as_u64().expect("a number")).expect("a usize");
        number("offset")..number("offset") + number("length")
    }

    /// Appends a new directory and makes the newest slot name it.
    pub fn replace_directory(&mut self, directory: &Value) {
        self.replace_directory_bytes(&canonical(directory));
    }

    /// Appends new directory bytes and makes the newest slot name them.
    pub fn replace_directory_bytes(&mut self, directory: &[u8]) {
        let slot = self.newest_slot() * SLOT;
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(directory);
        let mut put =
            |at: usize, bytes: &[u8]| self.bytes[slot + at..slot + at + bytes.len()].copy_from_slice(bytes);
        put(24, &u64::try_from(offset).expect("64 bits").to_be_bytes());
        put(32, &u64::try_from(directory.len()).expect("64 bits").to_be_bytes());
        put(40, &Sha256::digest(directory));
        let digest = Sha256::digest(&self.bytes[slot..slot + 72]);
        self.bytes[slot + 72..slot + 104].copy_from_slice(&digest);
    }

    fn directory_range(&self) -> Range<usize> {
        let slot = self.newest_slot() * SLOT;
        let number = |at: usize| usize::try_from(self.number(slot + at)).expect("a usize");
        number(24)..number(24) + number(32)
    }

    fn number(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.bytes[at..at + 8].try_into().expect("8 bytes"))
    }
}
