use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsPickFlags, MountPropagationFlags, UnmountFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick,
    mount_change, unmount,
};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process, pidfd_open, setrlimit,
};
use rustix::thread::{CapabilitiesSecureBits, UnshareFlags, capabilities_secure_bits};

use super::{NamespaceKind, PrivateNamespaces, enter_private_namespaces};
use crate::landing::{Complete, Landing};
use crate::sys::child::unshare;
use crate::sys::mount_attributes::set_mount_read_only;
use crate::testing::{fork, isolated, landing, name, wait};

/// Tells the test below that it runs as the consumer: the path of the landed file.
const PROBE: &str = "INNERKEEP_TEST_PROBE";

fn landed() -> (PrivateNamespaces, Landing<Complete>) {
    let (namespaces, mut landing) = landing(&[5]);
    landing.file_mut(0).unwrap().window().unwrap().bytes_mut().copy_from_slice(b"plain");
    (namespaces, landing.complete().unwrap())
}

/// What a consumer prints.
fn output(namespaces: &PrivateNamespaces, mut command: Command) -> String {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    command.stdout(write);
    assert!(namespaces.run(command).unwrap().success());
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    text
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// One field of the consumer's `/proc/self/status`.
fn status_field(field: &str) -> String {
    let namespaces = enter_private_namespaces().unwrap();
    let status = output(&namespaces, command("cat", &["/proc/self/status"]));
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.trim().to_owned()
}

#[test]
fn consumer_reads_the_landing_and_its_status_is_returned() {
    isolated(|| {
        let (mut namespaces, landed) = landed();
        let mount = namespaces.attach(&landed, &name("model")).unwrap();
        let path = mount.file(&name("file-0"));
        let text = output(&namespaces, command("cat", &[path.to_str().unwrap()]));
        assert_eq!(text, "plain");
        let status = namespaces.run(command("sh", &["-c", "exit 7"])).unwrap();
        assert_eq!(status.code(), Some(7));
        let error = namespaces.run(command("/no/such/program", &[])).unwrap_err();
        assert_eq!(error.code(), "MEM-065");
        let second = namespaces.attach(&landed, &name("again")).unwrap();
        assert_eq!(fs::read(second.file(&name("file-0"))).unwrap(), b"plain");
    });
}

#[test]
fn consumer_cannot_remount_or_write() {
    isolated(|| {
        let (mut namespaces, landed) = landed();
        let mount = namespaces.attach(&landed, &name("model")).unwrap();
        let mut probe =
            command("/proc/self/exe", &["--exact", "confine::tests::consumer_probe", "--nocapture"]);
        probe.env(PROBE, mount.file(&name("file-0")));
        assert!(namespaces.run(probe).unwrap().success());
        // The attempts have changed nothing.
        assert_eq!(fs::read(mount.file(&name("file-0"))).unwrap(), b"plain");
    });
}

/// Runs as the consumer, started by the test above; by itself it has nothing to do.
#[test]
fn consumer_probe() {
    let Some(file) = std::env::var_os(PROBE) else { return };
    let file = Path::new(&file);
    assert_eq!(fs::read(file).unwrap(), b"plain");
    attack(file);
    // With full capabilities in a user namespace of its own, if the machine lets it have one.
    let escaped = wait(fork(|| {
        if unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).is_ok() {
            attack(file);
        }
        0
    }));
    assert_eq!(escaped.code(), Some(0));
}

/// Everything that could make the landing writable, hidden or shared again. Each must fail.
fn attack(file: &Path) {
    let directory = file.parent().unwrap();
    let room = directory.parent().unwrap();
    assert!(fs::OpenOptions::new().write(true).open(file).is_err());
    assert!(fs::write(directory.join("new"), b"x").is_err());
    assert!(fs::write(room.join("new"), b"x").is_err());
    assert!(fs::remove_file(file).is_err());
    assert!(unmount(directory, UnmountFlags::DETACH).is_err());
    assert!(unmount(room, UnmountFlags::DETACH).is_err());
    let picked = fspick(CWD, directory, FsPickFlags::FSPICK_CLOEXEC);
    let remounted = picked.and_then(|context| {
        fsconfig_set_flag(&context, "rw")?;
        fsconfig_reconfigure(&context)
    });
    assert!(remounted.is_err(), "the superblock was remounted");
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let mount = openat(CWD, directory, flags, rustix::fs::Mode::empty()).unwrap();
    assert!(set_mount_read_only(mount.as_fd(), false).is_err(), "the mount was remounted");
    assert!(fs::OpenOptions::new().write(true).open(file).is_err());
}

