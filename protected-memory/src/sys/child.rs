//! Processes between fork and exec, and namespaces of the calling process.

#![expect(unsafe_code, reason = "fork, namespaces and what runs between fork and exec")]

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, LinkNameSpaceType, UnshareFlags,
    clear_ambient_capability_set, move_into_link_name_space, set_capabilities, set_capabilities_secure_bits,
    set_no_new_privs, unshare_unsafe,
};

use super::signals::SignalSet;

/// Leaves the namespaces named by the flags for new ones. Only for a process with one thread.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the only flags that callers pass are NEWUSER, NEWNS, NEWNET, NEWIPC and NEWUTS; none shares or unshares memory or descriptors.
    unsafe { unshare_unsafe(flags) }?;
    Ok(())
}

/// A process that holds a fresh user namespace open until this value is dropped.
pub(crate) struct UserNamespaceHolder {
    pid: Pid,
    /// Closing it tells the process to end.
    release: Option<OwnedFd>,
}

impl UserNamespaceHolder {
    /// Forks a process into a user namespace of its own. Only for a process with one thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (ready_read, ready_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (release_read, release_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // SAFETY: the caller has one thread, so the child may do everything; it ends in `_exit` and never returns.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop((ready_read, release_write));
                let answer = match unshare(UnshareFlags::NEWUSER) {
                    Ok(()) => 0,
                    Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
                };
                let told = std::fs::File::from(ready_write).write_all(&answer.to_ne_bytes());
                if told.is_ok() {
                    // Ends when the other process closes its end, or dies.
                    let _ = std::fs::File::from(release_read).read(&mut [0]);
                }
                // SAFETY: ends the child without running the parent's exit handlers.
                unsafe { libc::_exit(0) }
            }
            pid => {
                drop((ready_write, release_read));
                let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
                let holder = Self { pid, release: Some(release_write) };
                let mut answer = [0; size_of::<i32>()];
                std::fs::File::from(ready_read).read_exact(&mut answer)?;
                match i32::from_ne_bytes(answer) {
                    0 => Ok(holder),
                    errno => Err(io::Error::from_raw_os_error(errno)),
                }
            }
        }
    }

    /// The process.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }
}

impl Drop for UserNamespaceHolder {
    fn drop(&mut self) {
        self.release = None;
        let _ = rustix::process::waitpid(Some(self.pid), rustix::process::WaitOptions::empty());
    }
}

/// Adds the confinement to a command: it runs in the child after the fork, before the exec.
pub(crate) fn confine(command: &mut Command, user_namespace: OwnedFd, parent: Pid, signal_mask: SignalSet) {
    let confine = move || enter_confinement(user_namespace.as_fd(), parent, &signal_mask);
    // SAFETY: `enter_confinement` makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(confine) };
}

/// What the child does before the exec. Async-signal-safe.
fn enter_confinement(user_namespace: BorrowedFd<'_>, parent: Pid, signal_mask: &SignalSet) -> io::Result<()> {
    // GUARD: consumer-user-namespace -> consumer_is_in_its_own_user_namespace
    move_into_link_name_space(user_namespace, Some(LinkNameSpaceType::User))?;
    // GUARD: consumer-mount-namespace -> consumer_is_in_its_own_mount_namespace
    unshare(UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // GUARD: consumer-core-limit -> consumer_cannot_dump_core
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // GUARD: consumer-secure-bits -> consumer_root_gains_no_capabilities
    set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )?;
    // GUARD: consumer-bounding-set -> consumer_bounding_set_is_empty
    drop_bounding_set()?;
    clear_ambient_capability_set()?;
    // GUARD: consumer-no-new-privileges -> consumer_gains_no_new_privileges
    set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    // GUARD: consumer-dies-with-parent -> consumer_dies_with_its_parent
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(parent) {
        // The parent died before the line above.
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    // GUARD: consumer-descriptors -> consumer_inherits_no_descriptor
    close_descriptors_at_exec()?;
    signal_mask.install()
}

/// Whatever is executed from now on has no capability.
pub(crate) fn drop_bounding_set() -> io::Result<()> {
    for capability in 0..64 {
        // SAFETY: prctl with these arguments takes no pointer.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if result != 0 {
            let error = io::Error::last_os_error();
            // The first number that is no capability of this kernel.
            return if error.raw_os_error() == Some(libc::EINVAL) && capability > 0 {
                Ok(())
            } else {
                Err(error)
            };
        }
    }
    Ok(())
}

/// Standard input, output and error stay; everything else ends at the exec.
fn close_descriptors_at_exec() -> io::Result<()> {
    // SAFETY: marks descriptors only; what std holds for reporting a failed exec is closed at exec anyway.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens a process's file under `/proc`.
pub(crate) fn proc_path(pid: Pid, name: &str) -> String {
    format!("/proc/{}/{name}", pid.as_raw_nonzero())
}
