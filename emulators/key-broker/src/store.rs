//! The state directory: resources, policies, keys. Mode 0700, files 0600, one process at a time.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use zeroize::Zeroizing;

/// Largest file that is read or written.
pub(crate) const MAX_FILE_BYTES: u64 = 8 << 20;
const MAX_SEGMENT_BYTES: usize = 200;

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error("{0}: another key broker uses this directory")]
    Locked(PathBuf),
    /// A file that nobody here wrote.
    #[error("{path}: larger than {MAX_FILE_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// The state of one broker, locked for this process.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    _lock: fs::File,
}

/// Repository, type and tag of a resource: three segments that are file names and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResourcePath([String; 3]);

/// A path that names no resource.
#[derive(Debug, thiserror::Error)]
#[error("resource path: expected repository/type/tag of letters, digits, '_', '-' and inner '.', found {0}")]
pub(crate) struct PathError(String);

impl ResourcePath {
    /// Parses `repository/type/tag`.
    pub(crate) fn parse(path: &str) -> Result<Self, PathError> {
        let segments: Vec<String> = path.split('/').map(str::to_owned).collect();
        let refused = || PathError(crate::log::printable(path, 120));
        // GUARD: broker-resource-path -> evil_client_walks_out_of_the_store, paths_of_resources
        if !segments.iter().all(|segment| is_segment(segment)) {
            return Err(refused());
        }
        segments.try_into().map(Self).map_err(|_length| refused())
    }

    /// The three segments.
    pub(crate) const fn segments(&self) -> &[String; 3] {
        &self.0
    }
}

impl std::fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// Not empty, not beginning with a dot, nothing but letters, digits, `_`, `-` and `.`.
pub(crate) fn is_segment(segment: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !segment.is_empty()
        && segment.len() <= MAX_SEGMENT_BYTES
        && !segment.starts_with('.')
        && segment.bytes().all(known)
}

impl Store {
    /// Opens and locks the directory, making it when it is missing.
    pub(crate) fn open(root: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Io { path: root.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed)?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        let lock = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(root.join("lock"))
            .map_err(failed)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { root: root.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked(root.to_owned())),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// A file of the directory, if it exists.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        read(&self.root.join(name))
    }

    /// Replaces a file of the directory as a whole.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        write(&self.root.join(name), bytes)
    }

    /// The bytes of a resource, if it exists.
    pub(crate) fn resource(&self, path: &ResourcePath) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        read(&self.resource_file(path))
    }

    /// Sets a resource.
    pub(crate) fn set_resource(&self, path: &ResourcePath, bytes: &[u8]) -> Result<(), StoreError> {
        let file = self.resource_file(path);
        let directory = file.parent().unwrap_or(&self.root);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| StoreError::Io { path: directory.to_owned(), source })?;
        write(&file, bytes)
    }

    /// Deletes a resource; tells whether there was one.
    pub(crate) fn delete_resource(&self, path: &ResourcePath) -> Result<bool, StoreError> {
        let file = self.resource_file(path);
        match fs::remove_file(&file) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(StoreError::Io { path: file, source }),
        }
    }

    fn resource_file(&self, path: &ResourcePath) -> PathBuf {
        let [repository, kind, tag] = path.segments();
        self.root.join("resources").join(repository).join(kind).join(tag)
    }
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let failed = |source| StoreError::Io { path: path.to_owned(), source };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let length = file.metadata().map_err(failed)?.len();
    if length > MAX_FILE_BYTES {
        return Err(StoreError::TooLarge { path: path.to_owned() });
    }
    // One byte more than the file has, so that reading to its end never moves the bytes.
    let capacity = usize::try_from(length).unwrap_or_default() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

/// Writes beside the file, then puts the new one in its place.
fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { path: path.to_owned(), source };
    let mut suffix = [0; 8];
    aws_lc_rs::rand::fill(&mut suffix).map_err(|_unspecified| failed(io::Error::other("no randomness")))?;
    // Begins with a dot: no resource has such a name.
    let temporary = path.with_file_name(format!(".new-{}", hex::encode(suffix)));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn paths_of_resources() {
        for path in ["a/b/c", "a_b/-c/d.e", "0/_/x..y"] {
            assert_eq!(ResourcePath::parse(path).unwrap().to_string(), path);
        }
        let long = format!("a/b/{}", "c".repeat(201));
        for path in [
            "",
            "a/b",
            "a/b/c/d",
            "a//c",
            ".a/b/c",
            "a/../c",
            "a/b/.new-1",
            "a/b/c%41",
            "a/b/c\n",
            "/a/b/c",
            &long,
        ] {
            assert!(ResourcePath::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn evil_client_walks_out_of_the_store() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state")).unwrap();
        fs::write(directory.path().join("outside"), "secret").unwrap();
        for path in ["../../outside", "..", "a/../../outside", "a/b/../../../outside", "lock", "a/b/c\0"] {
            assert!(ResourcePath::parse(path).is_err(), "{path}");
        }
        assert!(store.resource(&ResourcePath::parse("a/b/outside").unwrap()).unwrap().is_none());
    }

    #[test]
    fn resources_are_kept_for_their_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("state");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        let store = Store::open(&root).unwrap();
        let path = ResourcePath::parse("a/b/c").unwrap();
        assert!(store.resource(&path).unwrap().is_none());
        store.set_resource(&path, b"one").unwrap();
        store.set_resource(&path, b"two").unwrap();
        assert_eq!(store.resource(&path).unwrap().unwrap().as_slice(), b"two");
        assert_eq!(fs::read_dir(root.join("resources/a/b")).unwrap().count(), 1);
        for (file, expected) in
            [("", 0o700), ("lock", 0o600), ("resources/a/b", 0o700), ("resources/a/b/c", 0o600)]
        {
            assert_eq!(mode(&root.join(file)), expected, "{file}");
        }
        assert!(matches!(Store::open(&root), Err(StoreError::Locked(_))));
        assert!(store.delete_resource(&path).unwrap());
        assert!(!store.delete_resource(&path).unwrap());
        assert!(store.resource(&path).unwrap().is_none());
        store.set_resource(&path, b"").unwrap();
        assert_eq!(store.resource(&path).unwrap().unwrap().len(), 0);
        drop(store);
        let store = Store::open(&root).unwrap();
        assert!(store.resource(&path).unwrap().is_some());
    }
}
