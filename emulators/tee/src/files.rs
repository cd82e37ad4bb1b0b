//! What the guest's `/sys` holds, independent of how it is mounted.

pub(crate) mod fuse;
mod tree;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evidence::Octets;
use fuser::Errno;

use crate::entries::{Attribute, Entries};
use crate::tee::Tee;
use tree::{Kind, Tree};

/// Numbers of entries and their files begin here; each entry has so many.
const FIRST_ENTRY: u64 = 1 << 16;
const NUMBERS_PER_ENTRY: u64 = 16;
const REGISTER_BYTES: usize = 48;
const MAXIMUM_OPEN: usize = 65_536;

/// What a number stands for.
#[derive(Clone, Debug)]
enum Place {
    Fixed(Kind),
    Entry(u64),
    Attribute(u64, Attribute),
}

/// What `stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status {
    directory: bool,
    mode: u16,
    bytes: u64,
}

/// An open file. A blob is read as it was when the first byte was read, and written when the file is closed.
#[derive(Debug)]
struct Open {
    place: Place,
    seen: Option<Arc<Vec<u8>>>,
    pending: Option<Vec<u8>>,
}

/// The files of one guest.
#[derive(Debug)]
pub(crate) struct Files {
    tee: Arc<Tee>,
    tree: Tree,
    entries: Entries,
    open: Mutex<(u64, HashMap<u64, Open>)>,
}

impl Files {
    pub(crate) fn new(tee: Arc<Tee>) -> Self {
        let (tree, entries) = (Tree::of(&tee), Entries::new(Arc::clone(&tee)));
        Self { tee, tree, entries, open: Mutex::default() }
    }

    fn place(&self, number: u64) -> Result<Place, Errno> {
        let Some(dynamic) = number.checked_sub(FIRST_ENTRY) else {
            return self.tree.get(number).map(|node| Place::Fixed(node.kind.clone())).ok_or(Errno::ENOENT);
        };
        let (id, file) = (dynamic / NUMBERS_PER_ENTRY, dynamic % NUMBERS_PER_ENTRY);
        if !self.entries.exists(id) {
            return Err(Errno::ENOENT);
        }
        if file == 0 {
            return Ok(Place::Entry(id));
        }
        let attribute = usize::try_from(file - 1).ok().and_then(|file| self.attributes().get(file));
        attribute.map(|attribute| Place::Attribute(id, *attribute)).ok_or(Errno::ENOENT)
    }

