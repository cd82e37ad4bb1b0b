//! Plaintext of a killed seal or unseal is in no file, no core file, no swap and no block of the disk.
//!
//! The work is done by the driver (`src/bin/kill-driver.rs`) in a mount namespace where everything but four directories is read-only. Root of the
//! machine, as in CI, gets an ext4 image behind a loop device and the search of its raw blocks; anyone else a user namespace and
//! the same suite on tmpfs. 50 kills; 1,000 by `cargo xtask test --long`, then also the machine's block devices.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tests::payload::Random;
use tests::programs::{Programs, is_root};

/// A driver that takes longer hangs. Not a measure of anything.
const DEADLINE: Duration = Duration::from_secs(5 * 3600);

#[test]
fn evil_host_kill_leaves_no_plaintext() {
    let (kills, whole_disk) = if tests::long_run() { ("1000", "1") } else { ("50", "0") };
    let programs = Programs::built();
    let (_, seed) = Random::fresh();
    let mut command = Command::new("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--propagation", "private", "--"]).arg(programs.path("kill-driver"));
    // An empty directory to build on; what is mounted there is seen by the driver alone.
    let root = tempfile::tempdir().expect("make a directory");
    command.args([kills, &seed.to_string(), whole_disk]).arg(root.path());
    let directory = programs
        .path("kill-driver")
        .parent()
        .and_then(|ci| ci.parent())
        .expect("the target directory")
        .to_owned();
    let mut log = directory.join("kill-suite.log");
    let file = std::fs::File::create(&log).or_else(|_| {
        // The target directory belongs to somebody else.
        log = std::env::temp_dir().join("kill-suite.log");
        std::fs::File::create(&log)
    });
    let file = file.unwrap_or_else(|error| panic!("create {}: {error}", log.display()));
    let errors = file.try_clone().expect("a second handle of the log");
    println!("seed {seed}, log {}", log.display());
    let mut child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn().expect("start unshare");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for the driver") {
            break status;
        }
        assert!(start.elapsed() < DEADLINE, "the driver hangs");
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = std::fs::read_to_string(&log).expect("read the log");
    let tail: Vec<&str> = text.lines().rev().take(12).collect();
    let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
    assert!(
        status.success(),
        "the kill suite failed ({status}, seed {seed}). It needs root, or user namespaces for everybody; see {}\n{tail}",
        log.display()
    );
    let summary: serde_json::Value =
        serde_json::from_str(text.lines().last().unwrap_or_default()).expect("the driver's last line");
    assert_eq!(summary.get("kills").and_then(serde_json::Value::as_u64), kills.parse().ok(), "{summary}");
    println!("{summary}");
}
