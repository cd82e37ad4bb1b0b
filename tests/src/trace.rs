//! What a command left behind: files, mounts, processes.

use crate::scan::Needles;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The state of a file: size, time of the last change of contents, inode.
pub type Mark = (u64, i64, i64, u64);

/// Everything below a directory, and the mounts of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    files: BTreeMap<PathBuf, Mark>,
    mounts: Vec<String>,
}

impl Trace {
    /// The present state. What lies in the directories in `apart` is left out.
    pub fn of(directory: &Path, apart: &[PathBuf]) -> Self {
        let mut files = BTreeMap::new();
        collect(directory, apart, &mut files);
        Self { files, mounts: mounts() }
    }

    /// Asserts that nothing was made, changed, removed or mounted since.
    #[track_caller]
    pub fn assert_unchanged(&self, directory: &Path, apart: &[PathBuf]) {
        let now = Self::of(directory, apart);
        for (path, mark) in &now.files {
            assert_eq!(self.files.get(path), Some(mark), "{} appeared or changed", path.display());
        }
        for path in self.files.keys() {
            assert!(now.files.contains_key(path), "{} is gone", path.display());
        }
        assert_eq!(self.mounts, now.mounts, "mounts differ");
    }

    /// The files, with their marks.
    pub fn files(&self) -> &BTreeMap<PathBuf, Mark> {
        &self.files
    }
}

fn collect(directory: &Path, apart: &[PathBuf], files: &mut BTreeMap<PathBuf, Mark>) {
    for entry in std::fs::read_dir(directory).expect("list a directory") {
        let path = entry.expect("list a directory").path();
        if apart.contains(&path) {
            continue;
        }
        let metadata = std::fs::symlink_metadata(&path).expect("look at a file");
        if metadata.is_dir() {
            collect(&path, apart, files);
            files.insert(path, (0, 0, 0, metadata.ino()));
        } else {
            files.insert(path, (metadata.size(), metadata.mtime(), metadata.mtime_nsec(), metadata.ino()));
        }
    }
}

/// The mounts of memory that this process sees, as the kernel writes them, sorted: a landing would be one of them. Other mounts come and go
/// on a machine that is used for something else too.
pub fn mounts() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
    let is_memory =
        |line: &&str| [" - tmpfs ", " - hugetlbfs ", " - ramfs "].iter().any(|kind| line.contains(kind));
    let mut mounts: Vec<String> = text.lines().filter(is_memory).map(str::to_owned).collect();
    mounts.sort();
    mounts
}

/// Asserts that no needle is in any file below a directory.
#[track_caller]
pub fn assert_no_plaintext(needles: &Needles, directory: &Path, apart: &[PathBuf]) {
    let (hits, _) = needles.below(directory);
    let hits: Vec<_> =
        hits.into_iter().filter(|hit| !apart.iter().any(|path| hit.path.starts_with(path))).collect();
    assert!(hits.is_empty(), "plaintext on disk: {hits:?}");
}
