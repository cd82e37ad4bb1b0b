//! Files of a volume are given to a group, as kubelet does it: the group may read and write, directories hand their group on.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, chmodat, chownat, fchmod, fstat, openat2,
    statat,
};
use rustix::io::Errno;

use super::StorageError;
use super::beneath::{MAXIMUM_DEPTH, entries};
use super::request::Group;

/// Files of a volume that are gone through; one with more is refused, so that nobody waits without end.
const MAXIMUM_FILES: u64 = 1 << 20;
const READ_WRITE: u32 = 0o060;
const DIRECTORY: u32 = 0o2070;

/// Goes through a mount that nobody sees yet.
pub(super) fn apply(root: BorrowedFd<'_>, group: Group) -> Result<(), StorageError> {
    let failed = |error: std::io::Error| StorageError::io("give to a group", Path::new("volume"))(error);
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory =
        openat2(root, ".", flags, Mode::empty(), resolve).map_err(|error| failed(error.into()))?;
    let found = fstat(&directory).map_err(|error| failed(error.into()))?;
    if group.only_on_mismatch && is_right(&found, group.id) {
        return Ok(());
    }
    let mut left = MAXIMUM_FILES;
    // The root last: who looks at it alone sees that everything else is done.
    walk(&directory, group.id, MAXIMUM_DEPTH, &mut left).map_err(failed)?;
    give_directory(&directory, &found, group.id).map_err(|error| failed(error.into()))
}

fn is_right(found: &Stat, group: u32) -> bool {
    found.st_gid == group && found.st_mode & DIRECTORY == DIRECTORY
}

fn give_directory(directory: &OwnedFd, found: &Stat, group: u32) -> Result<(), Errno> {
    rustix::fs::fchown(directory, None, Some(Gid::from_raw(group)))?;
    fchmod(directory, Mode::from_raw_mode(found.st_mode & 0o7777 | DIRECTORY))
}

fn walk(directory: &OwnedFd, group: u32, depth: usize, left: &mut u64) -> std::io::Result<()> {
    let Some(depth) = depth.checked_sub(1) else { return Err(Errno::NAMETOOLONG.into()) };
    for name in entries(directory)? {
        *left = left.checked_sub(1).ok_or(Errno::TOOBIG)?;
        let found = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
                let below = openat2(directory.as_fd(), &name, flags, Mode::empty(), resolve)?;
                walk(&below, group, depth, left)?;
                give_directory(&below, &found, group)?;
            }
            FileType::Symlink => {
                chownat(directory, &name, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            _ => {
                chownat(directory, &name, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)?;
                let mode = Mode::from_raw_mode(found.st_mode & 0o7777 | READ_WRITE);
                chmodat(directory, &name, mode, AtFlags::empty())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn files_and_directories_are_the_groups() {
        let room = tempfile::tempdir().unwrap();
        let at = |name: &str| room.path().join(name);
        fs::create_dir_all(at("volume/a/b")).unwrap();
        fs::write(at("volume/a/b/file"), "x").unwrap();
        fs::set_permissions(at("volume/a/b/file"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(at("outside"), "x").unwrap();
        fs::set_permissions(at("outside"), fs::Permissions::from_mode(0o600)).unwrap();
        symlink(at("outside"), at("volume/link")).unwrap();
        let root = fs::File::open(at("volume")).unwrap();
        let group = Group { id: 4321, only_on_mismatch: true };
        apply(root.as_fd(), group).unwrap();
        let of = |name: &str| {
            let found = fs::symlink_metadata(at(name)).unwrap();
            (found.gid(), found.mode() & 0o7777)
        };
        assert_eq!(of("volume/a/b/file"), (4321, 0o660));
        assert_eq!((of("volume").0, of("volume").1 & 0o2070), (4321, 0o2070));
        assert_eq!((of("volume/a/b").0, of("volume/a/b").1 & 0o2070), (4321, 0o2070));
        assert_eq!(of("volume/link").0, 4321);
        assert_eq!(
            of("outside"),
            (fs::metadata(room.path()).unwrap().gid(), 0o600),
            "links are not followed"
        );
        // The root has the group: nothing below is looked at.
        fs::write(at("volume/late"), "x").unwrap();
        fs::set_permissions(at("volume/late"), fs::Permissions::from_mode(0o600)).unwrap();
        apply(root.as_fd(), group).unwrap();
        assert_eq!(of("volume/late").1, 0o600);
        apply(root.as_fd(), Group { only_on_mismatch: false, ..group }).unwrap();
        assert_eq!(of("volume/late"), (4321, 0o660));
    }
}
