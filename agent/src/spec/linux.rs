//! The part of a specification that is Linux's: namespaces, device nodes, what is hidden.

use std::path::{Path, PathBuf};

use oci_spec::runtime as run;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};
use protocol::oci;

use super::forbidden::is_forbidden_name;
use super::sysctl::Sysctls;
use super::{CgroupPath, DeviceKind, Facts, Limits, SpecError, floor, resources, within};

/// Bits of a mode; Go's other bits say what the type says.
const MODE_BITS: u32 = 0o7777;

/// Converts; without seccomp and device rules, which are beside the specification.
pub(super) fn convert(
    asked: &oci::Linux,
    facts: &Facts,
    cgroup_path: &CgroupPath,
    sysctls: Sysctls,
) -> Result<run::Linux, SpecError> {
    refuse(asked)?;
    let propagation = propagation(&asked.RootfsPropagation, facts.tee_active)?;
    let container_sysctls = Some(sysctls.container).filter(|sysctls| !sysctls.is_empty());
    let mut masked = paths("linux.maskedPaths", &asked.MaskedPaths)?;
    let mut readonly = paths("linux.readonlyPaths", &asked.ReadonlyPaths)?;
    // GUARD: floor-masked -> evil_host_leaves_memory_and_firmware_visible
    masked = with(masked, &floor::ALWAYS_MASKED);
    if facts.tee_active {
        // GUARD: tee-masked -> evil_host_privileged_container_in_a_tee
        masked = with(masked, &floor::TEE_MASKED);
        // GUARD: tee-readonly -> evil_host_privileged_container_in_a_tee
        readonly = with(readonly, &floor::TEE_READONLY);
    }
    let mut linux = run::Linux::default();
    linux
        .set_net_devices(None)
        .set_uid_mappings(None)
        .set_gid_mappings(None)
        .set_sysctl(container_sysctls)
        .set_resources(asked.Resources.as_ref().map(resources::convert).transpose()?)
        .set_cgroups_path(Some(cgroup_path.absolute()))
        .set_namespaces(Some(namespaces(&asked.Namespaces, facts)?))
        .set_devices(Some(devices(&asked.Devices, facts)?))
        .set_seccomp(None)
        .set_rootfs_propagation(propagation)
        .set_masked_paths(Some(masked))
        .set_readonly_paths(Some(readonly))
        .set_mount_label(None)
        .set_intel_rdt(None)
        .set_memory_policy(None)
        .set_personality(None)
        .set_time_offsets(None);
    Ok(linux)
}

/// What this guest does not do.
fn refuse(asked: &oci::Linux) -> Result<(), SpecError> {
    let not_enforced = |at: &str, what| SpecError::NotEnforced { at: format!("linux.{at}"), what };
    // GUARD: user-namespace-mappings -> evil_host_user_namespace
    if !asked.UIDMappings.is_empty() || !asked.GIDMappings.is_empty() {
        return Err(not_enforced("uidMappings", "a user namespace"));
    }
    // GUARD: mount-label -> evil_host_label_that_nobody_enforces
    if !asked.MountLabel.is_empty() {
        return Err(not_enforced("mountLabel", "an SELinux label"));
    }
    // GUARD: intel-rdt -> evil_host_limits_that_nobody_enforces
    if asked.IntelRdt.as_ref().is_some_and(|rdt| !rdt.L3CacheSchema.is_empty()) {
        return Err(not_enforced("intelRdt", "a part of the processor's cache"));
    }
    Ok(())
}

fn propagation(asked: &str, tee_active: bool) -> Result<Option<String>, SpecError> {
    const AT: &str = "linux.rootfsPropagation";
    // GUARD: tee-propagation -> evil_host_mount_that_appears_outside
    if tee_active && matches!(asked, "shared" | "rshared") {
        return Err(SpecError::Tee { at: AT.to_owned(), what: "mount what others see" });
    }
    match asked {
        "" => Ok(None),
        "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" | "unbindable" | "runbindable" => {
            Ok(Some(asked.to_owned()))
        }
        _ => Err(SpecError::Value { at: AT.to_owned(), expected: "private, slave, shared or unbindable" }),
    }
}

