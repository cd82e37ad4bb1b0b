//! A process that reads bytes of strangers, and has nothing that it does not need for that.
//!
//! ```text
//!  root directory, descriptors that it got before ──▶ become_worker ──▶ no other file, no other process, no privilege, no way to
//!                                                                       any of them: a list of system calls
//!                                         WorkerKind::Files ──▶ no network     WorkerKind::Network ──▶ nothing to write, TCP and UDP as a client
//! ```
//!
//! All of it or an error: there is no weaker form. It takes the rights of root of the machine (`CAP_SYS_ADMIN`, `CAP_SYS_CHROOT`, `CAP_SETUID`,
//! `CAP_SETGID`, `CAP_CHOWN`), which are gone afterwards. A mount namespace is not made: it would hold every mount of the machine for
//! as long as the process lives, and a root directory that cannot be left, without a descriptor of any other directory, does the same.
//! Landlock would add nothing: no path leads out, no socket but those of the internet, and there are no signals.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{Gid, Uid};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{
    CapabilitySet, CapabilitySets, UnshareFlags, clear_ambient_capability_set, set_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::ConfineError;
use crate::sys::child::{drop_bounding_set, unshare};
use crate::sys::filter::{self, Call};

/// How much a worker may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerLimits {
    /// Longest file that it writes, in bytes.
    pub file_bytes: u64,
    /// Memory of its own, in bytes.
    pub memory_bytes: u64,
    /// Descriptors at a time.
    pub descriptors: u64,
}

/// What a worker is for, beside reading and writing what it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerKind {
    /// New files below its root, which becomes its property. No thread but its one.
    Files,
    /// Connections to others on the internet, of this machine's network. Its root stays somebody else's, who
    /// alone may alter it.
    Network {
        /// Threads of all processes of this user.
        threads: u64,
    },
}

/// What is left to each: reading and writing what is open, memory that is not executed, the end.
const CALLS: &[Call] = &[
    Call::any(libc::SYS_read),
    Call::any(libc::SYS_write),
    Call::any(libc::SYS_pread64),
    Call::any(libc::SYS_lseek),
    Call::any(libc::SYS_fstat),
    Call::any(libc::SYS_newfstatat),
    Call::any(libc::SYS_openat),
    Call::any(libc::SYS_close),
    // Descriptors come this way.
    Call::any(libc::SYS_recvmsg),
    Call::one_of(libc::SYS_fcntl, 1, [libc::F_GETFL.unsigned_abs(), libc::F_GETFD.unsigned_abs()]),
    Call::without(libc::SYS_mmap, 2, libc::PROT_EXEC.unsigned_abs()),
    Call::without(libc::SYS_mprotect, 2, libc::PROT_EXEC.unsigned_abs()),
    Call::any(libc::SYS_munmap),
    Call::any(libc::SYS_mremap),
    Call::any(libc::SYS_madvise),
    Call::any(libc::SYS_brk),
    Call::any(libc::SYS_getrandom),
    Call::any(libc::SYS_clock_gettime),
    Call::any(libc::SYS_restart_syscall),
    // A crash is to be one: handlers put themselves away.
    Call::any(libc::SYS_rt_sigaction),
    Call::any(libc::SYS_rt_sigprocmask),
    Call::any(libc::SYS_rt_sigreturn),
    Call::any(libc::SYS_sigaltstack),
    Call::any(libc::SYS_exit),
    Call::any(libc::SYS_exit_group),
];

/// [`WorkerKind::Files`]: new files below the root.
const FILES: &[Call] = &[
    Call::any(libc::SYS_ftruncate),
    Call::any(libc::SYS_fstatfs),
    Call::any(libc::SYS_mkdirat),
    Call::any(libc::SYS_linkat),
];

