//! One request of a container, read by a process that has nothing but the connection, and its socket to the agent.
//!
//! No user's rights, no capabilities, no way to get any, and no system call but those that reading, answering and ending take: it opens nothing,
//! connects to nobody and starts nothing. It is told neither who asks nor what for, and never gets an answer to see. There is one for each
//! connection, so that a container that takes it over has its own.

use std::net::TcpStream;
use std::os::fd::OwnedFd;

use cdh::rest::{Asked, HEAD_DEADLINE, read_one};
use protocol::oci;
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, set_name, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::{Refusal, privileges};
use crate::engine::wire::CapabilityBits;
use crate::spec::Machine;
use crate::spec::seccomp::compile;
use crate::sys::seccomp;

/// Nobody's user and group.
const NOBODY: u32 = 65_534;
/// What reading takes, with a runtime that is made already.
const CALLS: [&str; 32] = [
    "brk",
    "clock_gettime",
    "close",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_wait",
    "exit",
    "exit_group",
    "fcntl",
    "futex",
    "getpid",
    "getrandom",
    "getsockopt",
    "gettid",
    "gettimeofday",
    "madvise",
    "mremap",
    "munmap",
    "nanosleep",
    "read",
    "readv",
    "recvfrom",
    "restart_syscall",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_yield",
    "sendmsg",
    "sendto",
    "shutdown",
    "sigaltstack",
    "write",
    "writev",
];
/// What maps memory: none that is executed.
const MAPPINGS: [&str; 2] = ["mmap", "mprotect"];
/// `PROT_EXEC`, in the third argument of both.
const EXECUTED: u64 = 4;

/// Reads the first request of a connection. The process is good for nothing else then.
pub(super) fn read(connection: OwnedFd) -> Result<Asked, Refusal> {
    // What takes calls that are refused afterwards.
    let connection = TcpStream::from(connection);
    connection.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // GUARD: reader-confined -> evil_container_takes_over_who_reads_its_request
    confine()?;
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(connection)?;
        read_one(stream, HEAD_DEADLINE).await.ok_or_else(|| "a connection without a request".into())
    })
}

fn confine() -> Result<(), Refusal> {
    set_name(c"rest-reader")?;
    set_no_new_privs(true)?;
    // Nothing that is executed has more, and what is left goes with the user.
    let kept = (CapabilitySet::SETGID | CapabilitySet::SETUID).bits();
    privileges::become_only(&CapabilityBits {
        effective: kept,
        permitted: kept,
        ..CapabilityBits::default()
    })?;
    set_thread_groups(&[])?;
    let (group, user) = (Gid::from_raw(NOBODY), Uid::from_raw(NOBODY));
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    privileges::become_only(&CapabilityBits::default())?;
    let program = compile(&profile(), Machine::HERE).map_err(|_| Errno::INVAL)?;
    Ok(seccomp::load(&program.instructions, program.flags)?)
}

/// Everything else is refused.
fn profile() -> oci::LinuxSeccomp {
    let allowed = |names: &[&str], args| oci::LinuxSyscall {
        Names: names.iter().map(|name| (*name).to_owned()).collect(),
        Action: "SCMP_ACT_ALLOW".to_owned(),
        Args: args,
        ..oci::LinuxSyscall::default()
    };
    let not_executed = oci::LinuxSeccompArg {
        Index: 2,
        Value: EXECUTED,
        ValueTwo: 0,
        Op: "SCMP_CMP_MASKED_EQ".to_owned(),
        ..oci::LinuxSeccompArg::default()
    };
    oci::LinuxSeccomp {
        DefaultAction: "SCMP_ACT_ERRNO".to_owned(),
        Syscalls: vec![allowed(&CALLS, Vec::new()), allowed(&MAPPINGS, vec![not_executed])],
        ..oci::LinuxSeccomp::default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::namespaces::tests::in_namespaces;

    /// What is left to a container that made the reader of its request its own.
    #[test]
    fn evil_container_takes_over_who_reads_its_request() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        in_namespaces(&["--mount"], || {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let address = listener.local_addr().unwrap();
            let client = std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(b"GET /info?a=b HTTP/1.1\r\nHost: x\r\nOrigin: y\r\n\r\n").unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).unwrap();
                answer
            });
            let (connection, _) = listener.accept().unwrap();
            let asked = read(connection.into()).unwrap();
            assert_eq!((asked.method.as_str(), asked.path.as_str()), ("GET", "/info"));
            assert_eq!((asked.query.as_deref(), asked.has_origin), (Some("a=b"), true));
            assert_eq!(asked.hosts, [Some("x".to_owned())]);
            let denied = |outcome: std::io::Result<()>| {
                assert_eq!(outcome.unwrap_err().kind(), ErrorKind::PermissionDenied);
            };
            denied(std::fs::read("/proc/self/status").map(drop));
            denied(TcpStream::connect(address).map(drop));
            denied(std::process::Command::new("/bin/true").status().map(drop));
            let root = Uid::from_raw(0);
            assert_eq!(set_thread_res_uid(root, root, root), Err(Errno::PERM));
            assert_eq!(client.join().unwrap(), b"", "nobody has answered yet");
        });
    }

    #[test]
    fn the_readers_filter_is_one_that_denies() {
        let program = compile(&profile(), Machine::HERE).unwrap();
        assert!(program.instructions.len() > CALLS.len());
        assert_eq!(profile().DefaultAction, "SCMP_ACT_ERRNO");
        let names: Vec<_> = profile().Syscalls.iter().flat_map(|rule| rule.Names.clone()).collect();
        for call in ["openat", "socket", "connect", "execve", "clone", "clone3", "ptrace", "ioctl", "unshare"]
        {
            assert!(!names.iter().any(|name| name == call), "{call}");
        }
    }
}
