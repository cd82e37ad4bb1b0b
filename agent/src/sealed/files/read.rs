//! What the host mounts into a container, read once: files that are sealed, and what lies beside them.
//!
//! Links are followed as far as they stay below what is mounted: kubelet keeps a volume's files behind `..data`. What is read is the host's word; a
//! sealed text is judged by whoever opens it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use cdh::sealed_secret::MAXIMUM_SEALED_BYTES;
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;

use super::{FilesError, SEALED};

/// Most entries of a mount with sealed files. Of a directory with more than that not all are looked at: no volume of secrets has so many.
pub(super) const MAXIMUM_ENTRIES: usize = 1024;
/// Longest file beside a sealed one: that of a volume of Kubernetes.
pub(super) const MAXIMUM_PLAIN_BYTES: usize = 1 << 20;
/// All of them.
pub(super) const MAXIMUM_PLAIN_SUM: usize = 8 << 20;
/// How deep directories lie.
const MAXIMUM_DEPTH: usize = 4;
/// Whoever renames directories meanwhile makes the kernel ask for another try.
const ATTEMPTS: usize = 64;
/// Kubelet's own names in a volume.
const OWN_NAMES: &[u8] = b"..";

/// One file or directory of a mount.
#[derive(Debug)]
pub(super) struct Entry {
    /// Below the mount; empty is what is mounted itself.
    pub(super) path: PathBuf,
    /// Permission bits, owner and group.
    pub(super) owner: (u32, u32, u32),
    /// What it is.
    pub(super) what: What,
}

/// What an entry is.
#[derive(Debug)]
pub(super) enum What {
    /// A directory.
    Directory,
    /// A file as it is.
    Plain(Vec<u8>),
    /// A sealed text.
    Sealed(Vec<u8>),
}

/// What is mounted from `source`, below `shared`, if there is a sealed file in it, in the directory itself or as the file: upstream looks no
/// deeper. What leads out of `shared` is not looked at: whether it may be mounted is for others to say.
pub(super) fn read(shared: &Path, source: &Path) -> Result<Option<Vec<Entry>>, FilesError> {
    let failed = |error: Errno| FilesError::read(Path::new(""), error.into());
    let Ok(below) = source.strip_prefix(shared) else { return Ok(None) };
    // As the floor reads paths.
    if !below.components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(None);
    }
    let Ok(top) = openat(CWD, shared, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else { return Ok(None) };
    let Ok(root) = resolve(top.as_fd(), below, OFlags::PATH) else { return Ok(None) };
    let (stat, all) = (fstat(&root).map_err(failed)?, fstat(&top).map_err(failed)?);
    // GUARD: sealed-files-of-one -> evil_host_links_a_mount_with_a_sealed_file_out_of_what_is_shared
    if (stat.st_dev, stat.st_ino) == (all.st_dev, all.st_ino) {
        return Ok(None);
    }
    let mut reader = Reader { root: root.as_fd(), entries: Vec::new(), plain: 0 };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if reopen(&root).is_ok_and(|file| begins_sealed(&file)) => {
            let file = reopen(&root).map_err(failed)?;
            reader.file(Path::new(""), file, &stat)?;
        }
        FileType::Directory if reader.has_sealed() => {
            reader.directory(Path::new(""), &stat, 0)?;
        }
        _ => return Ok(None),
    }
    Ok(Some(reader.entries))
}

struct Reader<'a> {
    root: BorrowedFd<'a>,
    entries: Vec<Entry>,
    plain: usize,
}