/// The namespaces of every container: mounts and control groups of its own, IPC and host name of the sandbox, processes of its own or of
/// the sandbox; the network is everybody's. What the host writes as paths does not count.
fn namespaces(asked: &[oci::LinuxNamespace], facts: &Facts) -> Result<Vec<LinuxNamespace>, SpecError> {
    within("linux.namespaces", asked.len(), Limits::NAMESPACES)?;
    for (index, namespace) in asked.iter().enumerate() {
        let at = || format!("linux.namespaces[{index}].type");
        // GUARD: user-namespace -> evil_host_user_namespace
        if namespace.Type == "user" {
            return Err(SpecError::NotEnforced { at: at(), what: "a user namespace" });
        }
        // GUARD: namespace-known -> evil_host_namespace_that_is_none
        if !["mount", "pid", "ipc", "uts", "network", "cgroup", "time"].contains(&namespace.Type.as_str()) {
            return Err(SpecError::Value { at: at(), expected: "a namespace that Linux has" });
        }
        // GUARD: namespace-once -> evil_host_namespace_that_is_none
        if asked.iter().take(index).any(|other| other.Type == namespace.Type) {
            return Err(SpecError::Value { at: at(), expected: "each namespace once" });
        }
    }
    // GUARD: mount-namespace -> evil_host_no_mount_namespace
    if !asked.iter().any(|namespace| namespace.Type == "mount" && namespace.Path.is_empty()) {
        return Err(SpecError::Missing {
            at: "linux.namespaces".to_owned(),
            expected: "a mount namespace of the container's own",
        });
    }
    let namespace = |kind, path: Option<&PathBuf>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path.cloned());
        namespace
    };
    Ok(vec![
        namespace(LinuxNamespaceType::Mount, None),
        namespace(LinuxNamespaceType::Cgroup, None),
        namespace(LinuxNamespaceType::Ipc, facts.namespaces.ipc.as_ref()),
        namespace(LinuxNamespaceType::Uts, facts.namespaces.uts.as_ref()),
        namespace(LinuxNamespaceType::Pid, facts.namespaces.pid.as_ref()),
    ])
}

fn devices(asked: &[oci::LinuxDevice], facts: &Facts) -> Result<Vec<run::LinuxDevice>, SpecError> {
    within("linux.devices", asked.len(), Limits::DEVICES)?;
    asked
        .iter()
        .enumerate()
        .map(|(index, device)| node(&format!("linux.devices[{index}]"), device, facts))
        .collect()
}

fn node(at: &str, asked: &oci::LinuxDevice, facts: &Facts) -> Result<run::LinuxDevice, SpecError> {
    let wrong = |expected| SpecError::Value { at: at.to_owned(), expected };
    let path = floor::destination(&asked.Path).ok_or_else(|| wrong("an absolute path without '..'"))?;
    // GUARD: device-node-place -> evil_host_device_node_in_proc
    if path.starts_with("/proc") || path.starts_with("/sys") {
        return Err(wrong("a place that is not the kernel's"));
    }
    let (kind, typ) = match asked.Type.as_str() {
        "b" => (Some(DeviceKind::Block), run::LinuxDeviceType::B),
        "c" | "u" => (Some(DeviceKind::Character), run::LinuxDeviceType::C),
        "p" => (None, run::LinuxDeviceType::P),
        _ => return Err(wrong("a type of b, c, u or p")),
    };
    let number = |number: i64| u32::try_from(number).map_err(|_| wrong("numbers from 0 on"));
    let (major, minor) = match kind {
        Some(_) => (number(asked.Major)?, number(asked.Minor)?),
        None => (0, 0),
    };
    let by_number = kind.is_some_and(|kind| facts.forbidden_devices.contains(kind, major, minor));
    // GUARD: forbidden-device -> evil_host_device_of_the_guest_itself
    if by_number || path.to_str().is_some_and(is_forbidden_name) {
        return Err(SpecError::Floor { at: at.to_owned(), what: "have a device of the guest itself" });
    }
    let mode = asked.FileMode & MODE_BITS;
    let mut device = run::LinuxDevice::default();
    device
        .set_path(path)
        .set_typ(typ)
        .set_major(i64::from(major))
        .set_minor(i64::from(minor))
        .set_file_mode((mode != 0).then_some(mode))
        .set_uid(Some(asked.UID))
        .set_gid(Some(asked.GID));
    Ok(device)
}

fn paths(at: &str, asked: &[String]) -> Result<Vec<String>, SpecError> {
    within(at, asked.len(), Limits::PATHS)?;
    let clean = |path: &String| {
        let path = floor::destination(path);
        path.as_deref().and_then(Path::to_str).map(str::to_owned).ok_or_else(|| SpecError::Value {
            at: at.to_owned(),
            expected: "absolute paths below '/' without '..'",
        })
    };
    asked.iter().map(clean).collect()
}

/// A list and what else belongs to it, each once.
fn with(mut paths: Vec<String>, more: &[&str]) -> Vec<String> {
    for path in more {
        if !paths.iter().any(|other| other == path) {
            paths.push((*path).to_owned());
        }
    }
    paths
}
