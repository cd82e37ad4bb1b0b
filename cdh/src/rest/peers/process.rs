//! Processes by `/proc`: everybody who has a socket, and the container that they are in.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Dir, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

use super::{ContainerId, Containers, Peers, socket_of};

/// Longest table of connections.
const MAXIMUM_TABLE_BYTES: u64 = 16 << 20;
/// How often the table is read for one connection: the kernel leaves rows out when it changes meanwhile.
const MAXIMUM_READS: usize = 8;
const MAXIMUM_CGROUP_BYTES: u64 = 64 * 1024;
/// Most descriptors that are looked at for one connection.
const MAXIMUM_DESCRIPTORS: usize = 1 << 20;

/// The way by `/proc`. Whoever uses it has to be permitted to see the descriptors of every container's processes: one that cannot be seen may
/// be the peer.
pub struct ProcPeers {
    proc: PathBuf,
    containers: Arc<dyn Containers>,
    most: usize,
}

impl fmt::Debug for ProcPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcPeers").field("proc", &self.proc).finish_non_exhaustive()
    }
}

/// A process, by a directory that stays its own: a number that another process takes later does not lead there.
struct Holder {
    process: OwnedFd,
    descriptors: OwnedFd,
    name: String,
}

impl ProcPeers {
    /// By the file system at `proc`, `/proc` for this guest, among these containers.
    #[must_use]
    pub fn new(proc: impl Into<PathBuf>, containers: Arc<dyn Containers>) -> Self {
        Self { proc: proc.into(), containers, most: MAXIMUM_DESCRIPTORS }
    }

    /// With this many descriptors at most.
    #[cfg(test)]
    pub(super) const fn limit(&mut self, most: usize) {
        self.most = most;
    }

    fn socket(&self, peer: SocketAddr, local: SocketAddr) -> Option<u64> {
        let table = |name: &str| {
            let file = File::open(self.proc.join("net").join(name));
            match file {
                // A kernel without IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound && name == "tcp6" => {
                    Some(String::new())
                }
                file => text(file.ok()?, MAXIMUM_TABLE_BYTES),
            }
        };
        (0..MAXIMUM_READS).find_map(|_| socket_of(&[&table("tcp")?, &table("tcp6")?], peer, local))
    }

    /// Everybody who has a socket; none if a process of a container cannot be looked at.
    fn holders(&self, link: &Path) -> Option<Vec<Holder>> {
        let mut holders = Vec::new();
        let mut left = self.most;
        for entry in fs::read_dir(&self.proc).ok()? {
            let name = entry.ok()?.file_name();
            let number = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
            let Some(number) = number else { continue };
            let path = self.proc.join(number);
            match holder(&path, link, &mut left) {
                Ok(holder) => holders.extend(holder),
                // It ended meanwhile.
                Err(Errno::NOENT | Errno::SRCH) => {}
                Err(Errno::TOOBIG) => return None,
                Err(_) => {
                    // GUARD: rest-peer-unseen -> evil_container_process_that_cannot_be_seen
                    if !self.is_outside(&path) {
                        return None;
                    }
                }
            }
        }
        Some(holders)
    }

    /// Whether a process belongs to no container at all.
    fn is_outside(&self, process: &Path) -> bool {
        let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let process = openat(CWD, process, directory, Mode::empty()).ok();
        process.and_then(|process| self.containers_of(&process)).is_some_and(|found| found.is_empty())
    }

    /// The container of one process.
    fn container(&self, holder: &Holder) -> Option<ContainerId> {
        one(self.containers_of(&holder.process)?)
    }

    /// Every container whose groups a process is in.
    fn containers_of(&self, process: &OwnedFd) -> Option<Vec<ContainerId>> {
        let file = openat(process, "cgroup", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let groups = text(File::from(file), MAXIMUM_CGROUP_BYTES)?;
        if groups.is_empty() {
            return None;
        }
        let mut found = Vec::new();
        for line in groups.lines() {
            let path = line.splitn(3, ':').nth(2)?;
            // A group outside of this process's own namespace has such a path.
            if path.split('/').any(|name| name == "..") {
                return None;
            }
            found.extend(self.containers.of_cgroup(path));
        }
        Some(found)
    }
}

impl Peers for ProcPeers {
    fn container_of(&self, peer: SocketAddr, local: SocketAddr) -> Option<ContainerId> {
        let socket = self.socket(peer, local)?;
        let link = PathBuf::from(format!("socket:[{socket}]"));
        let holders = self.holders(&link)?;
        let containers: Option<Vec<_>> = holders.iter().map(|holder| self.container(holder)).collect();
        let container = one(containers?)?;
        // GUARD: rest-peer-still-holds -> evil_container_socket_leaves_its_process
        if !holders
            .iter()
            .all(|holder| descriptor(&holder.descriptors, &holder.name).is_ok_and(|it| it == link))
        {
            return None;
        }
        // GUARD: rest-peer-same-socket -> evil_container_connection_is_another
        if self.socket(peer, local) != Some(socket) {
            return None;
        }
        Some(container)
    }
}

/// The one that all of them are.
fn one(found: Vec<ContainerId>) -> Option<ContainerId> {
    let first = found.first()?.clone();
    // GUARD: rest-peer-one-container -> evil_container_shares_its_socket
    if found.iter().any(|other| *other != first) {
        return None;
    }
    Some(first)
}

fn holder(process: &Path, link: &Path, left: &mut usize) -> Result<Option<Holder>, Errno> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process = openat(CWD, process, directory, Mode::empty())?;
    let descriptors = openat(&process, "fd", directory, Mode::empty())?;
    for entry in Dir::read_from(&descriptors)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().ok().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        // GUARD: rest-peer-cap -> evil_container_many_descriptors
        if *left == 0 {
            return Err(Errno::TOOBIG);
        }
        *left = left.saturating_sub(1);
        match descriptor(&descriptors, name) {
            Ok(found) if found == link => {
                let name = name.to_owned();
                return Ok(Some(Holder { process, descriptors, name }));
            }
            // Closed meanwhile, or something else.
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn descriptor(descriptors: &OwnedFd, name: &str) -> Result<PathBuf, Errno> {
    let target = readlinkat(descriptors, name, Vec::new())?;
    Ok(PathBuf::from(target.to_string_lossy().into_owned()))
}

fn text(file: File, maximum: u64) -> Option<String> {
    // In few reads: the table may change between any two.
    let mut text = String::with_capacity(64 * 1024);
    let read = file.take(maximum + 1).read_to_string(&mut text).ok()?;
    (u64::try_from(read).ok()? <= maximum).then_some(text)
}
