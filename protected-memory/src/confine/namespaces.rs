//! Entering private namespaces, and preparing the consumer's.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{getegid, geteuid};
use rustix::thread::UnshareFlags;

use super::ConfineError;
use super::attach_point::Room;
use crate::sys::child::{UserNamespaceHolder, proc_path, unshare};

/// Which namespaces the process entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NamespaceKind {
    /// A mount namespace: the process may mount. `noswap` works.
    Mount,
    /// A user namespace and a mount namespace in it: an ordinary user. The kernel refuses `noswap` here.
    UserAndMount,
}

/// Proof that this process is in namespaces of its own, and what is needed to confine a consumer below them.
#[derive(Debug)]
pub struct PrivateNamespaces {
    kind: NamespaceKind,
    pub(crate) consumer_user_namespace: OwnedFd,
    pub(crate) room: Option<Room>,
}

impl PrivateNamespaces {
    /// Which namespaces were entered.
    pub fn kind(&self) -> NamespaceKind {
        self.kind
    }
}

/// Moves this process into a private mount namespace, and first into a user namespace if it may not mount.
///
/// Call it first thing in `main`: before any thread starts, before [`crate::harden::harden_process`] (a process that
/// is not dumpable cannot map its ids) and before any secret is in memory (it forks). Nothing that is mounted
/// afterwards is seen outside, and no mount from outside arrives.
///
/// # Errors
///
/// [`ConfineError::ThreadsExist`] when there is more than one thread; [`ConfineError::NamespaceRefused`] where the
/// machine does not allow user namespaces (`user.max_user_namespaces`, `kernel.unprivileged_userns_clone`, AppArmor).
pub fn enter_private_namespaces() -> Result<PrivateNamespaces, ConfineError> {
    require_one_thread()?;
    let refused = |step| move |source| ConfineError::NamespaceRefused { step, source };
    let kind = match unshare(UnshareFlags::NEWNS) {
        Ok(()) => NamespaceKind::Mount,
        Err(error) if Errno::from_io_error(&error) == Some(Errno::PERM) => {
            let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
            unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)
                .map_err(refused("unshare of user and mount"))?;
            map_one_id("/proc/self", uid, gid)?;
            NamespaceKind::UserAndMount
        }
        Err(error) => return Err(refused("unshare of mount")(error)),
    };
    // GUARD: private-propagation -> nothing_mounted_is_seen_outside
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| refused("making mounts private")(error.into()))?;
    Ok(PrivateNamespaces { kind, consumer_user_namespace: nested_user_namespace()?, room: None })
}

/// What is done to the calling thread alone has to be done to all there are.
pub(super) fn require_one_thread() -> Result<(), ConfineError> {
    let count = fs::read_dir("/proc/self/task")
        .map_err(|source| ConfineError::NamespaceRefused { step: "counting of threads", source })?
        .count();
    // GUARD: single-thread -> threads_are_refused_before_namespaces
    if count != 1 {
        return Err(ConfineError::ThreadsExist { count });
    }
    Ok(())
}

/// A user namespace below ours, with our ids, in which the consumer will run.
///
/// It is made here because the maps can be written only while this process is still dumpable.
fn nested_user_namespace() -> Result<OwnedFd, ConfineError> {
    let refused =
        |source| ConfineError::NamespaceRefused { step: "unshare of the consumer's user namespace", source };
    let holder = UserNamespaceHolder::start().map_err(refused)?;
    let directory = proc_path(holder.pid(), "");
    // With the capabilities for it, all ids stay what they are; otherwise our own.
    let all = format!("0 0 {}", u32::MAX);
    let mapped = fs::write(format!("{directory}/uid_map"), &all);
    match mapped {
        Ok(()) => fs::write(format!("{directory}/gid_map"), &all)
            .map_err(|source| ConfineError::IdMap { step: "gid_map", source })?,
        Err(_) => map_one_id(&directory, geteuid().as_raw(), getegid().as_raw())?,
    }
    let namespace = fs::File::open(proc_path(holder.pid(), "ns/user")).map_err(refused)?;
    Ok(namespace.into())
}

/// Maps one user and one group to themselves.
fn map_one_id(process: &str, uid: u32, gid: u32) -> Result<(), ConfineError> {
    let failed = |step| move |source: io::Error| ConfineError::IdMap { step, source };
    fs::write(format!("{process}/setgroups"), "deny").map_err(failed("setgroups"))?;
    fs::write(format!("{process}/uid_map"), format!("{uid} {uid} 1")).map_err(failed("uid_map"))?;
    fs::write(format!("{process}/gid_map"), format!("{gid} {gid} 1")).map_err(failed("gid_map"))
}
