//! Where the host may have something mounted, and what it may have mounted there.

use std::path::{Component, Path, PathBuf};

use protocol::ids::{AbsolutePath, ContainerId};

use super::StorageError;

/// The directory of the runtime on the wire.
pub(crate) const RUN: &str = "/run/kata-containers";
/// Below `sandbox/`: name servers, which are bound over a file of the system.
const SANDBOX_FILES: [&str; 1] = ["resolv.conf"];
/// In a container's own directory: what the agent itself puts there.
const CONTAINER_FILES: [&str; 5] = ["config.json", "exec.fifo", "upper", "work", "multi-layer"];

/// A place below [`RUN`] that is open to the host, relative to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place(PathBuf);

impl Place {
    /// Takes a path of the wire that a storage for this container (or, without one, for the sandbox) may use:
    ///
    /// - `shared/containers` and what is below it,
    /// - what is below `sandbox/`, but for name servers,
    /// - what is in the container's own directory, but for what the agent puts there.
    pub(crate) fn parse(path: &str, container: Option<&ContainerId>) -> Result<Self, StorageError> {
        let refuse = |reason| StorageError::Place { place: path.to_owned(), reason };
        let absolute =
            AbsolutePath::parse(path).map_err(|_| refuse("expected an absolute path without '..'"))?;
        let below = absolute.as_path().strip_prefix(RUN).ok().map(Path::to_owned);
        // GUARD: mount-below-run -> evil_host_mounts_over_protected_paths
        if !below.as_deref().is_some_and(|below| is_open(below, container)) {
            return Err(refuse(
                "expected a place below /run/kata-containers that is shared, the sandbox's, or this container's",
            ));
        }
        Ok(Self(below.unwrap_or_default()))
    }

    /// A place that the agent chose.
    pub(super) fn own(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where images are stored, which is open to nobody else.
    pub(super) fn store() -> Self {
        Self("image".into())
    }

    /// The place, relative to the directory of the runtime.
    pub(crate) fn as_path(&self) -> &Path {
        &self.0
    }

    /// As the host names it.
    pub(crate) fn on_the_wire(&self) -> PathBuf {
        Path::new(RUN).join(&self.0)
    }

    /// Whether this one is somewhere below another one.
    pub(crate) fn is_below(&self, other: &Self) -> bool {
        self.0 != other.0 && self.0.starts_with(&other.0)
    }
}

fn is_open(below: &Path, container: Option<&ContainerId>) -> bool {
    let names = below.components().map(Component::as_os_str).take(3).map(|name| name.to_str());
    match names.collect::<Vec<_>>().as_slice() {
        [Some("shared"), Some("containers"), ..] => true,
        [Some("sandbox"), Some(name), ..] => !SANDBOX_FILES.contains(name),
        [Some("shared" | "sandbox" | "image"), ..] => false,
        [Some(id), Some(name), ..] => {
            container.is_some_and(|own| own.as_str() == *id) && !CONTAINER_FILES.contains(name)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_runtimes_are_open() {
        let own = ContainerId::parse("own").unwrap();
        for (path, container) in [
            ("/run/kata-containers/shared/containers/", None),
            ("/run/kata-containers/shared/containers/passthrough/abc/rootfs", Some(&own)),
            ("/run/kata-containers/sandbox/shm", None),
            ("/run/kata-containers/sandbox/storage/L2Rldi94", Some(&own)),
            ("/run/kata-containers/own/rootfs", Some(&own)),
        ] {
            let place = Place::parse(path, container).unwrap();
            assert_eq!(place.on_the_wire(), Path::new(path.trim_end_matches('/')));
        }
    }

    #[test]
    fn evil_host_mounts_over_protected_paths() {
        let own = ContainerId::parse("own").unwrap();
        for path in [
            "/",
            "/proc",
            "/sys/kernel/config",
            "/dev",
            "/etc",
            "/run",
            "/run/kata-containers",
            "/run/kata-containers/",
            "/run/kata-containers/shared",
            "/run/kata-containers/sandbox",
            "/run/kata-containers/sandbox/resolv.conf",
            "/run/kata-containers/sandbox/resolv.conf/x",
            "/run/kata-containers/image",
            "/run/kata-containers/image/layers",
            "/run/kata-containers/other/rootfs",
            "/run/kata-containers/own",
            "/run/kata-containers/own/config.json",
            "/run/kata-containers/own/upper",
            "/run/kata-containers/own/work/x",
            "/run/kata-containers-of-mine/shared/containers/x",
            "/run/kata-containers/shared/containers/../../own/config.json",
            "/run/confidential-containers/x",
            "run/kata-containers/shared/containers/x",
            "",
        ] {
            let error = Place::parse(path, Some(&own)).unwrap_err();
            assert_eq!(error.code(), "STORAGE_PLACE", "{path}");
        }
        assert!(Place::parse("/run/kata-containers/own/rootfs", None).is_err());
    }
}