impl Reader<'_> {
    /// Whether a file in the directory begins as sealed ones do. What cannot be read does not.
    fn has_sealed(&self) -> bool {
        let names = self.names(Path::new("")).unwrap_or_default();
        let is_file = |name: &PathBuf| {
            let found = self.look(name);
            found.is_ok_and(|(_, stat)| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
        };
        let mut files = names.iter().take(MAXIMUM_ENTRIES).filter(|name| is_file(name));
        files.any(|name| self.open(name).is_ok_and(|file| begins_sealed(&file)))
    }

    fn directory(&mut self, path: &Path, stat: &Stat, depth: usize) -> Result<(), FilesError> {
        self.push(path, stat, What::Directory)?;
        // GUARD: sealed-files-depth -> evil_host_sealed_files_without_end
        if depth > MAXIMUM_DEPTH {
            return Err(FilesError::TooMany);
        }
        for name in self.names(path)? {
            let Ok((_, stat)) = self.look(&name) else {
                // A link to nowhere, or out of the mount: nothing is there for the container either.
                continue;
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.directory(&name, &stat, depth + 1)?,
                FileType::RegularFile => {
                    let file = self.open(&name)?;
                    let stat = fstat(&file).map_err(|error| FilesError::read(&name, error.into()))?;
                    self.file(&name, file, &stat)?;
                }
                // Sockets, pipes and devices are nothing that stands beside a secret.
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, file: File, stat: &Stat) -> Result<(), FilesError> {
        let cap = MAXIMUM_PLAIN_BYTES.max(MAXIMUM_SEALED_BYTES);
        let mut bytes = Vec::new();
        let limit = u64::try_from(cap).unwrap_or(u64::MAX).saturating_add(1);
        file.take(limit).read_to_end(&mut bytes).map_err(|error| FilesError::read(path, error))?;
        let what = if bytes.starts_with(SEALED) {
            // GUARD: sealed-file-cap -> evil_host_sealed_files_without_end
            if bytes.len() > MAXIMUM_SEALED_BYTES {
                return Err(FilesError::TooMany);
            }
            What::Sealed(bytes)
        } else {
            self.plain = self.plain.saturating_add(bytes.len());
            // GUARD: sealed-plain-cap -> evil_host_sealed_files_without_end
            if bytes.len() > MAXIMUM_PLAIN_BYTES || self.plain > MAXIMUM_PLAIN_SUM {
                return Err(FilesError::TooMany);
            }
            What::Plain(bytes)
        };
        self.push(path, stat, what)
    }

    fn push(&mut self, path: &Path, stat: &Stat, what: What) -> Result<(), FilesError> {
        // GUARD: sealed-files-count -> evil_host_sealed_files_without_end
        if self.entries.len() > MAXIMUM_ENTRIES {
            return Err(FilesError::TooMany);
        }
        let owner = (stat.st_mode & 0o777, stat.st_uid, stat.st_gid);
        self.entries.push(Entry { path: path.to_owned(), owner, what });
        Ok(())
    }

    /// Paths of what a directory has, kubelet's own names excepted, in order.
    fn names(&self, path: &Path) -> Result<Vec<PathBuf>, FilesError> {
        let failed = |error: Errno| FilesError::read(path, error.into());
        let directory = self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name.starts_with(OWN_NAMES) {
                continue;
            }
            // One more than there may be is enough to be refused.
            if names.len() > MAXIMUM_ENTRIES {
                break;
            }
            names.push(path.join(OsStr::from_bytes(name)));
        }
        names.sort();
        Ok(names)
    }

    /// What is at a path, as a place: nothing is opened that answers, like a device.
    fn look(&self, path: &Path) -> Result<(OwnedFd, Stat), FilesError> {
        let failed = |error: Errno| FilesError::read(path, error.into());
        let place = self.resolve(path, OFlags::PATH).map_err(failed)?;
        let stat = fstat(&place).map_err(failed)?;
        Ok((place, stat))
    }

    /// A regular file, to read.
    fn open(&self, path: &Path) -> Result<File, FilesError> {
        let failed = |error: Errno| FilesError::read(path, error.into());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.resolve(path, flags).map_err(failed)?;
        let stat = fstat(&file).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(failed(Errno::INVAL));
        }
        Ok(File::from(file))
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        resolve(self.root, path, flags)
    }
}

/// Opens what is at a path below a directory, through links that stay below it.
fn resolve(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mut resolve = ResolveFlags::NO_MAGICLINKS;
    // GUARD: sealed-files-beneath -> evil_host_links_a_sealed_file_out_of_its_mount
    resolve |= ResolveFlags::BENEATH;
    for _ in 0..ATTEMPTS {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// A file that is held as a place, to read.
fn reopen(place: &OwnedFd) -> Result<File, Errno> {
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map(File::from)
}

fn begins_sealed(file: &File) -> bool {
    let mut start = Vec::with_capacity(SEALED.len());
    let limit = u64::try_from(SEALED.len()).unwrap_or(0);
    file.take(limit).read_to_end(&mut start).is_ok_and(|_| start == SEALED)
}