#[test]
fn consumer_has_no_capabilities() {
    isolated(|| {
        for field in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            let namespaces_of_each = fork(|| {
                assert_eq!(status_field(field), "0000000000000000", "{field}");
                0
            });
            assert_eq!(wait(namespaces_of_each).code(), Some(0));
        }
    });
}

#[test]
fn consumer_bounding_set_is_empty() {
    isolated(|| assert_eq!(status_field("CapBnd"), "0000000000000000"));
}

#[test]
fn consumer_gains_no_new_privileges() {
    isolated(|| assert_eq!(status_field("NoNewPrivs"), "1"));
}

#[test]
fn consumer_root_gains_no_capabilities() {
    isolated(|| {
        let namespaces = enter_private_namespaces().unwrap();
        let mut probe =
            command("/proc/self/exe", &["--exact", "confine::tests::secure_bits_probe", "--nocapture"]);
        probe.env(PROBE, "secure bits");
        assert!(namespaces.run(probe).unwrap().success());
    });
}

/// Runs as the consumer, started by the test above; by itself it has nothing to do.
#[test]
fn secure_bits_probe() {
    if std::env::var_os(PROBE).is_some() {
        let bits = capabilities_secure_bits().unwrap();
        assert!(
            bits.contains(CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED),
            "{bits:?}"
        );
    }
}

#[test]
fn consumer_keeps_the_user() {
    isolated(|| {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let namespaces = enter_private_namespaces().unwrap();
        assert_eq!(output(&namespaces, command("id", &["-u"])).trim(), uid);
        assert_eq!(output(&namespaces, command("stat", &["-c", "%u", "/proc/self"])).trim(), uid);
    });
}

fn namespace_differs(kind: &str) {
    let namespaces = enter_private_namespaces().unwrap();
    let path = format!("/proc/self/ns/{kind}");
    let own = fs::read_link(&path).unwrap();
    let consumer = output(&namespaces, command("readlink", &[&path]));
    assert!(consumer.starts_with(kind));
    assert_ne!(consumer.trim(), own.to_str().unwrap());
}

#[test]
fn consumer_is_in_its_own_user_namespace() {
    isolated(|| namespace_differs("user"));
}

#[test]
fn consumer_is_in_its_own_mount_namespace() {
    isolated(|| namespace_differs("mnt"));
}

#[test]
fn consumer_cannot_dump_core() {
    isolated(|| {
        let namespaces = enter_private_namespaces().unwrap();
        let maximum = getrlimit(Resource::Core).maximum;
        setrlimit(Resource::Core, Rlimit { current: maximum, maximum }).unwrap();
        let limits = output(&namespaces, command("cat", &["/proc/self/limits"]));
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_ascii_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    });
}

#[test]
fn consumer_inherits_no_descriptor() {
    isolated(|| {
        let namespaces = enter_private_namespaces().unwrap();
        let (leaked, _write) = rustix::pipe::pipe().unwrap();
        let listed = output(&namespaces, command("ls", &["-1", "/proc/self/fd/"]));
        let numbers: Vec<i32> = listed.lines().map(|line| line.parse().unwrap()).collect();
        // 0, 1, 2, and the directory that is being listed.
        assert_eq!(numbers.len(), 4, "{numbers:?} while {} was open", leaked.as_raw_fd());
    });
}

/// A process that runs a consumer, which prints its process id and a line.
fn parent_of(script: &str) -> (Pid, Pid, OwnedFd) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let script = format!("echo $$; {script}");
    let parent = fork(|| {
        let namespaces = enter_private_namespaces().unwrap();
        let mut command = command("sh", &["-c", &script]);
        command.stdout(write.try_clone().unwrap());
        namespaces.run(command).unwrap().code().unwrap_or(99)
    });
    drop(write);
    let mut line = String::new();
    BufReader::with_capacity(1, File::from(read)).read_line(&mut line).unwrap();
    let consumer = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
    (parent, consumer, pidfd_open(consumer, PidfdFlags::empty()).unwrap())
}

