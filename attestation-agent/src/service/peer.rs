//! Who is at the other end of a connection, by the word of the kernel.
//!
//! User and process are those that called `connect`. Namespaces and control group are read by process id right after:
//! a process that ends in between and whose number is taken by another is a container to us only if the other one is.
//! What the socket gives a container is decided by which sockets are mounted into it, not by this alone.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::PathBuf;

use tokio::net::UnixStream;

use crate::report_data::WorkloadIdentity;
use crate::service::error::ServiceError;

const MAXIMUM_CGROUP_BYTES: u64 = 64 * 1024;
const NAMESPACES: [&str; 3] = ["mnt", "pid", "user"];

/// Where a peer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In other namespaces than this process, or nobody can tell.
    Container,
    /// Beside this process: a part of the measured image.
    Image,
}

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Path of the socket by which it came.
    pub socket: String,
    /// Its user.
    pub uid: u32,
    /// Its control group.
    pub cgroup: String,
    /// Where it runs.
    pub placement: Placement,
}

impl Peer {
    /// The peer of a connection on `socket`.
    ///
    /// # Errors
    /// `ATTEST_PEER_UNKNOWN` if the kernel does not tell.
    pub fn of(stream: &UnixStream, socket: &str) -> Result<Self, ServiceError> {
        let credentials = stream.peer_cred().map_err(ServiceError::PeerUnknown)?;
        let pid = credentials.pid().filter(|pid| *pid > 0);
        let pid = pid.ok_or_else(|| ServiceError::PeerUnknown(io::ErrorKind::NotFound.into()))?;
        let process = PathBuf::from(format!("/proc/{pid}"));
        let cgroup = control_group(&process).map_err(ServiceError::PeerUnknown)?;
        let beside = NAMESPACES.into_iter().all(|name| is_shared(&process, name));
        let placement = if beside { Placement::Image } else { Placement::Container };
        Ok(Self { socket: socket.to_owned(), uid: credentials.uid(), cgroup, placement })
    }

    /// Its identity in evidence.
    #[must_use]
    pub fn identity(&self) -> WorkloadIdentity {
        WorkloadIdentity::of(&self.socket, self.uid, &self.cgroup)
    }
}

/// The path in the unified hierarchy, else in the one of the init system.
fn control_group(process: &std::path::Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(process.join("cgroup"))?.take(MAXIMUM_CGROUP_BYTES).read_to_string(&mut text)?;
    let path = |prefix: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.split_once(':')?.1.strip_prefix(prefix).map(str::to_owned))
    };
    path(":").or_else(|| path("name=systemd:")).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Whether a process shares a namespace with this one. What cannot be seen is not shared.
fn is_shared(process: &std::path::Path, name: &str) -> bool {
    let own = fs::read_link(format!("/proc/self/ns/{name}"));
    let other = fs::read_link(process.join("ns").join(name));
    matches!((own, other), (Ok(own), Ok(other)) if own == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_in_this_process_is_of_the_image() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours, "/run/aa.sock").unwrap();
        assert_eq!(peer.placement, Placement::Image);
        assert_eq!(peer.uid, rustix::process::getuid().as_raw());
        assert!(peer.cgroup.starts_with('/'), "{}", peer.cgroup);
    }

    #[test]
    fn control_groups_of_both_kinds_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let found = |text: &str| {
            fs::write(directory.path().join("cgroup"), text).unwrap();
            control_group(directory.path()).ok()
        };
        assert_eq!(found("0::/pod/c1\n").as_deref(), Some("/pod/c1"));
        assert_eq!(found("9:name=systemd:/a\n8:pids:/b\n").as_deref(), Some("/a"));
        assert_eq!(found("9:name=systemd:/a\n0::/b:c\n").as_deref(), Some("/b:c"));
        assert_eq!(found("8:pids:/b\n"), None);
    }

    #[test]
    fn a_process_that_cannot_be_seen_shares_nothing() {
        assert!(is_shared(std::path::Path::new("/proc/self"), "mnt"));
        assert!(!is_shared(std::path::Path::new("/proc/4194305"), "mnt"));
    }
}