/// [`WorkerKind::Network`]: sockets of the internet (not of this machine's programs, its host, its kernel), none of which listens; waiting; threads.
const NETWORK: &[Call] = &[
    Call::one_of(libc::SYS_socket, 0, [libc::AF_INET.unsigned_abs(), libc::AF_INET6.unsigned_abs()]),
    Call::any(libc::SYS_connect),
    // Whoever looks up names takes a port for the answers.
    Call::any(libc::SYS_bind),
    Call::any(libc::SYS_getsockname),
    Call::any(libc::SYS_getpeername),
    Call::any(libc::SYS_getsockopt),
    Call::any(libc::SYS_setsockopt),
    Call::any(libc::SYS_shutdown),
    Call::any(libc::SYS_sendto),
    Call::any(libc::SYS_recvfrom),
    Call::any(libc::SYS_sendmsg),
    Call::any(libc::SYS_sendmmsg),
    Call::any(libc::SYS_recvmmsg),
    Call::any(libc::SYS_readv),
    Call::any(libc::SYS_writev),
    // How much there is to read.
    Call::one_of(libc::SYS_ioctl, 1, [FIONREAD, FIONREAD]),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_poll),
    Call::any(libc::SYS_ppoll),
    Call::any(libc::SYS_epoll_ctl),
    Call::any(libc::SYS_epoll_pwait),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_epoll_wait),
    Call::any(libc::SYS_futex),
    Call::any(libc::SYS_nanosleep),
    Call::any(libc::SYS_clock_nanosleep),
    Call::any(libc::SYS_sched_yield),
    Call::any(libc::SYS_sched_getaffinity),
    Call::any(libc::SYS_gettid),
    Call::any(libc::SYS_getpid),
    Call::any(libc::SYS_uname),
    Call::any(libc::SYS_set_robust_list),
    Call::any(libc::SYS_rseq),
    // Threads, and never processes. Where the flags are in memory they cannot be judged.
    Call::unknown(libc::SYS_clone3),
    Call::with(libc::SYS_clone, 0, libc::CLONE_THREAD.unsigned_abs()),
];

/// The lower half is its whole number.
const FIONREAD: u32 = 0x541b;

/// Closes every descriptor but standard input, output and error. First in a program of its own: whoever holds another one loses it.
///
/// # Errors
///
/// [`ConfineError::Worker`].
pub fn close_descriptors() -> Result<(), ConfineError> {
    filter::close_descriptors().map_err(failed("closing of descriptors"))
}

/// Makes this process, which has one thread, a worker: `root` becomes its root, and it becomes user and group `id`.
/// It keeps the descriptors that it has. Whoever started it and dies takes it with him.
///
/// # Errors
///
/// [`ConfineError::ThreadsExist`], [`ConfineError::Worker`]. It is half a worker then, and has to end.
pub fn become_worker(
    root: impl AsFd,
    id: u32,
    kind: WorkerKind,
    limits: &WorkerLimits,
) -> Result<(), ConfineError> {
    super::namespaces::require_one_thread()?;
    let root = root.as_fd();
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    // GUARD: worker-limits -> evil_worker
    limit(kind, limits)?;
    let (own_network, calls) = match kind {
        WorkerKind::Files => (UnshareFlags::NEWNET, FILES),
        WorkerKind::Network { .. } => (UnshareFlags::empty(), NETWORK),
    };
    // GUARD: worker-namespaces -> evil_worker
    unshare(own_network | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)
        .map_err(failed("unshare of network, IPC and host name"))?;
    if kind == WorkerKind::Files {
        rustix::fs::fchown(root, Some(user), Some(group)).map_err(failed("owning of the root"))?;
    }
    rustix::process::fchdir(root).map_err(failed("entering of the root"))?;
    // GUARD: worker-root -> evil_worker
    rustix::process::chroot(".").map_err(failed("change of the root"))?;
    // GUARD: worker-bounding-set -> evil_worker
    drop_bounding_set().map_err(failed("emptying of the bounding set"))?;
    clear_ambient_capability_set().map_err(failed("emptying of the ambient set"))?;
    set_thread_groups(&[]).map_err(failed("leaving of groups"))?;
    // GUARD: worker-group -> evil_worker
    set_thread_res_gid(group, group, group).map_err(failed("change of the group"))?;
    // GUARD: worker-user -> evil_worker
    set_thread_res_uid(user, user, user).map_err(failed("change of the user"))?;
    let none = CapabilitySet::empty();
    // GUARD: worker-capabilities -> evil_worker
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(failed("giving up of capabilities"))?;
    // GUARD: worker-no-new-privileges -> evil_worker
    rustix::thread::set_no_new_privs(true).map_err(failed("no_new_privs"))?;
    // What changed its user may be one to look into again, and has forgotten when it is to die.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("not dumpable"))?;
    // GUARD: worker-dies-with-parent -> evil_worker_outlives_whoever_started_it
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(failed("death with the parent"))?;
    // GUARD: worker-filter -> evil_worker
    filter::install(&[CALLS, calls].concat()).map_err(failed("filter of system calls"))?;
    Ok(())
}

fn limit(kind: WorkerKind, limits: &WorkerLimits) -> Result<(), ConfineError> {
    let threads = match kind {
        WorkerKind::Files => 0,
        WorkerKind::Network { threads } => threads,
    };
    let all = [
        (Resource::Core, 0),
        (Resource::Nproc, threads),
        (Resource::Memlock, 0),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Data, limits.memory_bytes),
        (Resource::Nofile, limits.descriptors),
    ];
    for (resource, most) in all {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::setrlimit(resource, limit).map_err(failed("limits"))?;
    }
    Ok(())
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> ConfineError {
    move |source| ConfineError::Worker { step, source: source.into() }
}

#[cfg(test)]
mod tests;