fn ends_soon(process: &OwnedFd) -> bool {
    let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&patience)).unwrap() == 1
}

#[test]
fn consumer_dies_with_its_parent() {
    isolated(|| {
        let (parent, consumer, process) = parent_of("exec sleep 300");
        kill_process(parent, Signal::KILL).unwrap();
        wait(parent);
        let died = ends_soon(&process);
        if !died {
            kill_process(consumer, Signal::KILL).unwrap();
        }
        assert!(died, "the consumer outlived its parent");
    });
}

#[test]
fn signal_reaches_the_consumer_and_the_parent_lives_to_wipe() {
    isolated(|| {
        let (parent, consumer, process) = parent_of("trap 'exit 7' TERM; while :; do sleep 0.05; done");
        // Until the shell has set its trap, the signal would end it without a code.
        let trapped = || {
            let status = fs::read_to_string(format!("/proc/{}/status", consumer.as_raw_nonzero())).unwrap();
            let caught =
                status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
            u64::from_str_radix(&caught, 16).unwrap() & (1 << (libc::SIGTERM - 1)) != 0
        };
        while !trapped() {
            std::thread::sleep(Duration::from_millis(1));
        }
        kill_process(parent, Signal::TERM).unwrap();
        assert!(ends_soon(&process));
        assert_eq!(wait(parent).code(), Some(7));
    });
}

#[test]
fn threads_are_refused_before_namespaces() {
    isolated(|| {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let thread = std::thread::spawn(move || File::from(read).read(&mut [0]).unwrap());
        let error = enter_private_namespaces().unwrap_err();
        assert_eq!(error.code(), "MEM-060");
        assert!(error.to_string().ends_with("expected 1 thread, found 2"), "{error}");
        drop(write);
        thread.join().unwrap();
    });
}

#[test]
fn nothing_mounted_is_seen_outside() {
    isolated(|| {
        // An outside whose mounts are shared, as systemd makes them.
        let _outside = enter_private_namespaces().unwrap();
        mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let (seen, release) = rustix::pipe::pipe().unwrap();
        let inside = fork(|| {
            let (mut namespaces, landed) = landed();
            let mount = namespaces.attach(&landed, &name("model")).unwrap();
            assert!(mount.path().is_dir());
            rustix::io::write(&write, b"x").unwrap();
            rustix::io::read(&seen, &mut [0; 1]).unwrap();
            0
        });
        rustix::io::read(&read, &mut [0; 1]).unwrap();
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        rustix::io::write(&release, b"x").unwrap();
        assert_eq!(wait(inside).code(), Some(0));
        assert!(!table.contains("innerkeep"), "{table}");
    });
}

#[test]
fn kind_of_namespaces_follows_the_right_to_mount() {
    isolated(|| {
        let root = rustix::process::geteuid().is_root();
        let namespaces = enter_private_namespaces().unwrap();
        if !root {
            assert_eq!(namespaces.kind(), NamespaceKind::UserAndMount);
        }
    });
}

#[test]
fn attach_point_is_refused_where_a_symbolic_link_leads() {
    isolated(|| {
        let (mut namespaces, landed) = landed();
        let room = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/mnt", room.path().join("link")).unwrap();
        let error = namespaces.attach_below(&room.path().join("link"), &landed, &name("a")).unwrap_err();
        assert_eq!(error.code(), "MEM-064");
        let mount = namespaces.attach_below(room.path(), &landed, &name("a")).unwrap();
        assert_eq!(mount.path(), room.path().join("a"));
        // The same directory is now read-only even for its owner.
        assert_eq!(rustix::fs::mkdirat(CWD, room.path().join("b"), rustix::fs::Mode::RWXU), Err(Errno::ROFS));
        drop(mount);
        unmount(room.path(), UnmountFlags::DETACH).unwrap();
    });
}
