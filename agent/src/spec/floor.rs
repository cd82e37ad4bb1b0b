//! What no container sees, whatever specification and policy say: our own directories, other containers, interfaces of the
//! kernel that speak for the whole guest.

use std::path::{Component, Path, PathBuf};

use super::forbidden::is_forbidden_name;
use super::{Facts, Limits, SpecError, plain};

/// Our own directories. `/run` and what else leads to one of them is refused, too.
pub(super) const DIRECTORIES: [&str; 4] =
    ["/run/innerkeep", "/run/kata-containers", "/run/confidential-containers", "/run/sandbox-ns"];
/// The kernel's: containers have instances of their own.
const OF_THE_KERNEL: [&str; 2] = ["/proc", "/sys"];
/// What runtimes mount into containers from our directory: what the host shares, and what storages of the sandbox made.
const SHARED_TREES: [&str; 3] = [
    "/run/kata-containers/shared/containers",
    "/run/kata-containers/sandbox/ephemeral",
    "/run/kata-containers/sandbox/storage",
];
/// As [`SHARED_TREES`], these alone.
const SHARED_PLACES: [&str; 2] =
    ["/run/kata-containers/sandbox/resolv.conf", "/run/kata-containers/sandbox/shm"];
/// Where the kernel's directories are by another name.
const ALIASES: [(&str, &str); 1] = [("/var/run", "/run")];

/// Always hidden from containers, whatever their specification hides: memory, firmware and its tables, what configures devices or
/// evidence, and the registers of measurements.
pub(super) const ALWAYS_MASKED: [&str; 6] = [
    "/proc/kcore",
    "/sys/firmware",
    "/sys/kernel/config",
    "/sys/kernel/security",
    "/sys/kernel/debug",
    "/sys/devices/virtual/misc/tdx_guest",
];
/// Hidden as well in a confidential guest.
pub(super) const TEE_MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/devices/virtual/powercap",
];
/// Never written by containers of a confidential guest: parameters here are the whole guest's.
pub(super) const TEE_READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A path without `.` and `//`; `None` where it is not absolute, has `..` or NUL, or is longer than the kernel takes.
#[must_use]
pub(super) fn lexical(path: &str) -> Option<PathBuf> {
    if !path.starts_with('/') || !plain(path) || path.len() > Limits::PATH_BYTES {
        return None;
    }
    let mut clean = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => clean.push(name),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// A place in a container: as [`lexical`], and not its root.
#[must_use]
pub(super) fn destination(path: &str) -> Option<PathBuf> {
    lexical(path).filter(|path| path != Path::new("/"))
}

/// A place in the guest, with the directories that have two names under one.
fn of_guest(path: &str) -> Option<PathBuf> {
    let clean = lexical(path)?;
    let alias =
        ALIASES.iter().find_map(|(from, to)| Some(Path::new(to).join(clean.strip_prefix(from).ok()?)));
    Some(alias.unwrap_or(clean))
}

/// Where a source leads to, if a container may have it: `at` names it in the error.
///
/// # Errors
/// `SPEC_MOUNT`, `SPEC_MOUNT_SOURCE`, `SPEC_FLOOR`.
pub fn source(at: &str, path: &str, facts: &Facts) -> Result<PathBuf, SpecError> {
    let Some(written) = of_guest(path) else {
        return Err(SpecError::Mount { at: at.to_owned(), expected: "an absolute path without '..'" });
    };
    // GUARD: floor-source-written -> evil_host_mounts_our_directories
    check(at, &written, facts)?;
    let real = (facts.resolve)(&written).map_err(|_| SpecError::MountSource { at: at.to_owned() })?;
    // GUARD: floor-source-real -> evil_host_mounts_a_link_to_our_directories
    check(at, &real, facts)?;
    // What policy permits by a place in there is not the guest's own files.
    // GUARD: floor-source-stays -> evil_host_mounts_a_link_out_of_what_is_shared
    if shared(facts).any(|tree| written.starts_with(tree))
        && !shared(facts).any(|tree| real.starts_with(tree))
    {
        return Err(SpecError::Floor {
            at: at.to_owned(),
            what: "see what a link in a shared directory leads to",
        });
    }
    Ok(real)
}

/// What a container may have of our directories.
pub(super) fn shared(facts: &Facts) -> impl Iterator<Item = PathBuf> + '_ {
    let places = SHARED_TREES.iter().chain(&SHARED_PLACES).map(PathBuf::from);
    places.chain(facts.storages.iter().cloned()).chain([facts.bundle.join("rootfs")])
}

/// Whether a tree is, leads to, or lies in another.
fn touches(path: &Path, tree: &Path) -> bool {
    path.starts_with(tree) || tree.starts_with(path)
}

fn check(at: &str, path: &Path, facts: &Facts) -> Result<(), SpecError> {
    let refused = |what| SpecError::Floor { at: at.to_owned(), what };
    let in_dev = path.strip_prefix("/dev").ok().and_then(Path::to_str);
    // GUARD: floor-device-source -> evil_host_mounts_a_device_of_the_guest
    if in_dev.is_some_and(|name| name.is_empty() || is_forbidden_name(name)) {
        return Err(refused("have a device of the guest itself"));
    }
    // GUARD: floor-landing -> evil_host_mounts_what_has_landed
    if facts.protected.iter().any(|tree| touches(path, tree)) {
        return Err(refused("see what the guest keeps to itself"));
    }
    let shared = SHARED_TREES.iter().any(|tree| path.starts_with(tree) && path != Path::new(tree))
        || SHARED_PLACES.iter().any(|place| path == Path::new(place))
        || facts.storages.iter().any(|storage| path.starts_with(storage));
    // GUARD: floor-protected -> evil_host_mounts_our_directories
    if !shared && DIRECTORIES.iter().chain(&OF_THE_KERNEL).any(|tree| touches(path, Path::new(tree))) {
        return Err(refused("see what the guest keeps to itself"));
    }
    Ok(())
}
