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

use crate::error::Failure;

/// Bytes at an offset of an open file.
#[derive(Debug)]
pub(crate) struct Blob {
    /// The file.
    pub(crate) file: File,
    /// Its path, for messages.
    pub(crate) path: PathBuf,
    /// First byte.
    pub(crate) offset: u64,
    /// Number of bytes.
    pub(crate) length: u64,
    /// The digest that the carrier states, if it states one.
    pub(crate) stated: Option<BlobDigest>,
}

impl Blob {
    /// Reads the bytes of a segment, once.
    pub(crate) fn read(&self, span: &Span, buffer: &mut [u8]) -> Result<(), Failure> {
        self.file
            .read_exact_at(buffer, self.offset.saturating_add(span.offset))
            .map_err(Failure::file("read the ciphertext", &self.path))
    }

    /// SHA-256 of all bytes.
    pub(crate) fn digest(&self, mut advanced: impl FnMut(u64)) -> Result<BlobDigest, Failure> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut offset = 0;
        while offset < self.length {
            let count = usize::try_from(self.length - offset).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..count).unwrap_or_default();
            self.file
                .read_exact_at(part, self.offset.saturating_add(offset))
                .map_err(Failure::file("read the blob", &self.path))?;
            hash.update(&*part);
            offset += u64::try_from(count).unwrap_or(u64::MAX);
            advanced(u64::try_from(count).unwrap_or(u64::MAX));
        }
        Ok(BlobDigest::new(hash.finalize().into()))
    }

    /// Compares the digest with the one that the carrier states, where it states one.
    pub(crate) fn verify_digest(&self, advanced: impl FnMut(u64)) -> Result<(), Failure> {
        let Some(stated) = self.stated else { return Ok(()) };
        let found = self.digest(advanced)?;
        // GUARD: stored-blob-digest -> evil_altered_blob_fails_digest_verification
        if found != stated {
            let expected = "a blob with the digest that its descriptor states";
            return Err(Failure::Artifact(ArtifactError::CarrierCorrupt {
                expected,
                found: Found::text(&found.to_string()),
            }));
        }
        Ok(())
    }
}

/// Opens a regular file below a directory: no symbolic links, no way out, no waiting for a pipe.
pub(crate) fn open_below(directory: &File, root: &Path, path: &str, write: bool) -> Result<File, Failure> {
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
        error => Failure::file("open", &shown)(error.into()),
    })?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(Failure::file("look at", &shown))?;
    // GUARD: store-regular-files -> evil_blob_that_is_no_file_is_refused
    if !metadata.is_file() {
        return Err(corrupt(&shown, "something else"));
    }
    Ok(file)
}

/// Opens a regular file that the user named.
pub(crate) fn open_named(path: &Path, write: bool) -> Result<File, Failure> {
    let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|error| Failure::file("open", path)(error.into()))?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(Failure::file("look at", path))?;
    // GUARD: named-regular-file -> evil_sealed_file_that_is_no_file_is_refused
    if !metadata.is_file() {
        let found = "something else".to_owned();
        return Err(Failure::Input { path: path.to_owned(), expected: "a regular file", found });
    }
    Ok(file)
}

fn corrupt(path: &Path, found: &str) -> Failure {
    let found = Found::text(&format!("{found}: {}", path.file_name().unwrap_or_default().display()));
    Failure::Artifact(ArtifactError::CarrierCorrupt { expected: "a regular file for each descriptor", found })
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
