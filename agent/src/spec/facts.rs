//! What the checks have to know about this guest.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use protocol::ids::ContainerId;

use super::forbidden::ForbiddenDevices;

/// Finds where a path leads to: absolute, without links and `..`.
pub type Resolve = Box<dyn Fn(&Path) -> io::Result<PathBuf> + Send + Sync>;

/// The guest, as far as it decides what a container may have.
pub struct Facts {
    /// The container.
    pub container: ContainerId,
    /// Its bundle, `/run/kata-containers/ID`; the root of its files is `rootfs` in it.
    pub bundle: PathBuf,
    /// Whether this is a confidential guest.
    pub tee_active: bool,
    /// Trees that no container sees beside those that always are: for example where artifacts land.
    pub protected: Vec<PathBuf>,
    /// Devices that no container has.
    pub forbidden_devices: ForbiddenDevices,
    /// Where the source of a bind mount leads to.
    pub resolve: Resolve,
}

impl Facts {
    /// Those of the running system: `/proc/misc`, `/proc/devices`, and links as the kernel follows them.
    ///
    /// # Errors
    /// The system's, where the kernel's lists of devices cannot be read.
    pub fn of_system(
        container: ContainerId,
        bundle: PathBuf,
        tee_active: bool,
        protected: Vec<PathBuf>,
    ) -> io::Result<Self> {
        Ok(Self {
            container,
            bundle,
            tee_active,
            protected,
            forbidden_devices: ForbiddenDevices::of_system(Path::new("/proc"))?,
            resolve: Box::new(|path| std::fs::canonicalize(path)),
        })
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("container", &self.container)
            .field("bundle", &self.bundle)
            .field("tee_active", &self.tee_active)
            .field("protected", &self.protected)
            .field("forbidden_devices", &self.forbidden_devices)
            .finish_non_exhaustive()
    }
}
