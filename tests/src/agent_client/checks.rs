//! What tests say about answers, and what they look at from outside.

use super::{AgentClient, Refused, requests};
use crate::vm::shell;
use protocol::agent::CreateContainerRequest;
use std::time::{Duration, Instant};
use xtask::vm::Guest;

/// Until something is as it was that takes a moment to get there.
const SETTLE: Duration = Duration::from_secs(30);

/// The answer; a refusal fails with the console.
#[track_caller]
pub fn ok<T>(guest: &Guest, answer: Result<T, Refused>) -> T {
    answer.unwrap_or_else(|refused| panic!("{refused}\n{}", guest.serial()))
}

/// It was refused, with this status and this in its text.
#[track_caller]
pub fn refused<T>(answer: Result<T, Refused>, code: &str, text: &str) {
    match answer {
        Ok(_) => panic!("not refused: {text}"),
        Err(found) => assert!(found.code == code && found.says(text), "{found}, expected {code} {text}"),
    }
}

/// What may be left behind: mounts, descriptors of process 1, user processes, control groups of containers, devices of device-mapper, swap, huge pages,
/// entries of the directories of runtime and agent.
pub fn state(guest: &Guest) -> String {
    shell(
        guest,
        "echo mounts; cut -d' ' -f5 /proc/1/mountinfo | sort; echo descriptors; ls /proc/1/fd | wc -l; \
         echo processes; for p in /proc/[0-9]*; do readlink $p/exe 2>/dev/null; done | sort | uniq -c; \
         echo groups; find /sys/fs/cgroup -mindepth 4 -type d | sort; \
         echo mapped; ls /sys/class/block | grep ^dm-; echo swap; cat /proc/swaps; \
         echo pages; cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages; \
         echo entries; find /run/kata-containers -xdev -mindepth 1 | sort; ls -A /run/innerkeep /run/innerkeep/* | sort",
    )
}

/// Waits until the state is as before.
#[track_caller]
pub fn assert_settles(guest: &Guest, expected: &str, after: &str) {
    let until = Instant::now() + SETTLE;
    loop {
        let found = state(guest);
        if found == expected {
            return;
        }
        assert!(Instant::now() < until, "after {after}:\n{found}\nexpected:\n{expected}\n{}", guest.serial());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Reads standard output until it has this in it, or ends.
#[track_caller]
pub fn read_until(client: &AgentClient, container: &str, exec: &str, text: &str) -> String {
    let mut all = String::new();
    while !all.contains(text) {
        let data = client.read_stdout(&requests::read(container, exec, 4096));
        let data = data.unwrap_or_else(|refused| panic!("{refused}")).data;
        if data.is_empty() {
            break;
        }
        all.push_str(&String::from_utf8_lossy(&data));
    }
    all
}

/// Makes and starts a container, and waits for its end: what it said, and its status. It is still to be removed.
#[track_caller]
pub fn run_container(guest: &Guest, client: &AgentClient, request: &CreateContainerRequest) -> (String, i32) {
    ok(guest, client.create_container(request));
    let id = request.container_id.as_str();
    ok(guest, client.start_container(&requests::start(id)));
    let said = read_until(client, id, "", "\0");
    (said, ok(guest, client.wait_process(&requests::wait(id, ""))).status)
}

/// The lines of process 1's table of mounts for a place, the last one on top.
pub fn mounts_at(guest: &Guest, place: &str) -> Vec<String> {
    let table = shell(guest, "cat /proc/1/mountinfo");
    let here = table.lines().filter(|line| line.split(' ').nth(4) == Some(place));
    here.map(ToOwned::to_owned).collect()
}

/// Exactly one mount is at a place, and its line has all of this.
#[track_caller]
pub fn assert_mounted(guest: &Guest, place: &str, expected: &[&str]) {
    let found = mounts_at(guest, place);
    let [line] = found.as_slice() else { panic!("{place}: expected one mount, found {found:?}") };
    for text in expected {
        assert!(line.contains(text), "{place}: expected {text} in {line}");
    }
}
