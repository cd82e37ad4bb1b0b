//! Where a volume is mounted, or linked: a directory that is empty, reached through no link, and nobody else's.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, StatxFlags, openat2, readlinkat, statx, symlinkat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use super::VolumeError;

const MAXIMUM_PATH_BYTES: usize = 4095;
/// What is the kernel's, or the hub's own.
const TAKEN: [&str; 6] = ["/proc", "/sys", "/dev", "/boot", "/run/confidential-containers", "/run/innerkeep"];

/// Takes a mount point of the wire.
pub(super) fn parse(text: &str) -> Result<PathBuf, VolumeError> {
    let refuse = |expected| VolumeError::Place { expected };
    if text.len() > MAXIMUM_PATH_BYTES || text.contains('\0') {
        return Err(refuse("at most 4095 bytes without NUL"));
    }
    let path = Path::new(text);
    let mut parts = path.components();
    let plain = parts.next() == Some(Component::RootDir)
        && parts.clone().next().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)));
    let path: PathBuf = path.components().collect();
    // GUARD: volume-place -> evil_peer_mounts_over_the_guest
    if !plain || TAKEN.iter().any(|taken| path.starts_with(taken)) {
        return Err(refuse(
            "an absolute path without '..', outside of /proc, /sys, /dev, /boot and the guest's own",
        ));
    }
    Ok(path)
}

fn no_links() -> ResolveFlags {
    ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

fn directory(path: &Path) -> Result<OwnedFd, VolumeError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), no_links()).map_err(VolumeError::io("open the directory", path))
}

/// A directory that is there, with nothing in it.
pub(super) fn empty_directory(path: &Path) -> Result<OwnedFd, VolumeError> {
    let opened = directory(path)?;
    let entries = || -> Result<bool, Errno> {
        for entry in Dir::read_from(&opened)? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    };
    // GUARD: volume-empty-directory -> evil_peer_hides_files_of_the_guest
    if !entries().map_err(VolumeError::io("list", path))? {
        return Err(VolumeError::Place { expected: "an empty directory" });
    }
    Ok(opened)
}

/// What was attached. It has to be taken off.
#[derive(Debug)]
pub(super) enum Attached {
    /// A mount: its place, and the kernel's number.
    Mount(PathBuf, u64),
    /// A link: where, and to what.
    Link(PathBuf, PathBuf),
}

fn mount_number(file: BorrowedFd<'_>) -> Result<u64, Errno> {
    let found = statx(file, "", AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID)?;
    Ok(found.stx_mnt_id)
}

impl Attached {
    /// Mounts the ext4 of a device.
    pub(super) fn mount(
        node: &Path,
        target: &OwnedFd,
        place: &Path,
        read_only: bool,
        no_programs: bool,
    ) -> Result<Self, VolumeError> {
        let mounted = || -> Result<u64, Errno> {
            let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(&context, "source", node.to_string_lossy().as_ref())?;
            fsconfig_set_string(&context, "errors", "remount-ro")?;
            if read_only {
                fsconfig_set_flag(&context, "ro")?;
            }
            fsconfig_create(&context)?;
            let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NOATIME;
            attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, read_only);
            attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, no_programs);
            let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
            let number = mount_number(mount.as_fd())?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(&mount, "", target, "", flags)?;
            Ok(number)
        };
        let number = mounted().map_err(VolumeError::io("mount on", place))?;
        Ok(Self::Mount(place.to_owned(), number))
    }

    /// Links a place to a device. Nothing may be there.
    pub(super) fn link(to: &Path, place: &Path) -> Result<Self, VolumeError> {
        let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else {
            return Err(VolumeError::Place { expected: "a name in a directory" });
        };
        symlinkat(to, directory(parent)?, name).map_err(VolumeError::io("link", place))?;
        Ok(Self::Link(place.to_owned(), to.to_owned()))
    }

    /// Takes it off, if it is still ours and nobody uses it.
    pub(super) fn take_off(&self) -> Result<(), VolumeError> {
        let (Self::Mount(place, _) | Self::Link(place, _)) = self;
        let another = || VolumeError::io("take off", place)(std::io::Error::other("another one is there"));
        match self {
            Self::Mount(place, number) => {
                let found =
                    mount_number(directory(place)?.as_fd()).map_err(VolumeError::io("look at", place))?;
                if found != *number {
                    return Err(another());
                }
                unmount(place, UnmountFlags::NOFOLLOW).map_err(VolumeError::io("unmount", place))
            }
            Self::Link(place, to) => {
                let (parent, name) = (place.parent().unwrap_or(place), place.file_name().unwrap_or_default());
                let parent = directory(parent)?;
                let found =
                    readlinkat(&parent, name, Vec::new()).map_err(VolumeError::io("look at", place))?;
                if found.to_bytes() != to.as_os_str().as_encoded_bytes() {
                    return Err(another());
                }
                unlinkat(&parent, name, AtFlags::empty()).map_err(VolumeError::io("remove", place))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_peer_mounts_over_the_guest() {
        for text in [
            "",
            "/",
            "//",
            "x",
            "./x",
            "/x/../y",
            "/proc",
            "/proc/self/fd",
            "/sys/kernel",
            "/dev",
            "/dev/mapper/x",
            "/run/confidential-containers/cdh",
            "/run/innerkeep",
            "/a\0b",
        ] {
            assert_eq!(parse(text).unwrap_err().code(), "VOLUME_PLACE", "{text}");
        }
        assert_eq!(parse(&"/x".repeat(2048)).unwrap_err().code(), "VOLUME_PLACE");
        for text in ["/run/kata-containers/image/", "/mnt", "/processes"] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn evil_peer_hides_files_of_the_guest() {
        let room = tempfile::tempdir().unwrap();
        let at = |name: &str| room.path().join(name);
        std::fs::create_dir(at("empty")).unwrap();
        std::fs::create_dir(at("full")).unwrap();
        std::fs::write(at("full/.hidden"), "").unwrap();
        std::os::unix::fs::symlink("empty", at("link")).unwrap();
        assert!(empty_directory(&at("empty")).is_ok());
        assert_eq!(empty_directory(&at("full")).unwrap_err().code(), "VOLUME_PLACE");
        for name in ["link", "none", "full/.hidden", "link/x"] {
            assert_eq!(empty_directory(&at(name)).unwrap_err().code(), "VOLUME_IO", "{name}");
        }
    }

    #[test]
    fn links_are_taken_off_where_they_are_ours() {
        let room = tempfile::tempdir().unwrap();
        let (place, node) = (room.path().join("device"), Path::new("/dev/dm-7"));
        let link = Attached::link(node, &place).unwrap();
        assert_eq!(Attached::link(node, &place).unwrap_err().code(), "VOLUME_IO");
        std::fs::remove_file(&place).unwrap();
        std::os::unix::fs::symlink("/dev/vda", &place).unwrap();
        assert_eq!(link.take_off().unwrap_err().code(), "VOLUME_IO");
        std::fs::remove_file(&place).unwrap();
        let link = Attached::link(node, &place).unwrap();
        link.take_off().unwrap();
        assert!(!place.is_symlink());
    }
}
