//! Mounts of verified trees.
//!
//! [`Verified`] holds an image whose digest was compared, on a descriptor that is not opened anew, and the directory of its objects. Its
//! mount is an EROFS of that descriptor, and an overlay in which each file that is an object leads there. What verifies the reads is one
//! of two, and there is no way from the first to the second:
//!
//! * **fs-verity** of the kernel, on a file system that has it: image and objects are measured by the kernel, and the overlay is
//!   mounted with `verity=require`.
//! * **memory of this process's own** ([`PrivateMemory`]): a tmpfs that is in nobody's tree, which nobody can write to any more when
//!   each object in it is hashed.
//!
//! A mount that succeeds proves nothing (a kernel without fs-verity mounts with `verity=require`, and the first `open` fails), so one
//! object is opened, read and hashed before a mount counts. Mounts have no path until [`Mounted::attach`]; dropped before, they are
//! gone, and so nothing is left of a failure.
//!
//! Needs Linux 6.15 (detached layers of overlays), `/proc`, and the rights of root of the machine.

mod memory;
mod objects;
mod probe;
mod system;

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use protected_memory::loop_device::{FileId, LoopDevice, is_shown};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount,
};

pub use self::memory::{PrivateMemory, half_of_memory};
pub(crate) use self::objects::check_all;
use self::objects::{compare, hold, object_path, objects_of, open_object, seal};
use self::system::{Context, open_read_only};
use super::pin::Pin;
use super::verity::Hasher;
use super::{ComposefsError, erofs};
use crate::image::tree::{ObjectId, Tree};

/// A descriptor in a process that forks has copies until these execute something: as often a busy file is waited for, and as long.
const BUSY_ATTEMPTS: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(2);
/// What is not for a container's root: devices are the agent's.
const ATTRIBUTES: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// What verifies reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// fs-verity, at each read.
    Kernel,
    /// Nothing has to: the memory is this process's own, and was hashed when it could not change any more.
    Memory,
}

/// An image that is what it should be, and the objects that it leads to.
#[derive(Debug)]
pub struct Verified {
    image: OwnedFd,
    objects: OwnedFd,
    reads: Reads,
    digest: ObjectId,
}

/// A verified tree, mounted read-only at no path.
#[derive(Debug)]
pub struct Mounted {
    root: OwnedFd,
    objects_read: bool,
}

/// A tree that can be changed, above a verified one that cannot. The changes are in memory of the guest and go with it.
#[derive(Debug)]
pub struct Writable {
    root: OwnedFd,
}

impl Verified {
    /// Image and objects of a store with fs-verity, from another time. The image is what is pinned, or nothing.
    ///
    /// Objects are verified when they are read: each is named in the image by its digest.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_STORE` for an image without fs-verity, `COMPOSEFS_MISMATCH` for another one, `COMPOSEFS_DIGEST` for a pin by SHA-512,
    /// by which no store of ours names objects, `COMPOSEFS_SYSTEM`.
    pub fn open(image: &OwnedFd, objects: OwnedFd, pin: &Pin) -> Result<Self, ComposefsError> {
        let Pin::Sha256(expected) = *pin else {
            return Err(ComposefsError::digest("a digest by SHA-256", &pin.to_string()));
        };
        // Whatever the descriptor was opened for: this one reads.
        let image = open_read_only(image)?;
        hold(&image, expected, "image")?;
        Ok(Self { image, objects, reads: Reads::Kernel, digest: expected })
    }

