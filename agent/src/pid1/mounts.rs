//! What is mounted: the table, and how each row is made true.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{Mode, mkdir};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_remount};

use crate::error::AgentError;
use crate::log::Key;
use crate::pid1::Notes;

const TABLE_BYTES: u64 = 1 << 20;
const MOUNT_TABLE: &str = "/proc/self/mountinfo";

/// Whether a guest can be without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Always,
    /// Only where the kernel has this type.
    IfKernelHas,
}

/// A row.
struct Row {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    data: &'static str,
    need: Need,
}

const NOTHING_RUNS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
const NO_DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const NO_PROGRAMS: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);

const PROC: Row = Row { kind: "proc", target: "/proc", flags: NOTHING_RUNS, data: "", need: Need::Always };

/// In the order in which they are mounted, behind [`PROC`].
const ROWS: [Row; 8] = [
    Row { kind: "sysfs", target: "/sys", flags: NOTHING_RUNS, data: "", need: Need::Always },
    Row {
        kind: "devtmpfs",
        target: "/dev",
        flags: MountFlags::NOSUID,
        data: "mode=0755",
        need: Need::Always,
    },
    Row {
        kind: "devpts",
        target: "/dev/pts",
        flags: NO_PROGRAMS,
        data: "mode=0620,ptmxmode=0666",
        need: Need::Always,
    },
    Row { kind: "tmpfs", target: "/dev/shm", flags: NO_DEVICES, data: "mode=1777", need: Need::Always },
    Row { kind: "tmpfs", target: "/run", flags: NO_DEVICES, data: "mode=0755", need: Need::Always },
    Row {
        kind: "cgroup2",
        target: "/sys/fs/cgroup",
        flags: NOTHING_RUNS,
        data: "nsdelegate",
        need: Need::Always,
    },
    Row {
        kind: "configfs",
        target: "/sys/kernel/config",
        flags: NOTHING_RUNS,
        data: "",
        need: Need::IfKernelHas,
    },
    Row {
        kind: "securityfs",
        target: "/sys/kernel/security",
        flags: NOTHING_RUNS,
        data: "",
        need: Need::IfKernelHas,
    },
];

/// Whether there is a `/proc` already.
pub(crate) fn has_proc() -> bool {
    Path::new(MOUNT_TABLE).is_file()
}

/// Mounts `/proc`, without which nobody knows what else is mounted.
pub(crate) fn mount_proc() -> Result<(), AgentError> {
    if has_proc() {
        return make_true(&PROC).map(drop);
    }
    new_mount(&PROC).map(drop)
}

/// Mounts everything else.
pub(crate) fn mount_all(notes: &mut Notes) -> Result<(), AgentError> {
    for row in &ROWS {
        if !make_true(row)? {
            notes.add("the kernel has no file system of this type", Key::Device, row.kind.into());
        }
    }
    link_ptmx()
}

/// Whether it is mounted now.
fn make_true(row: &Row) -> Result<bool, AgentError> {
    let table = read_table()?;
    let Some(found) = mounted_type(&table, row.target) else { return new_mount(row) };
    may_stay(row, found)?;
    mount_remount(row.target, MountFlags::BIND | row.flags, c"").map_err(failed(row))?;
    Ok(true)
}

/// Whether what is mounted is what belongs there.
fn may_stay(row: &Row, found: &str) -> Result<(), AgentError> {
    // GUARD: mount-occupied -> another_type_at_a_target_is_an_error
    if found != row.kind {
        return Err(AgentError::MountOccupied {
            target: row.target,
            expected: row.kind,
            found: found.to_owned(),
        });
    }
    Ok(())
}

fn new_mount(row: &Row) -> Result<bool, AgentError> {
    match mkdir(row.target, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        // sysfs makes the directory of a type that the kernel has.
        Err(Errno::NOENT | Errno::PERM | Errno::ACCESS) if row.need == Need::IfKernelHas => return Ok(false),
        Err(error) => return Err(failed(row)(error)),
    }
    match mount(row.kind, row.target, row.kind, row.flags, Some(&*data(row))) {
        Ok(()) => Ok(true),
        Err(Errno::NODEV) if row.need == Need::IfKernelHas => Ok(false),
        Err(error) => Err(failed(row)(error)),
    }
}

