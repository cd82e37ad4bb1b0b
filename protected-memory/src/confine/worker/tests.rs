use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, getpid, kill_process, pidfd_open};
use rustix::thread::{CapabilitySets, capabilities, set_capabilities};

use super::*;
use crate::sys::filter::{executable, forked};
use crate::testing::{fork, isolated, wait};

const ID: u32 = 0x7ffe_0001;
const LIMITS: WorkerLimits = WorkerLimits { file_bytes: 1 << 20, memory_bytes: 64 << 20, descriptors: 32 };
const NETWORK: WorkerKind = WorkerKind::Network { threads: 8 };

fn pipe() -> (File, File) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (read.into(), write.into())
}

fn open(path: &std::path::Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).unwrap()
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

/// What it was, and what came of it: 0 where it succeeded.
fn told<T>(name: &str, result: Result<T, impl Into<io::Error>>) -> String {
    format!("{name} {}\n", result.err().map_or(0, |error| errno(&error.into())))
}

/// Whatever somebody would try who has taken over a worker.
fn attack([parent, own]: [Pid; 2], port: u16, socket: &str, outside: &File) -> String {
    let loopback = ("127.0.0.1", port);
    let [execute, protect] = executable();
    [
        told("tcp", TcpStream::connect(loopback)),
        told("udp", UdpSocket::bind("127.0.0.1:0")),
        told("listen", TcpListener::bind("127.0.0.1:0")),
        told("vsock", socket_of(AddressFamily::VSOCK)),
        told("kernel", socket_of(AddressFamily::NETLINK)),
        told("packets", socket_of(AddressFamily::PACKET)),
        told("unix", UnixStream::connect(socket)),
        told("pair", UnixDatagram::pair()),
        told("password", File::open("/etc/passwd")),
        told("above", File::open("../../../../etc/passwd")),
        told("proc", File::open("/proc/1/environ")),
        told("own", File::open("/proc/self/exe")),
        told("list", fs::read_dir("/proc")),
        told("write", (&*outside).write(b"x")),
        told("reopen", File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(outside)))),
        told("kill", kill_process(parent, Signal::KILL)),
        told("itself", kill_process(own, Signal::STOP)),
        told("run", Command::new("/bin/true").spawn()),
        told("fork", forked()),
        told("thread", std::thread::Builder::new().spawn(|| ()).map(drop)),
        told("user", rustix::thread::set_thread_uid(Uid::ROOT)),
        told("namespace", unshare(UnshareFlags::NEWUSER)),
        told("mount", rustix::mount::mount("none", "/", "tmpfs", MountFlags::empty(), None)),
        told("unmount", rustix::mount::unmount("/", UnmountFlags::DETACH)),
        told("chroot", rustix::process::chroot("/")),
        told("memory", rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::empty())),
        told("device", rustix::fs::mknodat(CWD, "d", rustix::fs::FileType::BlockDevice, Mode::RWXU, 1)),
        told("execute", execute),
        told("protect", protect),
        told("live", rustix::process::set_parent_process_death_signal(None)),
        told("limits", rustix::process::setrlimit(Resource::Core, Rlimit { current: None, maximum: None })),
        told("lock", rustix::fs::flock(outside, rustix::fs::FlockOperation::Unlock)),
        told("flags", rustix::fs::fcntl_setfl(outside, OFlags::APPEND)),
        told("unlink", fs::remove_file("/here")),
        // What it is for.
        told("here", File::open("/here")),
        told("new", File::create("/new").and_then(|mut file| file.write_all(b"x"))),
    ]
    .concat()
}

/// What of it is done, or refused otherwise than with `EPERM`.
const OTHER: [(&str, i32); 8] = [
    ("password", 2),
    ("above", 2),
    ("proc", 2),
    ("own", 2),
    ("list", 2),
    ("write", 9),
    ("reopen", 2),
    ("here", 0),
];
const OTHER_FILES: [(&str, i32); 1] = [("new", 0)];
const OTHER_NETWORK: [(&str, i32); 4] = [("tcp", 0), ("udp", 0), ("thread", 0), ("new", 13)];

fn socket_of(family: AddressFamily) -> Result<OwnedFd, rustix::io::Errno> {
    rustix::net::socket(family, SocketType::STREAM, None)
}

