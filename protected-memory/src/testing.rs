//! What tests share: processes of their own, as root and as an ordinary user.

#![expect(unsafe_code, reason = "fork")]

use std::any::type_name;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions, geteuid, waitpid};

use crate::confine::{PrivateNamespaces, enter_private_namespaces};
use crate::landing::{
    FileName, Filling, HostFacts, Landing, LandingPlan, LandingPolicy, SwapPolicy, SwapTable, TeePolicy,
    TeeState,
};

/// Set in the process in which the body of an isolated test runs.
const ISOLATED: &str = "INNERKEEP_TEST_ISOLATED";
const NOBODY: u32 = 65534;
/// A hang fails the test; nothing here takes long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the body in a process of its own with one thread; and, when the tests run as root, once more as `nobody`.
///
/// Namespaces, limits and faults of the body stay there.
pub(crate) fn isolated<F: FnOnce()>(body: F) {
    if std::env::var_os(ISOLATED).is_some() {
        let child = fork(|| {
            body();
            0
        });
        assert_eq!(wait(child).code(), Some(0), "the body failed");
        return;
    }
    let name = type_name::<F>();
    let name = name.split_once("::").unwrap().1.trim_end_matches("::{{closure}}");
    run_test(name, None);
    if geteuid().is_root() {
        run_test(name, Some(NOBODY));
    }
}

fn run_test(name: &str, user: Option<u32>) {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", name, "--nocapture"]).env(ISOLATED, "1");
    if let Some(id) = user {
        command.uid(id).gid(id);
    }
    // Shown only when the test fails: what a runner prints stays readable.
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begin.elapsed() > PATIENCE => {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{name} hangs as user {user:?}");
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    if !status.success() {
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        panic!("{name} as user {user:?}: {status}\n{text}");
    }
}

/// Runs the body in a forked process; its value is the exit status, a panic is 101.
pub(crate) fn fork(body: impl FnOnce() -> i32) -> Pid {
    // SAFETY: the child has one thread, runs the body and ends. Callers are processes in which no other thread holds a
    // lock that the body needs.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(101);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(code) }
        }
        pid => Pid::from_raw(pid).unwrap(),
    }
}

/// Waits for a forked process.
pub(crate) fn wait(pid: Pid) -> ExitStatus {
    let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
    ExitStatus::from_raw(status.as_raw())
}

/// Namespaces, and a landing of the given sizes in them. Files are named `file-0`, `file-1`, …
pub(crate) fn landing(sizes: &[u64]) -> (PrivateNamespaces, Landing<Filling>) {
    let namespaces = enter_private_namespaces().unwrap();
    let landing = Landing::create_with_facts(&plan(sizes), insecure(), TeeState::None, &plenty()).unwrap();
    (namespaces, landing)
}

pub(crate) fn plan(sizes: &[u64]) -> LandingPlan {
    LandingPlan::new(sizes.iter().enumerate().map(|(index, size)| (name(&format!("file-{index}")), *size)))
        .unwrap()
}

pub(crate) fn name(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}

pub(crate) fn insecure() -> LandingPolicy {
    LandingPolicy { tee: TeePolicy::InsecureNoTee, swap: SwapPolicy::InsecureSwap }
}

pub(crate) fn plenty() -> HostFacts {
    HostFacts::new(1 << 40, swap(0))
}

/// The kernel's text with this many swap areas.
pub(crate) fn swap_text(areas: usize) -> String {
    let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
    let line = "/dev/vda2                               partition\t1048572\t\t0\t\t-2\n";
    format!("{heading}{}", line.repeat(areas))
}

pub(crate) fn swap(areas: usize) -> SwapTable {
    SwapTable::parse(&swap_text(areas)).unwrap()
}

/// Bytes that no page has by chance.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| u8::try_from((index * 7 + index / 251) % 251).unwrap() | 1).collect()
}

/// All bytes of a file, from its beginning.
pub(crate) fn contents(file: &OwnedFd) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let file = File::from(file.try_clone().unwrap());
    let mut bytes = vec![0xEE; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The `VmFlags` of the mapping that holds an address.
pub(crate) fn vm_flags(address: usize) -> Vec<String> {
    let mut text = String::new();
    File::open("/proc/self/smaps").unwrap().read_to_string(&mut text).unwrap();
    let mut inside = false;
    for line in text.lines() {
        let first = line.split_ascii_whitespace().next().unwrap_or_default();
        if let Some((from, to)) = first.split_once('-') {
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            inside = (number(from)..number(to)).contains(&address);
        } else if let (true, Some(flags)) = (inside, line.strip_prefix("VmFlags:")) {
            return flags.split_ascii_whitespace().map(str::to_owned).collect();
        }
    }
    panic!("no mapping at {address:#x}")
}