    /// Makes the image of a tree in the directory of its objects, whose file system has fs-verity, and turns that on for all of them.
    /// The image is an object too: [`Self::digest`] is its name.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_MISMATCH` for a tree that is not what is pinned or an object that is not what it is called, `COMPOSEFS_STORE` for a file
    /// system without fs-verity, `COMPOSEFS_SYSTEM` for a missing object and for the rest.
    pub fn publish(tree: &Tree, objects: OwnedFd, pin: Option<&Pin>) -> Result<Self, ComposefsError> {
        let (bytes, digest) = written(tree, pin)?;
        for (id, _) in objects_of(tree) {
            seal(&open_object(&objects, id)?, id, "object")?;
        }
        let image = match open_object(&objects, digest) {
            Ok(image) => image,
            Err(ComposefsError::System { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                system::publish(&objects, &object_path(digest), &bytes)?;
                open_object(&objects, digest)?
            }
            Err(error) => return Err(error),
        };
        seal(&image, digest, "image")?;
        Ok(Self { image, objects, reads: Reads::Kernel, digest })
    }

    /// A tree whose objects are in memory of this process's own. The image is put beside them, the memory closed for writing, and then
    /// each object hashed.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_MISMATCH` for a tree that is not what is pinned or an object that is not what it is called, `COMPOSEFS_STORE` while
    /// somebody can write, `COMPOSEFS_SYSTEM`.
    pub fn in_memory(tree: &Tree, memory: PrivateMemory, pin: Option<&Pin>) -> Result<Self, ComposefsError> {
        let (bytes, digest) = written(tree, pin)?;
        let objects = memory.directory()?;
        if let Err(Errno::NOENT) =
            rustix::fs::statat(&objects, object_path(digest), rustix::fs::AtFlags::empty())
        {
            system::publish(&objects, &object_path(digest), &bytes)?;
        }
        let objects = memory.close()?;
        // GUARD: composefs-memory-hashed -> trees_are_what_their_digests_say
        check_all(&objects, tree)?;
        let image = open_object(&objects, digest)?;
        compare(&image, digest, "image")?;
        Ok(Self { image, objects, reads: Reads::Memory, digest })
    }

    /// Bytes that the file system of its objects has in use.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_SYSTEM`.
    pub fn used(&self) -> Result<u64, ComposefsError> {
        let found = rustix::fs::fstatvfs(&self.objects)
            .map_err(ComposefsError::system("ask for the size of", "an image"))?;
        Ok(found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize))
    }

    /// By what its mounts are known: those from memory, each of which has the image as a loop device.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_SYSTEM`.
    pub fn shown(&self) -> Result<Shown, ComposefsError> {
        let file = FileId::of(&self.image).map_err(ComposefsError::system("look at", "an image"))?;
        Ok(Shown(file))
    }

    /// The image's fs-verity digest.
    #[must_use]
    pub const fn digest(&self) -> ObjectId {
        self.digest
    }

    /// Mounts it and reads one of its objects.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_MOUNTED` where an object is missing, not verified by the kernel, or not what the image says; `COMPOSEFS_SYSTEM`.
    pub fn mount(&self) -> Result<Mounted, ComposefsError> {
        let device; // Held until the file system is mounted.
        let source = match self.reads {
            Reads::Kernel => format!("/proc/self/fd/{}", self.image.as_raw_fd()),
            Reads::Memory => {
                device = LoopDevice::read_only(&self.image)
                    .map_err(ComposefsError::system("show an image as", "/dev/loop-control"))?;
                device.path().to_string_lossy().into_owned()
            }
        };
        let metadata = Context::new("erofs")?.flag("ro")?.string("source", &source)?.mount(ATTRIBUTES)?;
        let verity = match self.reads {
            Reads::Kernel => "require",
            Reads::Memory => "off",
        };
        let root = Context::new("overlay")?
            .string("source", "composefs")?
            .flag("ro")?
            .string("metacopy", "on")?
            .string("redirect_dir", "on")?
            .string("verity", verity)?
            .descriptor("lowerdir+", metadata.as_fd())?
            .descriptor("datadir+", self.objects.as_fd())?
            .mount(ATTRIBUTES)?;
        let mut mounted = Mounted { root, objects_read: false };
        // GUARD: composefs-probe -> trees_are_what_their_digests_say
        mounted.objects_read = probe::probe(metadata.as_fd(), mounted.root.as_fd())?;
        Ok(mounted)
    }
}

/// What is shown by a mount of an image in memory. It keeps nothing of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown(FileId);

impl Shown {
    /// Whether the kernel has it mounted, anywhere.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_SYSTEM`.
    pub fn is_mounted(&self) -> Result<bool, ComposefsError> {
        is_shown(self.0).map_err(ComposefsError::system("look at loop devices in", "/dev"))
    }
}

impl Mounted {
    /// The root directory.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Whether there was an object to read before the mount counted; there is none in a tree of short files.
    #[must_use]
    pub const fn objects_read(&self) -> bool {
        self.objects_read
    }

    /// The mount, for whoever gives it a path.
    #[must_use]
    pub fn into_root(self) -> OwnedFd {
        self.root
    }

