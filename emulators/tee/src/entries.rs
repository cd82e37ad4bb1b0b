//! Entries of `configfs-tsm`, with the kernel's rules: who writes advances the generation, who reads gets the report of
//! what was written last, and a report is made at most once for a generation.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::Errno;

use crate::launch::TeeKind;
use crate::tee::{Blobs, REPORT_DATA_BYTES, Tee};

/// So many entries at once; the kernel has no bound but its memory.
const MAXIMUM_ENTRIES: usize = 4096;
const MAXIMUM_PRIVLEVEL: u32 = 3;

/// A file of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    Inblob,
    Outblob,
    Auxblob,
    Generation,
    Provider,
    Privlevel,
    PrivlevelFloor,
}

impl Attribute {
    /// The files that the provider of a kind shows. Those of a service (`service_*`, `manifestblob`) exist below a
    /// service module alone.
    pub(crate) const fn visible(kind: TeeKind) -> &'static [Self] {
        match kind {
            TeeKind::Tdx => &[Self::Inblob, Self::Outblob, Self::Generation, Self::Provider],
            TeeKind::Snp => &[
                Self::Inblob,
                Self::Outblob,
                Self::Auxblob,
                Self::Generation,
                Self::Provider,
                Self::Privlevel,
                Self::PrivlevelFloor,
            ],
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Inblob => "inblob",
            Self::Outblob => "outblob",
            Self::Auxblob => "auxblob",
            Self::Generation => "generation",
            Self::Provider => "provider",
            Self::Privlevel => "privlevel",
            Self::PrivlevelFloor => "privlevel_floor",
        }
    }

    pub(crate) const fn mode(self) -> u16 {
        match self {
            Self::Inblob | Self::Privlevel => 0o200,
            _ => 0o444,
        }
    }

    /// Size as the kernel states it: a page for text, nothing for blobs.
    pub(crate) const fn stated_bytes(self) -> u64 {
        match self {
            Self::Inblob | Self::Outblob | Self::Auxblob => 0,
            _ => 4096,
        }
    }
}

#[derive(Debug, Default)]
struct Entry {
    name: OsString,
    inblob: Vec<u8>,
    privlevel: u32,
    written: u64,
    read: u64,
    blobs: Option<Arc<Blobs>>,
}

/// All entries, by a number that is never used again.
#[derive(Debug)]
pub(crate) struct Entries {
    tee: Arc<Tee>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    entries: BTreeMap<u64, Entry>,
}

impl Entries {
    pub(crate) fn new(tee: Arc<Tee>) -> Self {
        Self { tee, table: Mutex::default() }
    }

    /// `mkdir`.
    pub(crate) fn make(&self, name: &OsStr) -> Result<u64, Errno> {
        self.tee.admit()?;
        let mut table = self.locked();
        if table.entries.values().any(|entry| entry.name == name) {
            return Err(Errno::EEXIST);
        }
        if table.entries.len() >= MAXIMUM_ENTRIES {
            return Err(Errno::ENOMEM);
        }
        let id = table.next;
        table.next += 1;
        table.entries.insert(id, Entry { name: name.to_owned(), ..Entry::default() });
        Ok(id)
    }

    /// `rmdir`.
    pub(crate) fn remove(&self, name: &OsStr) -> Result<(), Errno> {
        let id = self.find(name).ok_or(Errno::ENOENT)?;
        self.locked().entries.remove(&id);
        Ok(())
    }

    pub(crate) fn find(&self, name: &OsStr) -> Option<u64> {
        let table = self.locked();
        let found = table.entries.iter().find(|(_, entry)| entry.name == name);
        found.map(|(id, _)| *id)
    }

    pub(crate) fn exists(&self, id: u64) -> bool {
        self.locked().entries.contains_key(&id)
    }

    pub(crate) fn list(&self) -> Vec<(u64, OsString)> {
        self.locked().entries.iter().map(|(id, entry)| (*id, entry.name.clone())).collect()
    }

    /// All that a file has to say now.
    pub(crate) fn read(&self, id: u64, attribute: Attribute) -> Result<Vec<u8>, Errno> {
        let text = |text: String| Ok(text.into_bytes());
        match attribute {
            Attribute::Outblob => self.report(id).map(|blobs| blobs.outblob.clone()),
            Attribute::Auxblob => self.report(id).map(|blobs| blobs.auxblob.clone()),
            Attribute::Generation => text(format!("{}\n", self.with(id, |entry| Ok(entry.written))?)),
            Attribute::Provider => match self.tee.kind() {
                TeeKind::Tdx => text("tdx_guest\n".to_owned()),
                TeeKind::Snp => text("sev_guest\n".to_owned()),
            },
            Attribute::PrivlevelFloor => text("0\n".to_owned()),
            Attribute::Inblob | Attribute::Privlevel => Err(Errno::EACCES),
        }
    }

    /// What was written to `inblob`, when it is closed: the kernel takes the whole blob then.
    pub(crate) fn write_inblob(&self, id: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.with(id, |entry| {
            entry.written += 1;
            bytes.clone_into(&mut entry.inblob);
            Ok(())
        })
    }

    /// What is written to `privlevel`.
    pub(crate) fn write_privlevel(&self, id: u64, bytes: &[u8]) -> Result<(), Errno> {
        let level = unsigned(bytes).ok_or(Errno::EINVAL)?;
        if level > MAXIMUM_PRIVLEVEL {
            return Err(Errno::EINVAL);
        }
        self.with(id, |entry| {
            entry.written += 1;
            entry.privlevel = level;
            Ok(())
        })
    }

    /// Most bytes that `inblob` takes.
    pub(crate) const fn maximum_inblob() -> usize {
        REPORT_DATA_BYTES
    }

    /// The report of the entry's generation; made when there is none yet.
    fn report(&self, id: u64) -> Result<Arc<Blobs>, Errno> {
        loop {
            let (inblob, privlevel, generation) = {
                let mut table = self.locked();
                let entry = table.entries.get_mut(&id).ok_or(Errno::ENOENT)?;
                if entry.inblob.is_empty() {
                    return Err(Errno::EINVAL);
                }
                if let (Some(blobs), true) = (&entry.blobs, entry.read == entry.written) {
                    return Ok(Arc::clone(blobs));
                }
                entry.blobs = None;
                (entry.inblob.clone(), entry.privlevel, entry.written)
            };
            // Not under the lock: a slow report delays nobody else.
            let blobs = Arc::new(self.tee.report(&inblob, privlevel)?);
            let kept = self.with(id, |entry| {
                if entry.written != generation {
                    return Ok(false);
                }
                entry.blobs = Some(Arc::clone(&blobs));
                entry.read = generation;
                entry.written += u64::from(blobs.raced);
                Ok(true)
            })?;
            if kept {
                return Ok(blobs);
            }
        }
    }

    fn with<T>(&self, id: u64, act: impl FnOnce(&mut Entry) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut table = self.locked();
        act(table.entries.get_mut(&id).ok_or(Errno::ENOENT)?)
    }

    fn locked(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number as the kernel's parser takes it: decimal, octal or hexadecimal, one line feed.
fn unsigned(bytes: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (text.get(2..)?, 16),
        [b'0', _, ..] => (text, 8),
        _ => (text, 10),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests;
