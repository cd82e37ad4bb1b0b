//! Kernel parameters: those of the container's own namespaces, and those of the network, which is the sandbox's.

use std::collections::{BTreeMap, HashMap};

use super::{Limits, SpecError, within};

/// Longest value.
const MAXIMUM_VALUE_BYTES: usize = 4096;
/// Longest name.
const MAXIMUM_NAME_BYTES: usize = 256;
/// What belongs to the namespace of IPC.
const IPC: [&str; 13] = [
    "fs/mqueue/msg_default",
    "fs/mqueue/msg_max",
    "fs/mqueue/msgsize_default",
    "fs/mqueue/msgsize_max",
    "fs/mqueue/queues_max",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// Parameters by whose they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sysctls {
    /// Of the container, by name with dots, as the engine's library takes them.
    pub(super) container: HashMap<String, String>,
    /// Of the network, by path below `/proc/sys`.
    pub(super) network: BTreeMap<String, String>,
}

/// Sorts parameters. Names have dots or slashes.
///
/// # Errors
/// `SPEC_SYSCTL`, `SPEC_TOO_MANY`.
pub(super) fn sort(asked: &HashMap<String, String>) -> Result<Sysctls, SpecError> {
    within("linux.sysctl", asked.len(), Limits::SYSCTLS)?;
    let mut sysctls = Sysctls::default();
    for (name, value) in asked {
        let path = path(name)?;
        // GUARD: sysctl-value -> evil_host_parameter_of_another_form
        if value.len() > MAXIMUM_VALUE_BYTES || value.bytes().any(|byte| byte < 0x20 && byte != b'\t') {
            return Err(SpecError::Sysctl { expected: "values of one line" });
        }
        if path.starts_with("net/") {
            sysctls.network.insert(path, value.clone());
            continue;
        }
        // GUARD: sysctl-namespace -> evil_host_parameter_of_the_whole_guest
        if !IPC.contains(&path.as_str()) {
            return Err(SpecError::Sysctl { expected: "parameters of the network or of IPC" });
        }
        sysctls.container.insert(path.replace('/', "."), value.clone());
    }
    Ok(sysctls)
}

/// The path below `/proc/sys`. The first of `.` and `/` in a name separates; the other one is a letter of it: `net/ipv4/conf/eth0.1/forwarding`.
fn path(name: &str) -> Result<String, SpecError> {
    let slashes = name.find('/').is_some_and(|slash| name.find('.').is_none_or(|dot| slash < dot));
    let path: String = if slashes {
        name.to_owned()
    } else {
        name.chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                letter => letter,
            })
            .collect()
    };
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:@".contains(&byte);
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(in_name) && part.bytes().any(|byte| byte != b'.');
    // GUARD: sysctl-name -> evil_host_parameter_of_another_form
    if path.len() > MAXIMUM_NAME_BYTES || !path.contains('/') || !path.split('/').all(is_part) {
        return Err(SpecError::Sysctl { expected: "names as net.ipv4.ip_forward" });
    }
    Ok(path)
}
