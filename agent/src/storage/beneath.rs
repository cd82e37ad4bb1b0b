//! Files and directories beneath a directory of ours: no link leads out, nor does any other name.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2, unlinkat};
use rustix::io::Errno;

/// Beneath the directory, through no link of any kind.
const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
/// Whoever renames directories meanwhile makes the kernel ask for another try.
const ATTEMPTS: usize = 64;
/// Of a path that is made or opened.
pub(crate) const MAXIMUM_DEPTH: usize = 128;

/// A directory from which everything else is reached.
#[derive(Debug)]
pub(crate) struct Beneath {
    root: OwnedFd,
    resolve: ResolveFlags,
}

impl Beneath {
    /// Opens the directory itself, whose path is ours.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        Ok(Self::of(root))
    }

    /// The directory that is open.
    pub(crate) fn of(root: OwnedFd) -> Self {
        Self { root, resolve: RESOLVE }
    }

    /// From now on nothing that is mounted below is entered.
    pub(crate) fn without_mounts(mut self) -> Self {
        self.resolve |= ResolveFlags::NO_XDEV;
        self
    }

    /// Opens what is at a relative path; an empty one is the directory.
    pub(crate) fn at(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        self.from(self.root.as_fd(), path, flags, mode)
    }

    fn from(&self, directory: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        if path.components().count() > MAXIMUM_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        for _ in 0..ATTEMPTS {
            match openat2(directory, path, flags | OFlags::CLOEXEC, mode, self.resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Ok(file) => return Ok(file),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// A directory, to make names in.
    pub(crate) fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.at(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
    }

    /// A directory, to list.
    pub(crate) fn list(&self, path: &Path) -> io::Result<OwnedFd> {
        self.at(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    /// Whatever is there, a link excepted: as a place, not to read.
    pub(crate) fn place(&self, path: &Path) -> io::Result<OwnedFd> {
        self.at(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
    }

    /// The directory in which the last name of a path is, and that name.
    pub(crate) fn parent<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, &'p Path)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::INVAL.into());
        };
        Ok((self.directory(parent)?, Path::new(name)))
    }

    /// Makes what is missing of a directory's path, with this mode whatever the umask is. Paths of those that were made are added to
    /// `made`, also if it fails.
    pub(crate) fn make_directories(
        &self,
        path: &Path,
        mode: Mode,
        made: &mut Vec<PathBuf>,
    ) -> io::Result<OwnedFd> {
        if path.components().count() > MAXIMUM_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let mut here = self.directory(Path::new(""))?;
        let mut walked = PathBuf::new();
        for name in path {
            walked.push(name);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let next = match self.from(here.as_fd(), Path::new(name), flags, Mode::empty()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match mkdirat(&here, name, mode) {
                        Ok(()) => made.push(walked.clone()),
                        // Somebody was faster: it is theirs.
                        Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    let next = self.from(here.as_fd(), Path::new(name), flags, Mode::empty())?;
                    if made.last() == Some(&walked) {
                        rustix::fs::fchmod(&next, mode)?;
                    }
                    next
                }
                other => other?,
            };
            here = next;
        }
        Ok(here)
    }

    /// Removes a directory if it is there and empty; a full one stays.
    pub(crate) fn remove_empty(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = match self.parent(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes whatever is at a path, with all below it; nothing there is fine. What is mounted somewhere below stays, and is an error.
    pub(crate) fn remove_all(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = match self.parent(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        self.remove_in(parent.as_fd(), name, MAXIMUM_DEPTH)
    }

    fn remove_in(&self, parent: BorrowedFd<'_>, name: &Path, depth: usize) -> io::Result<()> {
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(depth) = depth.checked_sub(1) else { return Err(Errno::NAMETOOLONG.into()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let directory = match self.from(parent, name, flags, Mode::empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries(&directory)? {
            self.remove_in(directory.as_fd(), &entry, depth)?;
        }
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Names in a directory that is open for reading, those of itself and its parent excepted.
pub(crate) fn entries(directory: &OwnedFd) -> io::Result<Vec<PathBuf>> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push(PathBuf::from(OsStr::from_bytes(name)));
        }
    }
    Ok(found)
}

/// A path of this process for an open file, for interfaces that take nothing else.
pub(crate) fn by_number(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
