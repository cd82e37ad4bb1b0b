//! Giving a complete landing a path.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, readlink, readlinkat, statx,
};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

use super::LandingError;
use super::mount_table::MountEntry;

/// How often a resolution that raced with a rename or mount elsewhere is tried again.
const RACE_RETRIES: usize = 128;

/// Where to attach: an existing directory that is reached without symbolic links.
#[derive(Clone, Copy, Debug)]
pub struct AttachTarget<'a> {
    root: Option<BorrowedFd<'a>>,
    path: &'a Path,
    proc: Option<BorrowedFd<'a>>,
}

impl<'a> AttachTarget<'a> {
    /// A path of this process.
    pub fn path(path: &'a Path) -> Self {
        Self { root: None, path, proc: None }
    }

    /// A path inside a root directory, for example a container's: `..` and absolute paths stay inside.
    pub fn in_root(root: BorrowedFd<'a>, path: &'a Path) -> Self {
        Self { root: Some(root), path, proc: None }
    }

    /// The proc file system to look at the result with, opened by whoever trusts it: in another mount namespace `/proc` is somebody
    /// else's, or nothing.
    #[must_use]
    pub fn with_proc(self, proc: BorrowedFd<'a>) -> Self {
        Self { proc: Some(proc), ..self }
    }

    fn read_proc(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.proc {
            None => std::fs::File::open(format!("/proc/{name}"))?,
            Some(proc) => openat(proc, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into(),
        }
        .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn path_of(&self, directory: BorrowedFd<'_>) -> io::Result<PathBuf> {
        let name = format!("self/fd/{}", directory.as_raw_fd());
        let path = match self.proc {
            None => readlink(format!("/proc/{name}"), Vec::new())?,
            Some(proc) => readlinkat(proc, name, Vec::new())?,
        };
        Ok(OsString::from_vec(path.into_bytes()).into())
    }

    fn open(&self) -> Result<OwnedFd, LandingError> {
        let mut resolve = ResolveFlags::empty();
        // GUARD: attach-no-symlinks -> evil_symlink_in_attach_target_is_refused
        resolve |= ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        if self.root.is_some() {
            // GUARD: attach-in-root -> evil_attach_target_outside_root_is_refused
            resolve |= ResolveFlags::IN_ROOT;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || openat2(self.root.unwrap_or(CWD), self.path, flags, Mode::empty(), resolve);
        let mut opened = open();
        // The kernel answers so when anything anywhere was renamed or mounted while it resolved a `..` below the root.
        for _ in 0..RACE_RETRIES {
            if !matches!(opened, Err(Errno::AGAIN)) {
                break;
            }
            opened = open();
        }
        opened.map_err(|source| LandingError::TargetRefused { path: self.path.into(), source: source.into() })
    }
}

/// A read-only mount of a complete landing that has no path yet.
#[derive(Debug)]
#[must_use]
pub struct DetachedMount {
    mount: OwnedFd,
}

impl DetachedMount {
    pub(crate) fn new(mount: OwnedFd) -> Self {
        Self { mount }
    }

    /// Attaches the mount at a directory of this thread's mount namespace and verifies the result in the mount table.
    ///
    /// # Errors
    ///
    /// The target is missing or has a symbolic link in its path, or another mount is found there afterwards.
    pub fn attach(self, target: AttachTarget<'_>) -> Result<Attachment, LandingError> {
        Attachment::new(self.mount, target)
    }
}

/// A mount that was attached and verified.
///
/// Dropping it leaves the mount where it is: it then ends with its mount namespace. [`Attachment::detach`] ends it
/// earlier.
#[derive(Debug)]
#[must_use]
pub struct Attachment {
    mount: OwnedFd,
    id: u64,
    path: PathBuf,
    /// In a mount namespace whose `/proc` is not ours.
    foreign: bool,
}

impl Attachment {
    /// Attaches a detached mount and looks at the result.
    fn new(mount: OwnedFd, target: AttachTarget<'_>) -> Result<Self, LandingError> {
        let failed = |source: Errno| LandingError::Mount { step: "attach", source: source.into() };
        let directory = target.open()?;
        let path = target
            .path_of(directory.as_fd())
            .map_err(LandingError::system("reading of the attach target's path"))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&mount, "", &directory, "", flags).map_err(failed)?;
        let id = mount_id(mount.as_fd())?;
        let foreign = target.proc.is_some();
        let attachment = Self { mount, id, path, foreign };
        match attachment.verify(target) {
            Ok(()) => Ok(attachment),
            Err(error) => {
                attachment.detach()?;
                Err(error)
            }
        }
    }

    /// The mount table must show our mount, and the target must lead to it.
    pub(super) fn verify(&self, target: AttachTarget<'_>) -> Result<(), LandingError> {
        let table =
            target.read_proc("thread-self/mountinfo").map_err(LandingError::system("read of mountinfo"))?;
        let refuse = |expected, found: String| {
            Err(LandingError::AttachNotOurs { path: self.path.clone(), expected, found })
        };
        let Some(entry) = MountEntry::find(&table, self.id) else {
            return refuse("an entry in the mount table", "none".to_owned());
        };
        entry.verify_landing(&self.path)?;
        let seen = mount_id(target.open()?.as_fd())?;
        // GUARD: attach-on-top -> evil_mount_over_the_target_is_noticed
        if seen != self.id {
            return refuse("our mount on top of the target", format!("mount {seen}"));
        }
        Ok(())
    }

    /// The directory that the landing's files are in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kernel's id of the mount, as in `mountinfo`.
    pub fn mount_id(&self) -> u64 {
        self.id
    }

    /// Takes the mount away. Descriptors and mappings that a reader has go on working. In a mount namespace that was entered, whatever is on
    /// top at the path goes: nobody else may be at work there.
    ///
    /// # Errors
    ///
    /// The mount is in another mount namespace, or the kernel refuses.
    pub fn detach(self) -> Result<(), LandingError> {
        let flags = UnmountFlags::DETACH;
        let gone = if self.foreign {
            unmount(&self.path, flags | UnmountFlags::NOFOLLOW)
        } else {
            unmount(format!("/proc/self/fd/{}", self.mount.as_raw_fd()), flags)
        };
        gone.map_err(LandingError::mount("detach"))
    }
}

fn mount_id(file: BorrowedFd<'_>) -> Result<u64, LandingError> {
    let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .map_err(LandingError::system("reading of the mount id"))?;
    Ok(stat.stx_mnt_id)
}
