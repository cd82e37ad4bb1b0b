//! Many containers, one after the other and some at a time: nothing of them is left in the agent, in its zygote or in the kernel.
//! 40 of them daily, 1,000 in `cargo xtask test --long`.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::fmt;
use std::time::{Duration, Instant};
use tests::agent_client::requests::{create, exec, read, remove, rootfs, sandbox, start, wait, write};
use tests::agent_client::{ALLOW_ALL, AgentClient, Refused, serving, spec};
use tests::long_run;
use tests::programs::{Programs, User};
use tests::vm::shell;
use tests::work::Work;
use xtask::vm::Guest;

/// Containers that are there at one time.
const AT_ONCE: usize = 8;
/// Until something is as it was that takes a moment to get there.
const SETTLE: Duration = Duration::from_secs(60);
/// What the audit keeps at most, and the lists beside it.
const AUDIT_KIB: u64 = 2 << 10;
/// What the allocator may keep of what was freed.
const SLACK_KIB: u64 = 2 << 10;

#[track_caller]
fn ok<T>(guest: &Guest, answer: Result<T, Refused>) -> T {
    answer.unwrap_or_else(|refused| panic!("{refused}\n{}", guest.serial()))
}

/// What may leak, and has to be exactly as it was.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    /// Descriptors of the agent and its zygote.
    descriptors: u64,
    /// Processes that are programs.
    processes: u64,
    mounts: u64,
    groups: u64,
    /// Entries of our directories, and of the kernel's list of network devices.
    entries: u64,
}

/// What changes a little: memory.
struct Memory {
    /// Of the agent and its zygote, in KiB: pages that nobody shares.
    private: u64,
    /// What the kernel could still give, in KiB.
    available: u64,
    /// Of the kernel itself, in KiB.
    slab: u64,
    /// Control groups that were removed and are not gone yet.
    dying: u64,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { private, available, slab, dying } = self;
        write!(
            f,
            "private {private} KiB, available {available} KiB, slab {slab} KiB, groups not gone yet {dying}"
        )
    }
}

/// Runs over every process of the agent's program: itself, its zygote.
const AGENTS: &str = "for p in /proc/[0-9]*; do case $p-$(cat $p/comm 2>/dev/null) in /proc/1-*|*-zygote) ;; *) continue ;; esac;";

fn number(guest: &Guest, line: &str) -> u64 {
    let said = shell(guest, line);
    let numbers = said.split_whitespace().map(|word| word.parse::<u64>());
    numbers.map(|number| number.unwrap_or_else(|_| panic!("{line}: {said}"))).sum()
}

fn kept(guest: &Guest) -> Kept {
    Kept {
        descriptors: number(guest, &format!("{AGENTS} ls $p/fd | wc -l; done")),
        processes: number(guest, "for p in /proc/[0-9]*; do readlink $p/exe 2>/dev/null; done | wc -l"),
        mounts: number(guest, &format!("{AGENTS} wc -l < $p/mountinfo; done")),
        groups: number(guest, "find /sys/fs/cgroup -mindepth 1 -type d | wc -l"),
        entries: number(guest, "find /run /sys/class/net -mindepth 1 -not -path '*/rootfs/*' | wc -l"),
    }
}

fn memory(guest: &Guest) -> Memory {
    let of = |file: &str, key: &str| format!("sed -n 's/^{key} *\\([0-9]*\\).*/\\1/p' {file}");
    Memory {
        private: number(guest, &format!("{AGENTS} {}; done", of("$p/smaps_rollup", "Private_Dirty:"))),
        available: number(guest, &of("/proc/meminfo", "MemAvailable:")),
        slab: number(guest, &of("/proc/meminfo", "Slab:")),
        dying: number(guest, &of("/sys/fs/cgroup/cgroup.stat", "nr_dying_descendants")),
    }
}

#[track_caller]
fn assert_settles(guest: &Guest, expected: &Kept, after: &str) {
    let until = Instant::now() + SETTLE;
    loop {
        let found = kept(guest);
        if found == *expected {
            return;
        }
        assert!(
            Instant::now() < until,
            "after {after}: {found:?}, expected {expected:?}\n{}",
            guest.serial()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Makes some, lets them run beside one another, and removes them.
fn some(guest: &Guest, client: &AgentClient, root: &str, first: usize, count: usize) {
    let names: Vec<String> = (first..first + count).map(|index| format!("c{index}")).collect();
    for name in &names {
        ok(
            guest,
            client.create_container(&create(name, root, &["sh", "-c", "read line; echo $line; exit 9"])),
        );
        ok(guest, client.start_container(&start(name)));
    }
    for (index, name) in names.iter().enumerate() {
        if index % 4 == 0 {
            ok(guest, client.exec_process(&exec(name, "e1", &["sh", "-c", "exit 2"])));
            assert_eq!(ok(guest, client.wait_process(&wait(name, "e1"))).status, 2);
        }
        // Every third is removed as it runs.
        if index % 3 == 2 {
            continue;
        }
        ok(guest, client.write_stdin(&write(name, "", name.as_bytes())));
        ok(guest, client.write_stdin(&write(name, "", b"\n")));
        assert_eq!(ok(guest, client.wait_process(&wait(name, ""))).status, 9);
        assert_eq!(ok(guest, client.read_stdout(&read(name, "", 4096))).data, format!("{name}\n").as_bytes());
    }
    for name in &names {
        ok(guest, client.remove_container(&remove(name)));
    }
}

// COMPAT: CreateContainer, StartContainer, RemoveContainer better: nothing of a container is left, and nothing grows with their number
#[test]
fn containers_by_the_thousand_leave_nothing() {
    let count = if long_run() { 1000 } else { 40 };
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let spec = spec(&programs, &work, ALLOW_ALL).timeout(Duration::from_secs(7200));
    let guest = serving(spec);
    let client = AgentClient::connect(&guest);
    ok(&guest, client.create_sandbox(&sandbox("pod1")));
    let root = rootfs(&guest, "everybody");
    // What is made once is made now.
    some(&guest, &client, &root, 0, AT_ONCE);
    let (before, began) = (kept(&guest), Instant::now());
    let (at_first, mut half) = (memory(&guest), None);
    for first in (0..count).step_by(AT_ONCE) {
        if half.is_none() && first * 2 >= count {
            half = Some(memory(&guest));
        }
        some(&guest, &client, &root, AT_ONCE + first, AT_ONCE.min(count - first));
    }
    let took = began.elapsed();
    assert_settles(&guest, &before, "all of them");
    let (half, last) = (half.unwrap(), memory(&guest));
    eprintln!("{count} containers in {:.1} s; before and after: {before:?}", took.as_secs_f64());
    eprintln!("before: {at_first}\nhalfway: {half}\nafter: {last}");
    let grown = last.private.saturating_sub(at_first.private);
    assert!(grown <= AUDIT_KIB + SLACK_KIB, "{at_first}; {last}");
    // By then the audit has what it keeps, and only a leak goes on: less than a page for each of them.
    let grown = last.private.saturating_sub(half.private);
    assert!(count < 1000 || grown <= SLACK_KIB / 2, "{half}; {last}");
    // Pages that nobody uses may be caches'; of control groups that are dying there are fewer than were made.
    assert!(last.dying < 64, "{last}");
    let lost = at_first.available.saturating_sub(last.available);
    assert!(lost <= (16 << 10) + 32 * u64::try_from(count).unwrap(), "{at_first}; {last}");
    client.assert_healthy();
    guest.power_off().unwrap();
}
