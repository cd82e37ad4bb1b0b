//! A run of bytes of an untrusted store.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use sealed_artifact::ArtifactError;
use sealed_artifact::digest::BlobDigest;
use sealed_artifact::error::Found;
use sealed_artifact::layout::Span;
use sha2::{Digest, Sha256};

use crate::Error;

/// Bytes at an offset of an open file.
#[derive(Debug)]
pub struct Blob {
    /// The file.
    pub file: File,
    /// Its path, for messages.
    pub path: PathBuf,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// The digest that the carrier states, if it states one.
    pub stated: Option<BlobDigest>,
}

impl Blob {
    /// Reads the bytes of a segment, once.
    pub fn read(&self, span: &Span, buffer: &mut [u8]) -> Result<(), Error> {
        self.file
            .read_exact_at(buffer, self.offset.saturating_add(span.offset))
            .map_err(Error::file("read the ciphertext", &self.path))
    }

    /// SHA-256 of all bytes.
    pub fn digest(&self, mut advanced: impl FnMut(u64)) -> Result<BlobDigest, Error> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut offset = 0;
        while offset < self.length {
            let count = usize::try_from(self.length - offset).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..count).unwrap_or_default();
            self.file
                .read_exact_at(part, self.offset.saturating_add(offset))
                .map_err(Error::file("read the blob", &self.path))?;
            hash.update(&*part);
            offset += u64::try_from(count).unwrap_or(u64::MAX);
            advanced(u64::try_from(count).unwrap_or(u64::MAX));
        }
        Ok(BlobDigest::new(hash.finalize().into()))
    }

    /// Compares the digest with the one that the carrier states, where it states one.
    pub fn verify_digest(&self, advanced: impl FnMut(u64)) -> Result<(), Error> {
        let Some(stated) = self.stated else { return Ok(()) };
        let found = self.digest(advanced)?;
        // GUARD: stored-blob-digest -> evil_altered_blob_fails_digest_verification
        if found != stated {
            let expected = "a blob with the digest that its descriptor states";
            return Err(Error::Artifact(ArtifactError::CarrierCorrupt {
                expected,
                found: Found::text(&found.to_string()),
            }));
        }
        Ok(())
    }
}

/// Opens a regular file below a directory: no symbolic links, no way out, no waiting for a pipe.
pub fn open_below(directory: &File, root: &Path, path: &str, write: bool) -> Result<File, Error> {
    let shown = root.join(path);
    let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut resolve = ResolveFlags::BENEATH;
    // GUARD: store-no-symlinks -> evil_symlinked_blob_is_refused
    resolve.insert(ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS);
    let file = openat2(directory, path, flags, Mode::empty(), resolve).map_err(|error| match error {
        // What a store can do to a blob; anything else is this machine's trouble.
        Errno::NOENT | Errno::LOOP | Errno::XDEV | Errno::NOTDIR | Errno::NXIO => {
            corrupt(&shown, &error.to_string())
        }
        error => Error::file("open", &shown)(error.into()),
    })?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(Error::file("look at", &shown))?;
    // GUARD: store-regular-files -> evil_blob_that_is_no_file_is_refused
    if !metadata.is_file() {
        return Err(corrupt(&shown, "something else"));
    }
    Ok(file)
}

/// Opens a regular file below a directory that somebody else fills; its absence is an absence, not damage.
pub(super) fn open_at(directory: &File, root: &Path, path: &Path) -> Result<File, Error> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = resolve_at(directory, root, path, flags)?;
    let shown = root.join(path);
    // GUARD: below-regular-file -> evil_host_cache_of_links_and_devices
    if !file.metadata().map_err(Error::file("look at", &shown))?.is_file() {
        let found = "something else".to_owned();
        return Err(Error::Input { path: shown, expected: "a regular file", found });
    }
    Ok(file)
}

/// Opens a directory below one that somebody else fills.
pub(super) fn directory_at(directory: &File, root: &Path, path: &Path) -> Result<File, Error> {
    resolve_at(directory, root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)
}

