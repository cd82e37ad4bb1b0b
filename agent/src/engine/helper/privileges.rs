//! What a helper may do: what it takes to carry out its order, and what the process that it makes is to have, for nobody gives what he has not.
//!
//! Everything else is taken from it, and from the hooks that it runs, before it looks at a file of the container: modules, ports, the clock,
//! programs in the kernel, the end of the machine. A filter of system calls, or `no_new_privs` where the container has none, would stay with the
//! container for ever.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

use crate::engine::wire::{CapabilityBits, Task};

/// More capabilities than any kernel has.
const CAPABILITIES: u32 = 64;
/// What libcontainer needs: files and owners of a root that is not its own, users, mounts and namespaces, device nodes, limits, priorities.
const NEEDED: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_NICE)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::MKNOD);

/// Takes from this process what its order does not need.
///
/// # Errors
/// The system's.
pub(super) fn reduce(task: &Task) -> Result<(), Errno> {
    let kept = kept(task) & capabilities(None)?.permitted.bits();
    let confined = match task {
        Task::Create { guise, .. } | Task::Exec { guise, .. } => guise.no_new_privileges,
        // No process of a container comes of these, programs of hooks do.
        Task::Start | Task::Delete | Task::Ask | Task::Work(_) => true,
    };
    if confined {
        set_no_new_privs(true)?;
    }
    become_only(&CapabilityBits {
        bounding: kept,
        effective: kept,
        permitted: kept,
        inheritable: 0,
        ambient: 0,
    })
}

fn kept(task: &Task) -> u64 {
    match task {
        Task::Create { guise, .. } => NEEDED.bits() | all(&guise.capabilities),
        // The namespaces of a process with another user's number, or with capabilities that this one has not, are joined by whoever may trace it.
        Task::Exec { guise, .. } => {
            NEEDED.bits() | CapabilitySet::SYS_PTRACE.bits() | all(&guise.capabilities)
        }
        Task::Start | Task::Delete => NEEDED.bits(),
        // To become nobody, which takes the rest.
        Task::Ask => (CapabilitySet::SETGID | CapabilitySet::SETUID | CapabilitySet::SETPCAP).bits(),
        // It gives up everything, by itself, and needs some of it for that.
        Task::Work(_) => 0,
    }
}

const fn all(sets: &CapabilityBits) -> u64 {
    sets.bounding | sets.effective | sets.permitted | sets.inheritable | sets.ambient
}

/// Makes these the capabilities of this process, as far as the kernel knows them.
///
/// # Errors
/// The system's: `EPERM` for one that this process has not.
pub(super) fn become_only(wanted: &CapabilityBits) -> Result<(), Errno> {
    for number in 0..CAPABILITIES {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(one) {
            Ok(true) if wanted.bounding & one.bits() == 0 => remove_capability_from_bounding_set(one)?,
            Ok(_) => {}
            // One that this kernel does not know, nor any after it.
            Err(Errno::INVAL) => break,
            Err(other) => return Err(other),
        }
    }
    clear_ambient_capability_set()?;
    let set = CapabilitySet::from_bits_retain;
    set_capabilities(
        None,
        CapabilitySets {
            effective: set(wanted.effective),
            permitted: set(wanted.permitted),
            inheritable: set(wanted.inheritable),
        },
    )?;
    for number in 0..CAPABILITIES {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if wanted.ambient & one.bits() != 0 {
            configure_capability_in_ambient_set(one, true)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::wire::Guise;

    fn guise(capabilities: CapabilityBits) -> Guise {
        Guise { uid: 0, gid: 0, groups: Vec::new(), no_new_privileges: true, capabilities, seccomp: None }
    }

    #[test]
    fn evil_hook_of_a_helper_with_more_than_it_needs() {
        let never = [
            CapabilitySet::SYS_MODULE,
            CapabilitySet::SYS_RAWIO,
            CapabilitySet::SYS_BOOT,
            CapabilitySet::SYS_TIME,
            CapabilitySet::SYSLOG,
            CapabilitySet::BPF,
            CapabilitySet::PERFMON,
            CapabilitySet::MAC_ADMIN,
            CapabilitySet::SYS_PTRACE,
        ];
        let create =
            |capabilities| Task::Create { bundle: "/b".into(), terminal: false, guise: guise(capabilities) };
        for task in [create(CapabilityBits::default()), Task::Start, Task::Delete, Task::Ask] {
            for capability in never {
                assert_eq!(kept(&task) & capability.bits(), 0, "{task:?} {capability:?}");
            }
        }
        // What the container is to have cannot come from nowhere.
        let clock = CapabilityBits { bounding: CapabilitySet::SYS_TIME.bits(), ..CapabilityBits::default() };
        assert_ne!(kept(&create(clock)) & CapabilitySet::SYS_TIME.bits(), 0);
    }
}
