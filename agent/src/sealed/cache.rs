//! Where the host puts stored artifacts: ciphertext and grants, which nobody has to trust.
//!
//! A virtio-fs with the tag `innerkeep-artifacts`, or `innerkeep-artifacts` in the directory that host and guest share. What is in it is the data
//! hub's to read.

use std::path::{Path, PathBuf};

use cdh::artifact::{Pin, Prepared, StoredArtifacts};
use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::error::SealedError;
use crate::context::Roots;

/// Tag of the virtio-fs.
const TAG: &str = "innerkeep-artifacts";
/// Name of the directory among the shared ones.
const NAME: &str = "innerkeep-artifacts";

/// Where such a place may be.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// Where the virtio-fs is mounted, in a directory of the agent's own.
    pub(super) mounted: PathBuf,
    /// The directory that host and guest share.
    pub(super) shared: PathBuf,
}

impl Places {
    /// Those of this guest.
    pub(super) fn of(roots: &Roots) -> Self {
        Self { mounted: roots.own.join("artifacts"), shared: roots.shared() }
    }

    /// The first one that is there, which may not be a directory.
    fn first(&self) -> Result<PathBuf, cdh::Error> {
        let shared = self.shared.join(NAME);
        Ok(if mount_shared(&self.mounted)? { self.mounted.clone() } else { shared })
    }
}

impl StoredArtifacts for Places {
    fn cache(&self) -> Result<Option<cdh::artifact::Cache>, cdh::Error> {
        cdh::artifact::Cache::open(&self.first()?)
    }
}

/// Stored artifacts.
#[derive(Debug)]
pub(super) struct Cache(cdh::artifact::Cache);

impl Cache {
    /// The first place that is there.
    pub(super) fn open(places: &Places) -> Result<Self, SealedError> {
        let root = places.first()?;
        let missing = || SealedError::NoCache { tag: TAG, directory: root.to_string_lossy().into_owned() };
        cdh::artifact::Cache::open(&root)?.map(Self).ok_or_else(missing)
    }

    /// The artifact of this reference, if a pin accepts it.
    pub(super) fn prepare(
        &self,
        name: &str,
        reference: &initdata::Reference,
        pins: &[Pin],
    ) -> Result<Prepared, SealedError> {
        let (name, shown) = (name.to_owned(), reference.to_string());
        let missing = || SealedError::NotInCache { name, reference: shown };
        self.0.prepare(reference.as_str(), pins)?.ok_or_else(missing)
    }
}

/// Mounts the virtio-fs once; whether it is there.
fn mount_shared(place: &Path) -> Result<bool, cdh::Error> {
    let failed = |error: Errno| cdh::Error::file("mount the stored artifacts", place)(error.into());
    let parent = place.parent().unwrap_or(Path::new("/"));
    if is_mount(place, parent) {
        return Ok(true);
    }
    for directory in [parent, place] {
        match mkdirat(CWD, directory, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            // Where nobody can make it, nothing is mounted.
            Err(Errno::NOENT | Errno::ROFS | Errno::ACCESS | Errno::PERM) => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
    }
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match mount(TAG, place, "virtiofs", flags, None) {
        Ok(()) => Ok(true),
        // No such tag, no such driver, nobody who may mount.
        Err(Errno::INVAL | Errno::NODEV | Errno::NOENT | Errno::PERM) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn is_mount(place: &Path, parent: &Path) -> bool {
    let device = |path: &Path| rustix::fs::lstat(path).map(|stat| stat.st_dev);
    matches!((device(place), device(parent)), (Ok(own), Ok(other)) if own != other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(directory: &Path) -> Places {
        // Nothing is mounted where the parent is missing.
        Places { mounted: directory.join("none/own/artifacts"), shared: directory.join("shared") }
    }

    #[test]
    fn evil_host_withholds_the_artifact() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        assert_eq!(Cache::open(&places).unwrap_err().code(), "SEALED_NO_CACHE");
        std::fs::create_dir_all(places.shared.join(NAME)).unwrap();
        let cache = Cache::open(&places).unwrap();
        let reference = initdata::Reference::parse("registry.example/acme/ranker:v3").unwrap();
        let error = cache.prepare("ranker", &reference, &[]).unwrap_err();
        assert_eq!(error.code(), "SEALED_NOT_IN_CACHE");
        assert!(places.cache().unwrap().unwrap().collateral().unwrap().is_none());
    }

    #[test]
    fn evil_host_links_in_the_cache() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let root = places.shared.join(NAME);
        std::fs::create_dir_all(&places.shared).unwrap();
        std::os::unix::fs::symlink("/etc", &root).unwrap();
        assert_eq!(Cache::open(&places).unwrap_err().code(), "SEALED_NO_CACHE");
        std::fs::remove_file(&root).unwrap();
        std::fs::create_dir_all(root.join("registry.example")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("collateral.json")).unwrap();
        std::os::unix::fs::symlink("/", root.join("registry.example/ranker")).unwrap();
        let cache = Cache::open(&places).unwrap();
        assert_eq!(places.cache().unwrap().unwrap().collateral().unwrap_err().code(), "FILE");
        let reference = initdata::Reference::parse("registry.example/ranker:v3").unwrap();
        assert_eq!(cache.prepare("ranker", &reference, &[]).unwrap_err().code(), "FILE");
    }
}
