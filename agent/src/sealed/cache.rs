//! Where the host puts stored artifacts: ciphertext and grants, which nobody has to trust.
//!
//! A virtio-fs with the tag `innerkeep-artifacts`, or `innerkeep-artifacts` in the directory that host and guest share. In it, the artifact
//! `registry.example/acme/ranker:v3` is the image layout `registry.example/acme/ranker` with the tag `v3`, or the file
//! `registry.example/acme/ranker.sealed`; `collateral.json` is what a chip verifies evidence with. No link is followed.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use attestation_agent::Collateral;
use cdh::artifact::{Pin, Prepared, Reference, Store};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::error::SealedError;

/// Tag of the virtio-fs.
const TAG: &str = "innerkeep-artifacts";
/// Name of the directory among the shared ones.
const NAME: &str = "innerkeep-artifacts";
const COLLATERAL: &str = "collateral.json";

/// Where such a place may be.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// Where the virtio-fs is mounted, in a directory of the agent's own.
    pub(super) mounted: PathBuf,
    /// The directory that host and guest share.
    pub(super) shared: PathBuf,
}

/// Stored artifacts.
#[derive(Debug)]
pub(super) struct Cache {
    directory: File,
    root: PathBuf,
}

impl Cache {
    /// The first place that is there.
    pub(super) fn open(places: &Places) -> Result<Self, SealedError> {
        let directory = |root: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            openat2(CWD, root, flags, Mode::empty(), resolve).map(File::from)
        };
        if mount_shared(&places.mounted)? {
            let opened =
                directory(&places.mounted).map_err(SealedError::system("open the stored artifacts"))?;
            return Ok(Self { directory: opened, root: places.mounted.clone() });
        }
        let root = places.shared.join(NAME);
        match directory(&root) {
            Ok(directory) => Ok(Self { directory, root }),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                Err(SealedError::NoCache { tag: TAG, directory: root.to_string_lossy().into_owned() })
            }
            Err(error) => Err(SealedError::system("open the stored artifacts")(error)),
        }
    }

    /// The artifact of this reference, if a pin accepts it.
    pub(super) fn prepare(
        &self,
        name: &str,
        reference: &initdata::Reference,
        pins: &[Pin],
    ) -> Result<Prepared, SealedError> {
        for candidate in candidates(reference.as_str()) {
            match Prepared::open_below(&self.directory, &self.root, &candidate, pins) {
                Err(cdh::Error::File { source, .. }) if is_absence(&source) => {}
                done => return Ok(done?),
            }
        }
        Err(SealedError::NotInCache { name: name.to_owned(), reference: reference.to_string() })
    }

    /// What a chip verifies evidence with, if it is there.
    pub(super) fn collateral(&self) -> Result<Option<Collateral>, SealedError> {
        match Store::file_below(&self.directory, &self.root, Path::new(COLLATERAL)) {
            Err(cdh::Error::File { source, .. }) if is_absence(&source) => Ok(None),
            Err(error) => Err(error.into()),
            // By its number: the name could lead elsewhere by now.
            Ok(file) => {
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                let collateral = Collateral::load(Path::new(&path)).map_err(cdh::Error::from)?;
                Ok(Some(collateral))
            }
        }
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Mounts the virtio-fs once; whether it is there.
fn mount_shared(place: &Path) -> Result<bool, SealedError> {
    let failed = |error| SealedError::system("mount the stored artifacts")(error);
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
        assert!(cache.collateral().unwrap().is_none());
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
        std::os::unix::fs::symlink("/etc/passwd", root.join(COLLATERAL)).unwrap();
        std::os::unix::fs::symlink("/", root.join("registry.example/ranker")).unwrap();
        let cache = Cache::open(&places).unwrap();
        assert_eq!(cache.collateral().unwrap_err().code(), "FILE");
        let reference = initdata::Reference::parse("registry.example/ranker:v3").unwrap();
        assert_eq!(cache.prepare("ranker", &reference, &[]).unwrap_err().code(), "FILE");
    }
}
