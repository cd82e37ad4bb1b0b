//! Objects in their directory: what the kernel, or a reader, says of them.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use protected_memory::file_verity::{enable, measure};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{BUSY_ATTEMPTS, BUSY_PAUSE, system};
use crate::composefs::{ComposefsError, verity};
use crate::image::tree::{Content, InodeId, Kind, ObjectId, Tree};

/// Turns fs-verity on for a file, and holds what the kernel says of it against its name.
pub(super) fn seal(file: &OwnedFd, expected: ObjectId, what: &'static str) -> Result<(), ComposefsError> {
    let mut attempts = 1;
    loop {
        match enable(file) {
            Ok(()) | Err(Errno::EXIST) => return hold(file, expected, what),
            Err(Errno::TXTBSY) if attempts < BUSY_ATTEMPTS => {
                attempts += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            Err(Errno::OPNOTSUPP | Errno::NOTTY) => return Err(without_verity()),
            Err(error) => {
                return Err(ComposefsError::system("turn fs-verity on for", hex::encode(expected.0))(error));
            }
        }
    }
}

/// Whether the kernel holds reads of this file against this digest.
pub(super) fn hold(file: &OwnedFd, expected: ObjectId, what: &'static str) -> Result<(), ComposefsError> {
    let measured = measure(file).map_err(ComposefsError::system("measure", hex::encode(expected.0)))?;
    let found = measured.ok_or_else(without_verity)?;
    // GUARD: composefs-measured -> trees_are_what_their_digests_say
    if found.algorithm != u16::from(verity::SHA256) || found.digest != expected.0 {
        return Err(ComposefsError::Mismatch {
            what,
            expected: hex::encode(expected.0),
            found: hex::encode(found.digest),
        });
    }
    Ok(())
}

fn without_verity() -> ComposefsError {
    ComposefsError::Store {
        expected: "a file system with fs-verity, or memory of the guest's own",
        found: "neither".into(),
    }
}

/// Holds each object of a tree against its name and the length that the tree states. Whoever made tree and objects is not believed.
pub(crate) fn check_all(objects: &OwnedFd, tree: &Tree) -> Result<(), ComposefsError> {
    for (id, size) in objects_of(tree) {
        let object = open_object(objects, id)?;
        let found = rustix::fs::fstat(&object)
            .map_err(ComposefsError::system("look at the object", object_path(id)))?
            .st_size;
        // First: what is longer is not read. A tree of a child has objects without end where holes are.
        // GUARD: composefs-object-size -> evil_objects_of_a_child
        if u64::try_from(found) != Ok(size) {
            return Err(ComposefsError::Length { id: hex::encode(id.0), expected: size, found });
        }
        // GUARD: composefs-object-digest -> evil_objects_of_a_child
        compare(&object, id, "object")?;
    }
    Ok(())
}

/// Hashes a file and holds it against its name.
pub(super) fn compare(file: &OwnedFd, expected: ObjectId, what: &'static str) -> Result<(), ComposefsError> {
    let found = system::hash(file).map_err(ComposefsError::system("read", hex::encode(expected.0)))?;
    if found != expected {
        return Err(ComposefsError::Mismatch {
            what,
            expected: hex::encode(expected.0),
            found: hex::encode(found.0),
        });
    }
    Ok(())
}

/// `xx/yyyy…`.
pub(super) fn object_path(id: ObjectId) -> String {
    let digits = hex::encode(id.0);
    let (directory, name) = digits.split_at_checked(2).unwrap_or_default();
    format!("{directory}/{name}")
}

pub(super) fn open_object(objects: &OwnedFd, id: ObjectId) -> Result<OwnedFd, ComposefsError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let path = object_path(id);
    rustix::fs::openat2(objects, &path, flags, Mode::empty(), resolve)
        .map_err(ComposefsError::system("open the object", path))
}

/// The objects of a tree, each once for each length that is stated.
pub(super) fn objects_of(tree: &Tree) -> BTreeSet<(ObjectId, u64)> {
    let mut objects = BTreeSet::new();
    let mut directories: Vec<InodeId> = vec![Tree::ROOT];
    while let Some(directory) = directories.pop() {
        for id in tree.entries(directory).into_iter().flatten().map(|(_, id)| *id) {
            match tree.get(id).map(|inode| &inode.kind) {
                Some(Kind::Directory(_)) => directories.push(id),
                Some(Kind::Regular(Content::Object { id, size })) => {
                    objects.insert((*id, *size));
                }
                _ => (),
            }
        }
    }
    objects
}
