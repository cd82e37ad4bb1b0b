//! What is mounted into a container.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use protocol::oci;

use super::{Facts, Limits, SpecError, floor, plain, within};

/// File systems that containers have of their own. Everything else with a device behind it is a storage, which is checked elsewhere.
const TYPES: [&str; 7] = ["cgroup", "cgroup2", "devpts", "hugetlbfs", "mqueue", "sysfs", "tmpfs"];
/// Options that change a mount that is there, or whose owners are mapped.
const REFUSED_OPTIONS: [&str; 4] = ["remount", "idmap", "ridmap", "move"];
/// Options by which what is mounted in a container appears outside.
const OUTWARD: [&str; 2] = ["shared", "rshared"];
/// Files in `/proc` that something may be mounted on.
pub(super) const PROC_FILES: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// Converts mounts; sources of binds become what they lead to.
pub(super) fn convert(asked: &[oci::Mount], facts: &Facts) -> Result<Vec<Mount>, SpecError> {
    within("mounts", asked.len(), Limits::MOUNTS)?;
    asked.iter().enumerate().map(|(index, mount)| one(&format!("mounts[{index}]"), mount, facts)).collect()
}

fn one(at: &str, asked: &oci::Mount, facts: &Facts) -> Result<Mount, SpecError> {
    let wrong = |field: &str, expected| SpecError::Mount { at: format!("{at}.{field}"), expected };
    within(&format!("{at}.options"), asked.options.len(), Limits::MOUNT_OPTIONS)?;
    let destination = floor::destination(&asked.destination)
        .ok_or_else(|| wrong("destination", "an absolute path below '/' without '..'"))?;
    // GUARD: mount-options -> evil_host_mount_options
    if !asked.options.iter().all(|option| plain(option) && !REFUSED_OPTIONS.contains(&option.as_str())) {
        return Err(wrong("options", "no remount, move, idmap or NUL"));
    }
    // GUARD: mount-outward -> evil_host_mount_that_appears_outside
    if facts.tee_active && asked.options.iter().any(|option| OUTWARD.contains(&option.as_str())) {
        return Err(SpecError::Tee { at: at.to_owned(), what: "mount what others see" });
    }
    let bind =
        asked.type_ == "bind" || asked.options.iter().any(|option| option == "bind" || option == "rbind");
    let kind = if bind { "bind" } else { asked.type_.as_str() };
    // GUARD: mount-on-proc -> evil_host_mounts_on_proc
    if !may_be_at(kind, &destination) {
        return Err(wrong("destination", "/proc only for proc, /sys only for sysfs"));
    }
    let mut mount = Mount::default();
    mount.set_destination(destination).set_uid_mappings(None).set_gid_mappings(None);
    let mut options = asked.options.clone();
    if bind {
        if !options.iter().any(|option| option == "bind" || option == "rbind") {
            options.push("rbind".to_owned());
        }
        mount.set_source(Some(floor::source(&format!("{at}.source"), &asked.source, facts)?));
    } else {
        // GUARD: mount-type -> evil_host_mounts_a_file_system_of_the_guest
        if kind != "proc" && !TYPES.contains(&kind) {
            return Err(SpecError::Floor { at: format!("{at}.type"), what: "mount such a file system" });
        }
        // GUARD: mount-source-text -> evil_host_mount_options
        if !plain(&asked.source) || asked.source.len() > Limits::PATH_BYTES {
            return Err(wrong("source", "a text without NUL"));
        }
        // The kernel makes nothing of it, and the library wants one.
        mount.set_source(Some(PathBuf::from(if asked.source.is_empty() { kind } else { &asked.source })));
    }
    mount.set_typ(Some(kind.to_owned())).set_options(Some(options));
    Ok(mount)
}

/// Whether a kind of mount may be at a place: `/proc` is `proc` and `/sys` is `sysfs`, at no other place, so that what is hidden below them
/// is hidden, and on a process's own files nothing is mounted.
fn may_be_at(kind: &str, destination: &Path) -> bool {
    let (proc, sys) = (Path::new("/proc"), Path::new("/sys"));
    match kind {
        "proc" => destination == proc,
        "sysfs" => destination == sys,
        _ if destination.starts_with(proc) => PROC_FILES.iter().any(|file| destination == Path::new(file)),
        _ => destination != sys,
    }
}
