//! The namespaces that all containers of the sandbox share: System V IPC, and the host name.
//!
//! ```text
//!  a thread: unshare ─▶ sethostname ─▶ descriptors of its namespaces ─▶ ends
//!  /run/sandbox-ns/ipc, /run/sandbox-ns/uts ◀── bound to them, as long as this value lives
//! ```
//! The host name is the host's word; it is a name and nothing else, or it is refused.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::sys;

/// The longest host name that Linux takes.
pub const MAXIMUM_HOST_NAME_BYTES: usize = 64;
/// `NSFS_MAGIC` of the kernel: what is bound is a namespace.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// Why there are no shared namespaces.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The host's name for the sandbox.
    #[error("host name: expected at most {MAXIMUM_HOST_NAME_BYTES} letters, digits, '.', '-' or '_'")]
    HostName,
    /// The kernel has none for us.
    #[error("{what}")]
    Create {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Where they are to be found by those who join them.
    #[error("{action} {}", path.display())]
    Place {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl NamespaceError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::HostName => "NAMESPACE_HOST_NAME",
            Self::Create { .. } => "NAMESPACE_CREATE",
            Self::Place { .. } => "NAMESPACE_PLACE",
        }
    }

    fn create(what: &'static str) -> impl FnOnce(Errno) -> Self {
        move |error| Self::Create { what, source: error.into() }
    }

    fn place(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Place { action, path, source }
    }
}

/// The two namespaces, each bound to a file. Dropping it takes both files away; who joined a namespace stays in it.
#[derive(Debug)]
pub struct SandboxNamespaces {
    ipc: Bound,
    uts: Bound,
}

impl SandboxNamespaces {
    /// Makes them, and binds them to `ipc` and `uts` in `directory` (of the agent alone, made if missing). An empty host name leaves
    /// the guest's. What an earlier agent left bound there goes.
    ///
    /// # Errors
    /// Every [`NamespaceError`]; nothing is left behind then.
    pub fn create(directory: &Path, host_name: &str) -> Result<Self, NamespaceError> {
        check_host_name(host_name)?;
        let [ipc, uts] = new_namespaces(host_name)?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(NamespaceError::place("make", directory))?;
        let ipc = Bound::new(directory.join("ipc"), &ipc)?;
        let uts = Bound::new(directory.join("uts"), &uts)?;
        Ok(Self { ipc, uts })
    }

    /// Where the IPC namespace is bound.
    pub fn ipc(&self) -> &Path {
        &self.ipc.path
    }

    /// Where the namespace of the host name is bound.
    pub fn uts(&self) -> &Path {
        &self.uts.path
    }

    /// Takes both away, and says whether that was possible.
    ///
    /// # Errors
    /// `NAMESPACE_PLACE`.
    pub fn remove(mut self) -> Result<(), NamespaceError> {
        self.ipc.take_away()?;
        self.uts.take_away()
    }
}

fn check_host_name(name: &str) -> Result<(), NamespaceError> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    // GUARD: sandbox-host-name -> evil_host_name_of_the_sandbox
    if name.len() > MAXIMUM_HOST_NAME_BYTES || !name.bytes().all(is_letter) {
        return Err(NamespaceError::HostName);
    }
    Ok(())
}

/// A thread of its own makes them: a thread that left its namespaces cannot go back.
fn new_namespaces(host_name: &str) -> Result<[File; 2], NamespaceError> {
    let make = || {
        sys::namespaces::leave_ipc_and_uts().map_err(NamespaceError::create("make namespaces"))?;
        if !host_name.is_empty() {
            let set = rustix::system::sethostname(host_name.as_bytes());
            set.map_err(NamespaceError::create("set the host name"))?;
        }
        let open = |name: &str| {
            let path = Path::new("/proc/thread-self/ns").join(name);
            File::open(&path).map_err(NamespaceError::place("open", &path))
        };
        Ok([open("ipc")?, open("uts")?])
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespaces".to_owned());
        let thread = thread.spawn_scoped(scope, make);
        let thread = thread.map_err(|source| NamespaceError::Create { what: "start a thread", source })?;
        let lost = |_| NamespaceError::Create { what: "wait for the thread", source: Errno::IO.into() };
        thread.join().map_err(lost)?
    })
}

/// A file that a namespace is bound to.
#[derive(Debug)]
struct Bound {
    path: PathBuf,
    is_bound: bool,
}

impl Bound {
    fn new(path: PathBuf, namespace: &File) -> Result<Self, NamespaceError> {
        remove_stale(&path).map_err(NamespaceError::place("remove", &path))?;
        let target = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path);
        let target = target.map_err(NamespaceError::place("make", &path))?;
        let mut bound = Self { path, is_bound: false };
        let source = format!("/proc/self/fd/{}", namespace.as_raw_fd());
        let failed = |error: Errno| NamespaceError::place("bind a namespace to", &bound.path)(error.into());
        mount_bind(&*source, &bound.path).map_err(failed)?;
        drop(target);
        bound.is_bound = true;
        Ok(bound)
    }

    fn take_away(&mut self) -> Result<(), NamespaceError> {
        if std::mem::take(&mut self.is_bound) {
            let failed = |error: Errno| NamespaceError::place("unbind", &self.path)(error.into());
            unmount(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).map_err(failed)?;
        }
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(NamespaceError::place("remove", &self.path)(error))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = self.take_away();
    }
}

/// What an agent that ended without its end left. Only a namespace is unbound; whatever else is mounted there stays, and is an error.
fn remove_stale(path: &Path) -> io::Result<()> {
    while is_namespace(path)? {
        unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_namespace(path: &Path) -> io::Result<bool> {
    match statfs(path) {
        Ok(found) => Ok(found.f_type == NSFS_MAGIC),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
