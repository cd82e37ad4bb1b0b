//! What is mounted in a container beside its root: made by the guest, or files of the host.

use super::entitled::By;
use super::error::SealedError;

/// Longest table that is read: a mount has a line of some hundred bytes.
pub(super) const MAXIMUM_TABLE_BYTES: u64 = 4 << 20;
/// File systems that have no files but the kernel's.
const KERNEL: [&str; 7] = ["proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "securityfs"];
/// Files that runtimes give every container.
const USUAL: [&str; 4] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"];
/// Directories of tokens that runtimes give every container.
const USUAL_BELOW: [&str; 2] = ["/var/run/secrets/", "/run/secrets/"];

/// One line of `mountinfo`, as far as it matters.
#[derive(Debug)]
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (head, tail) = line.split_once(" - ")?;
        let mut fields = head.split(' ').skip(3);
        Some(Self { root: fields.next()?, point: fields.next()?, kind: tail.split(' ').next()? })
    }

    /// No file of it comes from outside: the kernel's, or a tmpfs of its own that began empty; `/dev/null` over a file that is hidden.
    fn is_guests(&self) -> bool {
        let hides =
            self.root == "/null" && (self.point.starts_with("/proc/") || self.point.starts_with("/sys/"));
        KERNEL.contains(&self.kind)
            || (self.kind == "tmpfs" && (self.root == "/" || hides))
            || (self.kind == "devtmpfs" && hides)
    }

    fn is_usual(&self) -> bool {
        USUAL.contains(&self.point) || USUAL_BELOW.iter().any(|below| self.point.starts_with(below))
    }
}

/// Refuses files of the host beside the verified root, where nothing but the process was named: with the right arguments over other files it is
/// another program. A policy that admitted the container by its index admitted its mounts.
pub(super) fn judge(table: &str, by: By) -> Result<(), SealedError> {
    for line in table.lines() {
        let Some(mount) = Mount::parse(line) else {
            let shown = line.chars().take(64).collect();
            return Err(SealedError::HostFiles { path: shown, kind: "a line that is none".to_owned() });
        };
        let fine = mount.point == "/" || mount.is_guests() || mount.is_usual() || by == By::Policy;
        // GUARD: sealed-host-files -> evil_host_mounts_over_the_verified_root
        if !fine {
            return Err(SealedError::HostFiles { path: mount.point.to_owned(), kind: mount.kind.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "\
100 90 253:0 / / ro,relatime - erofs /dev/dm-0 ro
101 100 0:50 / /proc rw,nosuid - proc proc rw
102 100 0:51 / /dev rw - tmpfs tmpfs rw,size=64k
103 102 0:52 / /dev/pts rw - devpts devpts rw
104 102 0:53 / /dev/shm rw - tmpfs shm rw
105 102 0:54 / /dev/mqueue rw - mqueue mqueue rw
106 100 0:55 / /sys ro - sysfs sysfs ro
107 106 0:56 /kubepods/x /sys/fs/cgroup ro - cgroup2 cgroup rw
108 101 0:50 /sys /proc/sys ro - proc proc rw
109 101 0:51 /null /proc/kcore rw - tmpfs tmpfs rw
110 100 0:25 /kata-containers/shared/containers/x-hosts /etc/hosts rw - tmpfs tmpfs rw
111 100 0:25 /kata-containers/shared/containers/x-token /var/run/secrets/kubernetes.io/serviceaccount ro - tmpfs tmpfs rw
";

    #[test]
    fn usual_mounts_are_fine() {
        judge(FINE, By::Process).unwrap();
        judge(FINE, By::Policy).unwrap();
    }

    #[test]
    fn evil_host_mounts_over_the_verified_root() {
        for line in [
            "120 100 0:60 / /usr rw - virtiofs kataShared rw",
            "120 100 0:60 /x /bin/serve ro - virtiofs kataShared rw",
            "120 100 0:25 /kata-containers/shared/containers/x-lib /lib/ld-linux.so ro - tmpfs tmpfs rw",
            "120 100 254:0 / /opt rw - ext4 /dev/vda rw",
            "120 100 0:61 / /app rw - overlay overlay rw",
            "120 100 0:62 / /mnt rw - fuse.x x rw",
            "120 100 0:63 / /mnt rw - 9p x rw",
            "120 100 0:25 /null /bin/serve ro - tmpfs tmpfs rw",
            "120 100 0:25 /x /etc/hosts.d ro - tmpfs tmpfs rw",
            "120 100 0:25 /x /run/secretsx ro - tmpfs tmpfs rw",
            "no mount at all",
        ] {
            let error = judge(&format!("{FINE}{line}\n"), By::Process).unwrap_err();
            assert_eq!(error.code(), "SEALED_HOST_FILES", "{line}");
        }
        // The policy that gave this container its index has judged its mounts.
        judge(&format!("{FINE}120 100 0:60 / /data rw - virtiofs kataShared rw\n"), By::Policy).unwrap();
    }
}