    /// Gives the mount a path: an existing directory, no part of which is a symbolic link.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_SYSTEM`.
    pub fn attach(&self, path: &Path) -> Result<(), ComposefsError> {
        attach(self.root.as_fd(), path)
    }

    /// A tree above this one, with so many bytes and files of the guest's memory for what is changed. What this one's author has
    /// written into attributes for overlays leads nowhere.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_SYSTEM`.
    pub fn writable(&self, bytes: u64, files: u64) -> Result<Writable, ComposefsError> {
        layered(&[self.root.as_fd()], PrivateMemory::create(bytes, files)?)
    }
}

impl Writable {
    /// The root directory.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// As [`Mounted::into_root`].
    #[must_use]
    pub fn into_root(self) -> OwnedFd {
        self.root
    }

    /// As [`Mounted::attach`].
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_SYSTEM`.
    pub fn attach(&self, path: &Path) -> Result<(), ComposefsError> {
        attach(self.root.as_fd(), path)
    }
}

/// What may be changed of these trees on top of each other, the topmost first, in this memory. They are mounts at no path or at any; whoever
/// holds what comes out needs them no longer. What their authors have written into attributes for overlays leads nowhere.
///
/// # Errors
///
/// `COMPOSEFS_SYSTEM`, also for no tree.
pub fn layered(trees: &[BorrowedFd<'_>], memory: PrivateMemory) -> Result<Writable, ComposefsError> {
    let Some(top) = trees.first() else {
        return Err(ComposefsError::system("lay on top of each other", "no tree")(Errno::INVAL));
    };
    let above = memory.directory()?;
    let [upper, work] = ["upper", "work"].map(|name| {
        let made = rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        made.and_then(|()| rustix::fs::openat(&above, name, flags, Mode::empty()))
            .map_err(ComposefsError::system("make the directory", name))
    });
    let (upper, work) = (upper?, work?);
    // An upper directory is the root's owner and mode where nothing else is asked for.
    let root = rustix::fs::fstat(top).map_err(ComposefsError::system("look at", "the root"))?;
    let owner = (rustix::fs::Uid::from_raw(root.st_uid), rustix::fs::Gid::from_raw(root.st_gid));
    rustix::fs::chownat(&above, "upper", Some(owner.0), Some(owner.1), rustix::fs::AtFlags::empty())
        .and_then(|()| {
            let mode = Mode::from_raw_mode(root.st_mode & 0o7777);
            rustix::fs::chmodat(&above, "upper", mode, rustix::fs::AtFlags::empty())
        })
        .map_err(ComposefsError::system("own the directory", "upper"))?;
    let mut context = Context::new("overlay")?
        .string("source", "composefs")?
        .string("metacopy", "off")?
        .string("redirect_dir", "nofollow")?;
    for tree in trees {
        context = context.descriptor("lowerdir+", tree.as_fd())?;
    }
    let root = context
        .descriptor("upperdir", upper.as_fd())?
        .descriptor("workdir", work.as_fd())?
        .mount(MountAttrFlags::MOUNT_ATTR_NODEV)?;
    Ok(Writable { root })
}

/// Takes a mount's path away. What was attached there can be attached again.
///
/// # Errors
///
/// `COMPOSEFS_SYSTEM`.
pub fn detach(path: &Path) -> Result<(), ComposefsError> {
    unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .map_err(ComposefsError::system("unmount", path))
}

/// Another mount of the same, since one whose path was taken away cannot be used for anything more.
fn attach(root: BorrowedFd<'_>, path: &Path) -> Result<(), ComposefsError> {
    let clone =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .and_then(|target| {
            let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(open_tree(root, "", clone)?, "", target, "", both)
        })
        .map_err(ComposefsError::system("mount on", path))
}

/// The image of a tree, held against its pin.
fn written(tree: &Tree, pin: Option<&Pin>) -> Result<(Vec<u8>, ObjectId), ComposefsError> {
    let bytes = erofs::write(tree, &erofs::Options { format: Pin::FORMAT, ..erofs::Options::default() })?;
    if let Some(pin) = pin {
        // GUARD: composefs-tree-pinned -> trees_are_what_their_digests_say
        pin.check(&bytes)?;
    }
    let digest = Hasher::hash(&bytes);
    Ok((bytes, digest))
}
