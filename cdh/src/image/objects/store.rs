//! Objects in a directory.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{ContentSink, ObjectError, ObjectWriter};
use crate::composefs::verity::Hasher;
use crate::image::tree::{Content, InodeId, Kind, ObjectId, Tree};

/// Mode of objects: as composefs has them.
const MODE: Mode = Mode::from_raw_mode(0o644);
/// Mode of the directories that hold them.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);
/// What is hashed at once where there is nothing, and read at once.
const BUFFER: usize = 1 << 16;

/// How much is written at most between two looks at the free room, in bytes.
const STRIDE: u64 = 16 << 20;

/// A directory of objects: `xx/` of two hexadecimal digits, and in it files named by the other 62.
///
/// The directory is used by this process alone while objects are written to it; what others left there is not believed.
#[derive(Debug)]
pub struct Store {
    directory: OwnedFd,
    /// Those that were hashed by this value.
    known: RefCell<HashSet<ObjectId>>,
    /// How much room has to be left besides what is written.
    reserve: u64,
    /// How much may be written until the room is looked at again.
    stride: Cell<u64>,
}

/// What a file system has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes.
    pub bytes: u64,
    /// Files; `u64::MAX` where the file system does not count them.
    pub files: u64,
}

impl Store {
    /// In this directory. So many bytes of its file system are left alone, whatever is written.
    #[must_use]
    pub fn new(directory: OwnedFd, reserve: u64) -> Self {
        Self { directory, known: RefCell::default(), reserve, stride: Cell::new(0) }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// What may be written.
    ///
    /// # Errors
    ///
    /// `OBJECT_FILE`.
    pub fn room(&self) -> Result<Room, ObjectError> {
        let found =
            rustix::fs::fstatvfs(&self.directory).map_err(ObjectError::file("ask for the free room"))?;
        let bytes = found.f_bavail.saturating_mul(found.f_frsize).saturating_sub(self.reserve);
        Ok(Room { bytes, files: if found.f_files == 0 { u64::MAX } else { found.f_favail } })
    }

    /// Refuses what will not fit, before the first byte of it is fetched.
    ///
    /// # Errors
    ///
    /// `OBJECT_ROOM`, `OBJECT_FILE`.
    pub fn require(&self, needed: Room) -> Result<(), ObjectError> {
        let found = self.room()?;
        for (what, expected, found) in
            [("bytes", needed.bytes, found.bytes), ("files", needed.files, found.files)]
        {
            // GUARD: object-room -> evil_objects_without_room
            if expected > found {
                return Err(ObjectError::Room { what, expected, found });
            }
        }
        Ok(())
    }

    /// An object, open for reading at its beginning, once it was seen to be what its name says.
    ///
    /// # Errors
    ///
    /// `OBJECT_DIGEST` if it is missing, no regular file, of another length, or has other bytes; `OBJECT_FILE`.
    pub fn open(&self, id: ObjectId, size: u64) -> Result<File, ObjectError> {
        let file = self.unchecked(id)?.ok_or_else(|| refused(id, "the object of that name"))?;
        let found = rustix::fs::fstat(&file).map_err(ObjectError::file("look at an object"))?;
        // GUARD: object-size -> evil_object_of_another_length
        if u64::try_from(found.st_size) != Ok(size) {
            return Err(refused(id, "an object of the length that the tree states"));
        }
        if !self.known.borrow().contains(&id) {
            // GUARD: object-digest -> evil_object_that_was_there
            if digest(&file, size)? != id {
                return Err(refused(id, "contents with that digest"));
            }
            self.known.borrow_mut().insert(id);
        }
        Ok(file)
    }

    /// Moves the objects of a tree here, from a store on the same file system, whose writer has ended. Each is hashed first. They keep
    /// their owner, who must not be anybody who runs again with access to this directory.
    ///
    /// # Errors
    ///
    /// As [`Self::open`]. What was moved by then stays: it is what its names say.
    pub fn adopt(&self, from: &Self, tree: &Tree) -> Result<(), ObjectError> {
        for (id, size) in objects(tree) {
            if self.open(id, size).is_ok() {
                continue;
            }
            from.open(id, size)?;
            let name = path(id);
            self.make_directory(id)?;
            rustix::fs::renameat(&from.directory, &name, &self.directory, &name)
                .map_err(ObjectError::file("move an object"))?;
            self.known.borrow_mut().insert(id);
        }
        Ok(())
    }

    /// Before so many bytes are written.
    fn spend(&self, bytes: u64) -> Result<(), ObjectError> {
        let left = self.stride.get();
        if let Some(left) = left.checked_sub(bytes) {
            self.stride.set(left);
            return Ok(());
        }
        self.require(Room { bytes, files: 1 })?;
        // Towards the end looks come more often, and all of the room can be had.
        self.stride.set(self.room()?.bytes.saturating_sub(bytes).min(STRIDE));
        Ok(())
    }

    fn unchecked(&self, id: ObjectId) -> Result<Option<File>, ObjectError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        match rustix::fs::openat2(&self.directory, path(id), flags, Mode::empty(), resolve) {
            Ok(file) => {
                let found = rustix::fs::fstat(&file).map_err(ObjectError::file("look at an object"))?;
                let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
                Ok(is_file.then(|| File::from(file)))
            }
            // What is there and is no file is no object.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::XDEV) => Ok(None),
            Err(error) => Err(ObjectError::file("open an object")(error)),
        }
    }

