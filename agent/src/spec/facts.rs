//! What the checks have to know about this guest.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Hooks;
use protocol::ids::ContainerId;

use super::forbidden::ForbiddenDevices;

/// Finds where a path leads to: absolute, without links and `..`.
pub type Resolve = Box<dyn Fn(&Path) -> io::Result<PathBuf> + Send + Sync>;

/// Namespaces of the sandbox that its containers share; what is absent is new for each container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxNamespaces {
    /// IPC.
    pub ipc: Option<PathBuf>,
    /// Host name.
    pub uts: Option<PathBuf>,
    /// Processes, where the sandbox shares them: that of its first container, never the agent's.
    pub pid: Option<PathBuf>,
}

/// The guest, as far as it decides what a container may have.
pub struct Facts {
    /// The container.
    pub container: ContainerId,
    /// Its bundle, `/run/kata-containers/ID`; the root of its files is `rootfs` in it.
    pub bundle: PathBuf,
    /// Whether this is a confidential guest.
    pub tee_active: bool,
    /// The sandbox's namespaces.
    pub namespaces: SandboxNamespaces,
    /// Where storages of this container are mounted: these may be sources of its mounts, though they are below `/run/kata-containers`.
    pub storages: Vec<PathBuf>,
    /// Trees that no container sees beside those that always are: for example where artifacts land.
    pub protected: Vec<PathBuf>,
    /// Devices that no container has.
    pub forbidden_devices: ForbiddenDevices,
    /// Programs of the measured image that a specification may name as hooks in a confidential guest.
    pub allowed_hooks: Vec<PathBuf>,
    /// Hooks of the sandbox: they run behind those of the specification.
    pub hooks: Option<Hooks>,
    /// Where the source of a bind mount leads to.
    pub resolve: Resolve,
}

impl Facts {
    /// Those of the running system: `/proc/misc`, `/proc/devices`, and links as the kernel follows them. What it does not know is
    /// empty and can be set.
    ///
    /// # Errors
    /// The system's, where the kernel's lists of devices cannot be read.
    pub fn of_system(container: ContainerId, bundle: PathBuf, tee_active: bool) -> io::Result<Self> {
        let mut facts = Self::new(container, bundle, tee_active);
        facts.forbidden_devices = ForbiddenDevices::of_system(Path::new("/proc"))?;
        facts.resolve = Box::new(|path| std::fs::canonicalize(path));
        Ok(facts)
    }

    /// Those of no system: the devices with fixed numbers, and every path leads to itself.
    #[must_use]
    pub fn new(container: ContainerId, bundle: PathBuf, tee_active: bool) -> Self {
        Self {
            container,
            bundle,
            tee_active,
            namespaces: SandboxNamespaces::default(),
            storages: Vec::new(),
            protected: Vec::new(),
            forbidden_devices: ForbiddenDevices::default(),
            allowed_hooks: Vec::new(),
            hooks: None,
            resolve: Box::new(|path| Ok(path.to_owned())),
        }
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("container", &self.container)
            .field("bundle", &self.bundle)
            .field("tee_active", &self.tee_active)
            .field("namespaces", &self.namespaces)
            .field("storages", &self.storages)
            .field("protected", &self.protected)
            .field("forbidden_devices", &self.forbidden_devices)
            .finish_non_exhaustive()
    }
}