fn resolve_at(directory: &File, root: &Path, path: &Path, flags: OFlags) -> Result<File, Error> {
    let mut resolve = ResolveFlags::BENEATH;
    // GUARD: below-no-symlinks -> evil_host_cache_of_links_and_devices
    resolve.insert(ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV);
    let file = openat2(directory, path, flags, Mode::empty(), resolve);
    Ok(file.map_err(|error| Error::file("open", root.join(path))(error.into()))?.into())
}

/// Opens a regular file that the user named.
pub fn open_named(path: &Path, write: bool) -> Result<File, Error> {
    let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|error| Error::file("open", path)(error.into()))?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(Error::file("look at", path))?;
    // GUARD: named-regular-file -> evil_sealed_file_that_is_no_file_is_refused
    if !metadata.is_file() {
        let found = "something else".to_owned();
        return Err(Error::Input { path: path.to_owned(), expected: "a regular file", found });
    }
    Ok(file)
}

fn corrupt(path: &Path, found: &str) -> Error {
    let found = Found::text(&format!("{found}: {}", path.file_name().unwrap_or_default().display()));
    Error::Artifact(ArtifactError::CarrierCorrupt { expected: "a regular file for each descriptor", found })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir().unwrap();
        let open = File::open(directory.path()).unwrap();
        (directory, open)
    }

    #[test]
    fn evil_symlinked_blob_is_refused() {
        let (directory, open) = directory();
        std::fs::write(directory.path().join("secret"), b"x").unwrap();
        std::os::unix::fs::symlink("secret", directory.path().join("link")).unwrap();
        assert_eq!(open_below(&open, directory.path(), "link", false).unwrap_err().code(), "CARRIER_CORRUPT");
        assert!(open_below(&open, directory.path(), "secret", false).is_ok());
        assert_eq!(open_below(&open, directory.path(), "../x", false).unwrap_err().code(), "CARRIER_CORRUPT");
    }

    #[test]
    fn evil_host_cache_of_links_and_devices() {
        let (directory, open) = directory();
        std::fs::create_dir(directory.path().join("layout")).unwrap();
        std::fs::write(directory.path().join("a.sealed"), b"x").unwrap();
        for (target, link) in [("layout", "link"), ("/etc", "out"), ("a.sealed", "b.sealed")] {
            std::os::unix::fs::symlink(target, directory.path().join(link)).unwrap();
        }
        let root = directory.path();
        for path in ["link", "out", "../x", "/etc", "missing"] {
            assert_eq!(directory_at(&open, root, Path::new(path)).unwrap_err().code(), "FILE", "{path}");
        }
        for path in ["b.sealed", "missing.sealed"] {
            assert_eq!(open_at(&open, root, Path::new(path)).unwrap_err().code(), "FILE", "{path}");
        }
        assert_eq!(open_at(&open, root, Path::new("layout")).unwrap_err().code(), "INPUT_UNFIT");
        assert!(directory_at(&open, root, Path::new("layout")).is_ok());
        assert!(open_at(&open, root, Path::new("a.sealed")).is_ok());
    }

    #[test]
    fn evil_blob_that_is_no_file_is_refused() {
        let (directory, open) = directory();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        assert_eq!(open_below(&open, directory.path(), "d", false).unwrap_err().code(), "CARRIER_CORRUPT");
    }

    #[test]
    fn evil_sealed_file_that_is_no_file_is_refused() {
        assert_eq!(open_named(Path::new("/dev/null"), false).unwrap_err().code(), "INPUT_UNFIT");
    }

    #[test]
    fn evil_altered_blob_fails_digest_verification() {
        let (directory, open) = directory();
        std::fs::write(directory.path().join("blob"), b"altered").unwrap();
        let file = open_below(&open, directory.path(), "blob", false).unwrap();
        let blob = Blob {
            file,
            path: "blob".into(),
            offset: 0,
            length: 7,
            stated: Some(BlobDigest::of(b"genuine")),
        };
        assert_eq!(blob.verify_digest(|_| ()).unwrap_err().code(), "CARRIER_CORRUPT");
    }
}