    fn attributes(&self) -> &'static [Attribute] {
        Attribute::visible(self.tee.kind())
    }

    fn status(&self, number: u64) -> Result<Status, Errno> {
        Ok(match self.place(number)? {
            Place::Fixed(kind) => {
                let bytes = match &kind {
                    Kind::Directory | Kind::Reports => 0,
                    Kind::Table(bytes) => bytes.len(),
                    Kind::Register(_) | Kind::Launch(_) => REGISTER_BYTES,
                    Kind::EventLog => self.tee.ccel_bytes(),
                };
                let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
                Status { directory: kind.is_directory(), mode: kind.mode(), bytes }
            }
            Place::Entry(_) => Status { directory: true, mode: 0o755, bytes: 0 },
            Place::Attribute(_, attribute) => {
                Status { directory: false, mode: attribute.mode(), bytes: attribute.stated_bytes() }
            }
        })
    }

    fn lookup(&self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        let children = self.children(parent)?;
        let found = children.into_iter().find(|(_, child)| child == name);
        found.map(|(number, _)| number).ok_or(Errno::ENOENT)
    }

    fn children(&self, parent: u64) -> Result<Vec<(u64, OsString)>, Errno> {
        match self.place(parent)? {
            Place::Fixed(Kind::Reports) => {
                let entries = self.entries.list().into_iter();
                Ok(entries.map(|(id, name)| (number_of(id, 0), name)).collect())
            }
            Place::Fixed(kind) if kind.is_directory() => {
                let nodes = self.tree.children(parent);
                Ok(nodes.map(|(number, node)| (number, OsString::from(&node.name))).collect())
            }
            Place::Entry(id) => {
                let files = (1..).zip(self.attributes());
                Ok(files.map(|(file, it)| (number_of(id, file), OsString::from(it.name()))).collect())
            }
            Place::Fixed(_) | Place::Attribute(..) => Err(Errno::ENOTDIR),
        }
    }

    fn make(&self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        match self.place(parent)? {
            Place::Fixed(Kind::Reports) => Ok(number_of(self.entries.make(name)?, 0)),
            _ => Err(Errno::EPERM),
        }
    }

    fn remove(&self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        match self.place(parent)? {
            Place::Fixed(Kind::Reports) => self.entries.remove(name),
            _ => Err(Errno::EPERM),
        }
    }

    /// Opens a file. As in the kernel, not even root may do what no mode bit allows.
    fn open(&self, number: u64, reads: bool, writes: bool) -> Result<u64, Errno> {
        let Status { directory, mode, .. } = self.status(number)?;
        if directory {
            return Err(Errno::EISDIR);
        }
        if (reads && mode & 0o444 == 0) || (writes && mode & 0o222 == 0) {
            return Err(Errno::EACCES);
        }
        let place = self.place(number)?;
        let seen = match place {
            Place::Fixed(Kind::EventLog) => Some(Arc::new(self.tee.ccel())),
            _ => None,
        };
        let mut open = self.locked();
        let (next, table) = &mut *open;
        if table.len() >= MAXIMUM_OPEN {
            return Err(Errno::ENFILE);
        }
        *next += 1;
        table.insert(*next, Open { place, seen, pending: None });
        Ok(*next)
    }

    /// At most `size` bytes from `offset` on.
    fn read(&self, handle: u64, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let (place, seen) = {
            let open = self.locked();
            let file = open.1.get(&handle).ok_or(Errno::EBADF)?;
            (file.place.clone(), file.seen.clone())
        };
        let bytes = match (seen, place) {
            (Some(seen), _) => seen,
            (None, Place::Fixed(Kind::Register(index))) => {
                let registers = self.tee.registers();
                let value = registers.get(index).ok_or(Errno::EIO)?;
                Arc::new(value.0.to_vec())
            }
            (None, Place::Fixed(Kind::Launch(value))) => Arc::new(value.0.to_vec()),
            (None, Place::Fixed(Kind::Table(bytes))) => Arc::new(bytes),
            (None, Place::Attribute(id, attribute)) => {
                let bytes = Arc::new(self.entries.read(id, attribute)?);
                if let Some(file) = self.locked().1.get_mut(&handle) {
                    file.seen = Some(Arc::clone(&bytes));
                }
                bytes
            }
            (None, Place::Fixed(_) | Place::Entry(_)) => return Err(Errno::EISDIR),
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let rest = bytes.get(from..).unwrap_or_default();
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
        Ok(rest.get(..size).unwrap_or_default().to_vec())
    }

    /// How many bytes were taken.
    fn write(&self, handle: u64, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let offset = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let mut open = self.locked();
        let file = open.1.get_mut(&handle).ok_or(Errno::EBADF)?;
        match file.place.clone() {
            Place::Attribute(_, Attribute::Inblob) => {
                let end = offset.checked_add(data.len()).ok_or(Errno::EFBIG)?;
                if end > Entries::maximum_inblob() {
                    return Err(Errno::EFBIG);
                }
                let pending = file.pending.get_or_insert_default();
                pending.resize(pending.len().max(end), 0);
                if let Some(target) = pending.get_mut(offset..end) {
                    target.copy_from_slice(data);
                }
                Ok(data.len())
            }
            Place::Attribute(id, Attribute::Privlevel) => {
                drop(open);
                self.entries.write_privlevel(id, data).map(|()| data.len())
            }
            Place::Fixed(Kind::Register(index)) => {
                drop(open);
                self.extend(index, offset, data)
            }
            _ => Err(Errno::EACCES),
        }
    }

    /// Of a longer write the kernel takes what the register holds; a shorter one it refuses.
    fn extend(&self, index: usize, offset: usize, data: &[u8]) -> Result<usize, Errno> {
        if offset >= REGISTER_BYTES {
            return Err(Errno::EFBIG);
        }
        let digest: &[u8; REGISTER_BYTES] = data.first_chunk().ok_or(Errno::EINVAL)?;
        if offset != 0 {
            return Err(Errno::EINVAL);
        }
        self.tee.extend(index, &Octets(*digest))?;
        Ok(REGISTER_BYTES)
    }

    /// A descriptor of the file is closed: what was written takes effect. The kernel tells nobody if it cannot.
    fn flush(&self, handle: u64) {
        let pending = {
            let mut open = self.locked();
            let file = open.1.get_mut(&handle);
            file.and_then(|file| file.pending.take().map(|pending| (file.place.clone(), pending)))
        };
        if let Some((Place::Attribute(id, Attribute::Inblob), bytes)) = pending {
            let _ = self.entries.write_inblob(id, &bytes);
        }
    }

    fn release(&self, handle: u64) {
        self.flush(handle);
        self.locked().1.remove(&handle);
    }

    fn locked(&self) -> MutexGuard<'_, (u64, HashMap<u64, Open>)> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number_of(entry: u64, file: u64) -> u64 {
    FIRST_ENTRY + entry * NUMBERS_PER_ENTRY + file
}
