//! A directory in which somebody else puts stored artifacts: ciphertext and grants, which nobody has to trust.
//!
//! In it, the artifact `registry.example/acme/ranker:v3` is the image layout `registry.example/acme/ranker` with the tag `v3`, or the file
//! `registry.example/acme/ranker.sealed`; `collateral.json` is what a chip verifies evidence with. No link is followed.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use attestation_agent::Collateral;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use sealed_artifact::signature::Pin;

use super::prepared::Prepared;
use super::store::{Reference, Store};
use crate::Error;

const COLLATERAL: &str = "collateral.json";

/// Where such a directory is. It may come later, so that it is looked for when something of it is needed.
pub trait StoredArtifacts: fmt::Debug + Send + Sync {
    /// The directory, if it is there now.
    ///
    /// # Errors
    ///
    /// As [`Cache::open`].
    fn cache(&self) -> Result<Option<Cache>, Error>;
}

impl StoredArtifacts for PathBuf {
    fn cache(&self) -> Result<Option<Cache>, Error> {
        Cache::open(self)
    }
}

/// Stored artifacts.
#[derive(Debug)]
pub struct Cache {
    directory: File,
    root: PathBuf,
}

impl Cache {
    /// A directory, if it is there.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub fn open(root: &Path) -> Result<Option<Self>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(CWD, root, flags, Mode::empty(), resolve) {
            Ok(directory) => Ok(Some(Self { directory: directory.into(), root: root.to_owned() })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(Error::file("open the stored artifacts", root)(error.into())),
        }
    }

    /// The artifact of this reference, if it is there; an error if no pin accepts it.
    ///
    /// # Errors
    ///
    /// As [`Prepared::open_below`].
    pub fn prepare(&self, reference: &str, pins: &[Pin]) -> Result<Option<Prepared>, Error> {
        for candidate in candidates(reference) {
            match Prepared::open_below(&self.directory, &self.root, &candidate, pins) {
                Err(Error::File { source, .. }) if is_absence(&source) => {}
                done => return done.map(Some),
            }
        }
        Ok(None)
    }

    /// What a chip verifies evidence with, if it is there.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not of its form.
    pub fn collateral(&self) -> Result<Option<Collateral>, Error> {
        match Store::file_below(&self.directory, &self.root, Path::new(COLLATERAL)) {
            Err(Error::File { source, .. }) if is_absence(&source) => Ok(None),
            Err(error) => Err(error),
            // By its number: the name could lead elsewhere by now.
            Ok(file) => {
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                Ok(Some(Collateral::load(Path::new(&path))?))
            }
        }
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Where an artifact of this reference may be stored: a layout and its tag, a file.
fn candidates(reference: &str) -> [Reference; 2] {
    // Of several artifacts in a layout the tag says which one; a digest is not what a layout names it by.
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    // A colon before the last slash is a port.
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag.to_owned())),
        _ => (name, None),
    };
    [Reference::Layout(repository.into(), tag), Reference::File(format!("{repository}.sealed").into())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_lead_to_layouts_and_files() {
        let layout = |path: &str, tag: Option<&str>| Reference::Layout(path.into(), tag.map(str::to_owned));
        for (reference, path, tag) in [
            ("registry.example/acme/ranker:v3", "registry.example/acme/ranker", Some("v3")),
            ("registry.example:5000/ranker", "registry.example:5000/ranker", None),
            ("registry.example:5000/a:b@sha256:00", "registry.example:5000/a", Some("b")),
            ("r/a@sha256:00", "r/a", None),
        ] {
            let [first, second] = candidates(reference);
            assert_eq!(first, layout(path, tag), "{reference}");
            assert_eq!(second, Reference::File(format!("{path}.sealed").into()));
        }
    }

    #[test]
    fn evil_host_links_in_a_cache_of_artifacts() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("cache");
        assert!(Cache::open(&root).unwrap().is_none());
        std::os::unix::fs::symlink("/etc", &root).unwrap();
        assert!(Cache::open(&root).unwrap().is_none(), "a link");
        std::fs::remove_file(&root).unwrap();
        std::fs::create_dir_all(root.join("registry.example")).unwrap();
        let cache = Cache::open(&root).unwrap().unwrap();
        assert!(cache.collateral().unwrap().is_none());
        assert!(cache.prepare("registry.example/ranker:v3", &[]).unwrap().is_none());
        std::os::unix::fs::symlink("/etc/passwd", root.join(COLLATERAL)).unwrap();
        std::os::unix::fs::symlink("/", root.join("registry.example/ranker")).unwrap();
        assert_eq!(cache.collateral().unwrap_err().code(), "FILE");
        assert_eq!(cache.prepare("registry.example/ranker:v3", &[]).unwrap_err().code(), "FILE");
    }
}