fn data(row: &Row) -> std::ffi::CString {
    std::ffi::CString::new(row.data).unwrap_or_default()
}

fn failed(row: &Row) -> impl FnOnce(Errno) -> AgentError + use<> {
    let (kind, target) = (row.kind, row.target);
    move |error| AgentError::Mount { kind, target, source: error.into() }
}

fn read_table() -> Result<String, AgentError> {
    let mut table = String::new();
    let file = File::open(MOUNT_TABLE).map_err(AgentError::io("open", MOUNT_TABLE))?;
    let read = file.take(TABLE_BYTES).read_to_string(&mut table);
    read.map_err(AgentError::io("read", MOUNT_TABLE))?;
    Ok(table)
}

/// The type that is mounted at `target`, the topmost if there are several (proc(5), `/proc/pid/mountinfo`).
fn mounted_type<'a>(table: &'a str, target: &str) -> Option<&'a str> {
    let mut lines = table.lines().rev();
    lines.find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        (place.split(' ').nth(4)? == target).then(|| kind.split(' ').next())?
    })
}

/// Targets of what is mounted and keeps its contents on a device, the last one first.
pub(super) fn on_devices() -> Vec<String> {
    let table = read_table().unwrap_or_default();
    let rows = table.lines().rev().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let target = place.split(' ').nth(4)?;
        let source = kind.split(' ').nth(1)?;
        (source.starts_with("/dev/") && target != "/").then(|| target.to_owned())
    });
    rows.collect()
}

/// `/dev/ptmx` is the one of the instance that is mounted at `/dev/pts`.
fn link_ptmx() -> Result<(), AgentError> {
    let (path, target) = ("/dev/ptmx", "/dev/pts/ptmx");
    if fs::read_link(path).is_ok_and(|found| found == Path::new(target)) {
        return Ok(());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(AgentError::io("remove", path)(error));
        }
        _ => {}
    }
    std::os::unix::fs::symlink(target, path).map_err(AgentError::io("link", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 0:20 / /proc rw,nosuid - proc proc rw
23 1 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw
24 23 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw
25 24 0:23 / /sys/fs/cgroup rw master:1 - cgroup2 cgroup2 rw,nsdelegate
26 1 8:1 / /data rw - ext4 /dev/vda rw
27 26 8:2 / /data/deep rw - ext4 /dev/vdb rw
28 1 8:2 / / rw - ext4 /dev/vdc rw
";

    #[test]
    fn the_topmost_mount_counts() {
        assert_eq!(mounted_type(TABLE, "/proc"), Some("proc"));
        assert_eq!(mounted_type(TABLE, "/sys"), Some("sysfs"));
        assert_eq!(mounted_type(TABLE, "/sys/fs/cgroup"), Some("cgroup2"));
        assert_eq!(mounted_type(TABLE, "/sys/fs"), None);
        assert_eq!(mounted_type("nonsense\n\n - \n", "/proc"), None);
    }

    #[test]
    fn another_type_at_a_target_is_an_error() {
        assert!(may_stay(&PROC, "proc").is_ok());
        for found in ["tmpfs", "fuse", "fuse.proc", ""] {
            assert_eq!(may_stay(&PROC, found).unwrap_err().code(), "AGENT_MOUNT_OCCUPIED");
        }
    }

    #[test]
    fn every_target_is_mounted_behind_what_it_lies_on() {
        for (index, row) in ROWS.iter().enumerate() {
            for later in ROWS.iter().skip(index + 1) {
                assert!(!row.target.starts_with(&format!("{}/", later.target)), "{}", row.target);
            }
            assert!(row.flags.contains(MountFlags::NOSUID), "{}", row.target);
        }
    }
}