/// Looked at from outside: what the kernel says of it.
fn look(process: Pid, kind: WorkerKind) {
    let at = |name: &str| format!("/proc/{}/{name}", process.as_raw_nonzero());
    let status = fs::read_to_string(at("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid"), vec![ID.to_string(); 4]);
    assert_eq!(field("Gid"), vec![ID.to_string(); 4]);
    assert!(field("Groups").is_empty());
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), (vec!["1".to_owned()], vec!["2".to_owned()]));
    for (space, is_own) in [("net", kind == WorkerKind::Files), ("ipc", true), ("uts", true)] {
        let ours = fs::read_link(format!("/proc/self/ns/{space}")).unwrap();
        assert_eq!(fs::read_link(at(&format!("ns/{space}"))).unwrap() != ours, is_own, "{space}");
    }
    // Not dumpable: its files there are root's.
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(at("status")).unwrap()), 0);
    let limits = fs::read_to_string(at("limits")).unwrap();
    let threads = if kind == WorkerKind::Files { 0 } else { 8 };
    for (name, most) in [
        ("Max processes", threads),
        ("Max core file size", 0),
        ("Max open files", 32),
        ("Max file size", 1 << 20),
    ] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert_eq!(line.split_whitespace().next().unwrap(), most.to_string(), "{name}");
    }
}

#[test]
fn evil_worker() {
    isolated(|| taken_over(WorkerKind::Files, &OTHER_FILES));
}

#[test]
fn evil_worker_with_a_network() {
    isolated(|| taken_over(NETWORK, &OTHER_NETWORK));
}

fn taken_over(kind: WorkerKind, other: &[(&str, i32)]) {
    if !geteuid().is_root() {
        // Nobody else can become one, and who cannot is told.
        let error = become_worker(open(std::path::Path::new("/")), ID, kind, &LIMITS).unwrap_err();
        assert_eq!(error.code(), "MEM-067");
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("here"), b"x").unwrap();
    fs::write(outside.path().join("secret"), b"secret").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = outside.path().join("socket");
    let _unix = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let port = listener.local_addr().unwrap().port();
    let ((mut report, tell), (wait_for, mut go), parent) = (pipe(), pipe(), getpid());
    // The more it has, the more it has to lose.
    let own = capabilities(None).unwrap();
    let all = CapabilitySets { inheritable: own.permitted, ..own };
    set_capabilities(None, all).unwrap();
    let child = fork(|| {
        let read_only = File::open(outside.path().join("secret")).unwrap();
        let own = getpid();
        become_worker(open(&root), ID, kind, &LIMITS).unwrap();
        let (mut tell, mut wait_for) = (&tell, &wait_for);
        tell.write_all(&[1]).unwrap();
        wait_for.read_exact(&mut [0]).unwrap();
        let found = attack([parent, own], port, socket.to_str().unwrap(), &read_only);
        tell.write_all(found.as_bytes()).unwrap();
        0
    });
    drop(tell);
    report.read_exact(&mut [0]).unwrap();
    look(child, kind);
    go.write_all(&[1]).unwrap();
    let mut text = String::new();
    report.read_to_string(&mut text).unwrap();
    assert_eq!(wait(child).code(), Some(0));
    assert_eq!(text.lines().count(), 36, "{text}");
    for line in text.lines() {
        let (name, found) = line.split_once(' ').unwrap();
        let mut others = OTHER.iter().chain(other);
        let expected = others.find(|(other, _)| *other == name).map_or(1, |(_, errno)| *errno);
        assert_eq!(found, expected.to_string(), "{name}");
    }
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
}

#[test]
fn evil_worker_outlives_whoever_started_it() {
    isolated(|| {
        if !geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let ((mut ready, tell), (mut numbers, name), (wait_for, go)) = (pipe(), pipe(), pipe());
        let parent = fork(|| {
            let worker = fork(|| {
                become_worker(open(root.path()), ID, WorkerKind::Files, &LIMITS).unwrap();
                (&tell).write_all(&[1]).unwrap();
                // For ever: the test holds the other end.
                let _ = (&wait_for).read(&mut [0]);
                0
            });
            (&name).write_all(&worker.as_raw_nonzero().get().to_le_bytes()).unwrap();
            std::thread::sleep(Duration::from_secs(60));
            0
        });
        let mut number = [0; 4];
        numbers.read_exact(&mut number).unwrap();
        ready.read_exact(&mut [0]).unwrap();
        let worker = Pid::from_raw(i32::from_le_bytes(number)).unwrap();
        let worker = pidfd_open(worker, PidfdFlags::empty()).unwrap();
        kill_process(parent, Signal::KILL).unwrap();
        wait(parent);
        let soon = Timespec { tv_sec: 10, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&worker, PollFlags::IN)], Some(&soon)).unwrap();
        // One that lives has this test's streams, and would hold up whoever reads them.
        let _ = rustix::process::pidfd_send_signal(&worker, Signal::KILL);
        assert_eq!(ended, 1, "the worker lives");
        drop(go);
    });
}
