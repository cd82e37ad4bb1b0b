//! Where a file goes, and how it gets there: beneath the shared directory, through no link, and not into what is mounted below it.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use protocol::agent::CopyFileRequest;
use protocol::ids::{MAXIMUM_PATH_BYTES, SharedPath};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, fstat, linkat, renameat, statat,
    symlinkat, unlinkat,
};

use super::CopyError;
use crate::storage::{Beneath, by_number};

/// A name that nobody else makes, until the file has its own.
const PARTIAL: &str = ".innerkeep-copy-";
const RANDOM_BYTES: usize = 16;

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    Link,
}

/// Where it goes, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) place: PathBuf,
    mode: Mode,
    parent_mode: Mode,
    owner: (Uid, Gid),
}

impl Target {
    pub(super) fn of(place: SharedPath, request: &CopyFileRequest) -> Result<Self, CopyError> {
        let kind = match FileType::from_raw_mode(request.file_mode) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Link,
            FileType::RegularFile => Kind::File,
            // Runtimes may leave the kind out.
            FileType::Unknown if request.file_mode & 0o17_0000 == 0 => Kind::File,
            _ => return Err(CopyError::Kind),
        };
        let id = |id: i32| u32::try_from(id).map_err(|_| CopyError::Owner);
        let owner = (Uid::from_raw(id(request.uid)?), Gid::from_raw(id(request.gid)?));
        Ok(Self {
            kind,
            place: place.as_path().to_owned(),
            mode: Mode::from_raw_mode(request.file_mode & 0o7777),
            parent_mode: Mode::from_raw_mode(request.dir_mode & 0o777),
            owner,
        })
    }

    /// Opens the shared directory, and makes what is missing on the way.
    fn shared(&self, shared: &Path) -> Result<Beneath, CopyError> {
        let failed = CopyError::io("open the shared directory");
        if !shared.is_dir() {
            std::fs::create_dir_all(shared).map_err(CopyError::io("make the shared directory"))?;
        }
        let root = Beneath::open(shared).map_err(failed)?;
        // GUARD: copy-onto-no-mount -> evil_host_copies_into_a_mount
        let root = root.without_mounts();
        let Some(parent) = self.place.parent() else { return Ok(root) };
        let mut made = Vec::new();
        let directory = root.make_directories(parent, self.parent_mode, &mut made);
        let directory = directory.map_err(CopyError::io("make the parent directory"))?;
        // Only the directory in which the file is, as upstream does.
        if made.iter().any(|path| path == parent) {
            let (user, group) = self.owner;
            fchown(&directory, Some(user), Some(group))
                .map_err(CopyError::io("give the parent directory"))?;
        }
        Ok(root)
    }

    /// A directory: one that is there stays, with what is in it.
    pub(super) fn directory(&self, shared: &Path) -> Result<(), CopyError> {
        let failed = |error: std::io::Error| CopyError::io("make the directory")(error);
        let root = self.shared(shared)?;
        let (parent, name) = root.parent(&self.place).map_err(failed)?;
        let found = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        if found.is_some_and(|found| FileType::from_raw_mode(found.st_mode) != FileType::Directory) {
            root.remove_all(&self.place).map_err(failed)?;
        }
        let directory = root.make_directories(&self.place, self.mode, &mut Vec::new()).map_err(failed)?;
        self.give(&directory).map_err(|error| failed(error.into()))
    }

    /// A link, which leads wherever it leads: nothing here follows it.
    pub(super) fn link(&self, shared: &Path, to: &[u8]) -> Result<(), CopyError> {
        if to.is_empty() || to.len() > MAXIMUM_PATH_BYTES || to.contains(&0) {
            return Err(CopyError::Link);
        }
        let root = self.shared(shared)?;
        self.put(&root, |parent, partial| {
            symlinkat(OsStr::from_bytes(to), parent, partial)?;
            let (user, group) = self.owner;
            chownat(parent, partial, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    /// A file without a name, on the file system of its place.
    pub(super) fn nameless(&self, shared: &Path) -> Result<OwnedFd, CopyError> {
        let root = self.shared(shared)?;
        let parent = self.place.parent().unwrap_or(Path::new(""));
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        root.at(parent, flags, Mode::RUSR | Mode::WUSR).map_err(CopyError::io("make the file"))
    }

    /// The complete file gets its owner, its mode and its name.
    pub(super) fn file(&self, shared: &Path, file: &OwnedFd) -> Result<(), CopyError> {
        self.give(file).map_err(CopyError::io("give the file"))?;
        let root = self.shared(shared)?;
        self.put(&root, |parent, partial| {
            linkat(CWD, by_number(file), parent, partial, AtFlags::SYMLINK_FOLLOW)
        })
    }

    /// Owner first: who gives a file away loses its special modes.
    fn give(&self, file: &OwnedFd) -> Result<(), rustix::io::Errno> {
        let (user, group) = self.owner;
        fchown(file, Some(user), Some(group))?;
        fchmod(file, self.mode)
    }

    /// Makes it under a name of its own beside its place, and puts it there in place of whatever is.
    fn put(
        &self,
        root: &Beneath,
        make: impl FnOnce(&OwnedFd, &Path) -> Result<(), rustix::io::Errno>,
    ) -> Result<(), CopyError> {
        let failed = |error: std::io::Error| CopyError::io("put the file in its place")(error);
        let (parent, name) = root.parent(&self.place).map_err(failed)?;
        let partial = partial_name().map_err(failed)?;
        let put = || -> std::io::Result<()> {
            make(&parent, &partial)?;
            let found = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).ok();
            if found.is_some_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory) {
                root.remove_all(&self.place)?;
            }
            Ok(renameat(&parent, &partial, &parent, name)?)
        };
        let result = put();
        if result.is_err() {
            let _ = unlinkat(&parent, &partial, AtFlags::empty());
        }
        result.map_err(failed)
    }
}

fn partial_name() -> std::io::Result<PathBuf> {
    let mut random = [0; RANDOM_BYTES];
    crate::dm::random_bytes(&mut random)?;
    let digits = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(PathBuf::from(format!("{PARTIAL}{digits}")))
}

/// The size of a file.
pub(super) fn size(file: &OwnedFd) -> Result<u64, CopyError> {
    let found = fstat(file).map_err(CopyError::io("look at the file"))?;
    Ok(u64::try_from(found.st_size).unwrap_or(0))
}
