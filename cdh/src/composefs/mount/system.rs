//! What mounts need of the system.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::composefs::ComposefsError;
use crate::composefs::verity::Hasher;
use crate::image::tree::ObjectId;

/// What is read at once.
const BUFFER: usize = 1 << 16;

/// A file system that is being configured. An option that the kernel does not take is an error.
pub(super) struct Context {
    kind: &'static str,
    context: OwnedFd,
}

impl Context {
    pub(super) fn new(kind: &'static str) -> Result<Self, ComposefsError> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(Self::failed(kind, kind))?;
        Ok(Self { kind, context })
    }

    pub(super) fn flag(self, key: &'static str) -> Result<Self, ComposefsError> {
        fsconfig_set_flag(&self.context, key).map_err(Self::failed(self.kind, key))?;
        Ok(self)
    }

    pub(super) fn string(self, key: &'static str, value: &str) -> Result<Self, ComposefsError> {
        fsconfig_set_string(&self.context, key, value).map_err(Self::failed(self.kind, key))?;
        Ok(self)
    }

    pub(super) fn descriptor(self, key: &'static str, value: BorrowedFd<'_>) -> Result<Self, ComposefsError> {
        fsconfig_set_fd(&self.context, key, value).map_err(Self::failed(self.kind, key))?;
        Ok(self)
    }

    /// The mount, at no path.
    pub(super) fn mount(self, attributes: MountAttrFlags) -> Result<OwnedFd, ComposefsError> {
        fsconfig_create(&self.context).map_err(Self::failed(self.kind, "create"))?;
        fsmount(&self.context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(Self::failed(self.kind, "mount"))
    }

    fn failed(kind: &'static str, step: &'static str) -> impl FnOnce(Errno) -> ComposefsError {
        ComposefsError::system("mount a file system:", format!("{kind}: {step}"))
    }
}

/// The same file again, for reading only.
pub(super) fn open_read_only(file: &OwnedFd) -> Result<OwnedFd, ComposefsError> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(ComposefsError::system("open an image", path))
}

/// Puts a file at a path of two parts below a directory, as a whole or not at all.
pub(super) fn publish(directory: &OwnedFd, path: &str, bytes: &[u8]) -> Result<(), ComposefsError> {
    let failed = || ComposefsError::system("write an image", path);
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, ".", flags, Mode::from_raw_mode(0o644)).map_err(failed())?;
    let mut file = File::from(file);
    file.write_all(bytes).map_err(ComposefsError::system("write an image", path))?;
    let (shard, _) = path.split_once('/').unwrap_or_default();
    match rustix::fs::mkdirat(directory, shard, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => (),
        Err(error) => return Err(ComposefsError::system("make the directory", shard)(error)),
    }
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, open, directory, path, AtFlags::SYMLINK_FOLLOW).map_err(failed())
}

/// The fs-verity digest of a file, read from its start.
pub(super) fn hash(file: impl AsFd) -> std::io::Result<ObjectId> {
    let mut file = File::from(file.as_fd().try_clone_to_owned()?);
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}