    fn make_directory(&self, id: ObjectId) -> Result<(), ObjectError> {
        let name = hex::encode(id.0.first_chunk::<1>().copied().unwrap_or_default());
        match rustix::fs::mkdirat(&self.directory, name, DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(ObjectError::file("make a directory of objects")(error)),
        }
    }

    /// Gives a file its name, unless that object is there.
    fn name(&self, file: &File, id: ObjectId, size: u64) -> Result<(), ObjectError> {
        self.make_directory(id)?;
        let name = path(id);
        for _ in 0..2 {
            match link(file, &self.directory, &name) {
                Ok(()) => {
                    self.known.borrow_mut().insert(id);
                    return Ok(());
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(ObjectError::file("name an object")(error)),
            }
            if self.open(id, size).is_ok() {
                return Ok(());
            }
            // Half an object of a machine that lost power, or somebody's forgery.
            rustix::fs::unlinkat(&self.directory, &name, AtFlags::empty())
                .map_err(ObjectError::file("remove what is no object"))?;
        }
        Err(refused(id, "a directory that nobody else writes to"))
    }
}

impl ContentSink for Store {
    fn begin(&self, size: u64) -> Result<Box<dyn ObjectWriter + '_>, ObjectError> {
        self.spend(1)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, ".", flags, MODE)
            .map_err(ObjectError::file("make a file without a name"))?;
        Ok(Box::new(Writer {
            store: self,
            file: file.into(),
            hasher: Hasher::new(),
            size: 0,
            announced: size,
        }))
    }
}

struct Writer<'s> {
    store: &'s Store,
    file: File,
    hasher: Hasher,
    size: u64,
    announced: u64,
}

impl ObjectWriter for Writer<'_> {
    fn data(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.store.spend(count)?;
        self.hasher.update(bytes);
        self.size = self.size.saturating_add(count);
        self.file.write_all(bytes).map_err(ObjectError::file("write an object"))
    }

    fn hole(&mut self, length: u64) -> Result<(), ObjectError> {
        let zeros = [0; BUFFER];
        let mut left = length;
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER);
            self.hasher.update(zeros.get(..count).unwrap_or_default());
            left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        }
        self.size = self.size.saturating_add(length);
        rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Start(self.size))
            .map(drop)
            .map_err(ObjectError::file("leave a hole in an object"))
    }

    fn finish(self: Box<Self>) -> Result<ObjectId, ObjectError> {
        let Self { store, file, hasher, size, announced } = *self;
        // For a hole at the end.
        file.set_len(size).map_err(ObjectError::file("end an object"))?;
        let id = hasher.finish();
        if size != announced {
            return Err(refused(id, "as many bytes as were announced"));
        }
        if !store.known.borrow().contains(&id) {
            store.name(&file, id, size)?;
        }
        Ok(id)
    }
}

/// `linkat` of an open file: by the descriptor itself, or where the kernel does not allow that, by its name in `/proc`.
fn link(file: &File, directory: &OwnedFd, name: &str) -> Result<(), Errno> {
    match rustix::fs::linkat(file, "", directory, name, AtFlags::EMPTY_PATH) {
        Err(Errno::NOENT | Errno::PERM) => {
            let open = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(CWD, open, directory, name, AtFlags::SYMLINK_FOLLOW)
        }
        result => result,
    }
}

/// `xx/yyyy…`.
fn path(id: ObjectId) -> String {
    let digits = hex::encode(id.0);
    let (directory, name) = digits.split_at(2);
    format!("{directory}/{name}")
}

/// The digest of so many bytes of a file. Where the file is read next does not change.
fn digest(file: &File, size: u64) -> Result<ObjectId, ObjectError> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; BUFFER];
    while hasher.size() < size {
        let left = usize::try_from(size - hasher.size()).unwrap_or(usize::MAX).min(BUFFER);
        let part = buffer.get_mut(..left).unwrap_or_default();
        match file.read_at(part, hasher.size()).map_err(ObjectError::file("read an object"))? {
            0 => break,
            count => hasher.update(part.get(..count).unwrap_or_default()),
        }
    }
    Ok(hasher.finish())
}

/// The objects of a tree, each once for each length that is stated.
fn objects(tree: &Tree) -> impl Iterator<Item = (ObjectId, u64)> {
    let mut seen = HashSet::new();
    let mut left: Vec<InodeId> = vec![Tree::ROOT];
    while let Some(id) = left.pop() {
        match tree.get(id).map(|inode| &inode.kind) {
            Some(Kind::Directory(entries)) => left.extend(entries.values()),
            Some(Kind::Regular(Content::Object { id, size })) => {
                seen.insert((*id, *size));
            }
            _ => {}
        }
    }
    seen.into_iter()
}

fn refused(id: ObjectId, expected: &'static str) -> ObjectError {
    ObjectError::Digest { object: hex::encode(id.0), expected }
}
