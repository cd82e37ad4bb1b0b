//! Whether a mount does what it is for: one object is found in the metadata, read through the overlay and hashed.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::system;
use crate::composefs::{ComposefsError, verity};

/// Longest object that is read as a whole, in bytes. A longer one is taken if there is no other, and its first blocks read.
const WHOLE_MAX: i64 = 4 << 20;
/// Bytes of a path that are followed.
const PATH_MAX: usize = 4000;
/// What an overlay reads of a file that is an object (`struct ovl_metacopy`).
const METACOPY: &str = "trusted.overlay.metacopy";
const METACOPY_HEAD: [u8; 4] = [0, 36, 0, verity::SHA256];

/// A file that is an object.
struct Found {
    path: Vec<u8>,
    digest: [u8; 32],
    size: i64,
}

/// Reads one object of the tree whose metadata is here, through the overlay. Whether there was one.
pub(super) fn probe(metadata: BorrowedFd<'_>, overlay: BorrowedFd<'_>) -> Result<bool, ComposefsError> {
    let Some(found) = find(metadata).map_err(ComposefsError::system("read the metadata of", "an image"))?
    else {
        return Ok(false);
    };
    let unread = |error: &std::io::Error| ComposefsError::Mounted {
        expected: "an object that can be read and is verified",
        found: error.to_string(),
    };
    let file = open(overlay, &found.path, OFlags::empty()).map_err(|error| unread(&error.into()))?;
    if found.size > WHOLE_MAX {
        let mut first = [0; verity::BLOCK];
        return File::from(file).read_exact(&mut first).map(|()| true).map_err(|error| unread(&error));
    }
    let digest = system::hash(&file).map_err(|error| unread(&error))?;
    // Whoever verifies the reads, this does not rely on it.
    if digest.0 != found.digest {
        return Err(ComposefsError::Mounted {
            expected: "an object with the digest that the image states",
            found: hex::encode(digest.0),
        });
    }
    Ok(true)
}

/// The first object up to [`WHOLE_MAX`], or any.
fn find(metadata: BorrowedFd<'_>) -> Result<Option<Found>, Errno> {
    let mut long = None;
    let mut directories = vec![Vec::new()];
    while let Some(directory) = directories.pop() {
        let open_directory = open(metadata, &directory, OFlags::DIRECTORY)?;
        for entry in Dir::new(open_directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let path = [directory.as_slice(), name].join(&b'/');
            if matches!(name, b"." | b"..") || path.len() > PATH_MAX {
                continue;
            }
            match entry.file_type() {
                FileType::Directory => directories.push(path),
                FileType::RegularFile => match object(metadata, path)? {
                    Some(found) if found.size <= WHOLE_MAX => return Ok(Some(found)),
                    Some(found) => long = Some(found),
                    None => (),
                },
                _ => (),
            }
        }
    }
    Ok(long)
}

fn object(metadata: BorrowedFd<'_>, path: Vec<u8>) -> Result<Option<Found>, Errno> {
    let file = open(metadata, &path, OFlags::empty())?;
    let mut value = [0; 36];
    match rustix::fs::fgetxattr(&file, METACOPY, &mut value) {
        Ok(_) => (),
        Err(Errno::NODATA) => return Ok(None),
        Err(error) => return Err(error),
    }
    let size = rustix::fs::fstat(&file)?.st_size;
    match value.split_first_chunk() {
        Some((&METACOPY_HEAD, digest)) => {
            Ok(digest.try_into().ok().map(|digest| Found { path, digest, size }))
        }
        _ => Err(Errno::INVAL),
    }
}

/// A file below a directory of ours; paths begin with a slash, the empty one is the directory.
fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let below = path.strip_prefix(b"/").unwrap_or(b".");
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(root, below, flags, Mode::empty())
}
