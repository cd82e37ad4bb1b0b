use std::io::Write as _;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;
use crate::attester::{Attester, Extension};
use crate::report_data::Claim;
use crate::testing::FakeTdx;

const CLAIM: Claim = Claim::ChipSession { transcript: [3; 64] };

fn code<T>(result: Result<T, AttestationError>) -> &'static str {
    result.map_or_else(|error| error.code(), |_| "OK")
}

fn extend(attester: &Attester) -> Result<Extension, AttestationError> {
    attester.extend("example.org", "Test", "something", 17)
}

fn run(root: &Path, name: &str) -> PathBuf {
    root.join("run/attestation-agent").join(name)
}

fn log(root: &Path) -> Vec<u8> {
    fs::read(run(root, LOG)).unwrap_or_default()
}

/// A machine with one event, and a second one that was cut off after its write-ahead file: the file, the registers
/// before and after.
fn interrupted(root: &Path) -> (FakeTdx, [Octets<48>; 4], [Octets<48>; 4]) {
    let tdx = FakeTdx::new();
    let attester = tdx.attester(root);
    let _ = extend(&attester).unwrap();
    let before = tdx.state.lock().unwrap().rtmr;
    tdx.state.lock().unwrap().broken = true;
    assert_eq!(code(extend(&attester)), "ATTEST_NOT_SUPPORTED");
    tdx.state.lock().unwrap().broken = false;
    assert!(run(root, ".wal_event_entry").exists());
    let pending = WriteAhead::read(&RunDirectory::new(root.join("run/attestation-agent"))).unwrap().unwrap();
    let [a, b, c, _] = before;
    (tdx, before, [a, b, c, pending.expected])
}

/// Both events are there, the write-ahead file is gone, and the log leads to the registers.
fn is_complete(tdx: &FakeTdx, root: &Path, expected: [Octets<48>; 4]) {
    let evidence = tdx.attester(root).evidence(&CLAIM).unwrap();
    assert_eq!(evidence.event_log().unwrap().entries.len(), 2);
    assert_eq!(tdx.state.lock().unwrap().rtmr, expected);
    assert!(!run(root, ".wal_event_entry").exists());
}

#[test]
fn an_extension_that_was_not_made_is_made() {
    let root = tempfile::tempdir().unwrap();
    let (tdx, _, after) = interrupted(root.path());
    is_complete(&tdx, root.path(), after);
}

#[test]
fn an_extension_that_was_not_logged_is_logged() {
    let root = tempfile::tempdir().unwrap();
    let (tdx, _, after) = interrupted(root.path());
    tdx.state.lock().unwrap().rtmr = after;
    is_complete(&tdx, root.path(), after);
}

#[test]
fn an_entry_that_was_cut_is_written_anew() {
    let root = tempfile::tempdir().unwrap();
    let (tdx, _, after) = interrupted(root.path());
    tdx.state.lock().unwrap().rtmr = after;
    OpenOptions::new().append(true).open(run(root.path(), LOG)).unwrap().write_all(&[1, 2, 3]).unwrap();
    is_complete(&tdx, root.path(), after);
}

#[test]
fn the_next_event_finishes_the_one_before() {
    let root = tempfile::tempdir().unwrap();
    let (tdx, _, _) = interrupted(root.path());
    let attester = tdx.attester(root.path());
    let _ = extend(&attester).unwrap();
    assert_eq!(attester.evidence(&CLAIM).unwrap().event_log().unwrap().entries.len(), 3);
}

#[test]
fn evil_workload_register_moved_during_recovery() {
    let root = tempfile::tempdir().unwrap();
    let (tdx, _, _) = interrupted(root.path());
    let moved = [Octets([9; 48]); 4];
    tdx.state.lock().unwrap().rtmr = moved;
    let before = log(root.path());
    let attester = tdx.attester(root.path());
    assert_eq!(code(attester.evidence(&CLAIM)), "ATTEST_LOG_CONFLICT");
    assert_eq!(code(extend(&attester)), "ATTEST_LOG_CONFLICT");
    assert_eq!(tdx.state.lock().unwrap().rtmr, moved, "nothing was extended");
    assert_eq!(log(root.path()), before, "nothing was logged");
}

#[test]
fn evil_workload_cut_log_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let (tdx, _, after) = interrupted(root.path());
    tdx.state.lock().unwrap().rtmr = after;
    fs::write(run(root.path(), LOG), b"").unwrap();
    assert_eq!(code(tdx.attester(root.path()).evidence(&CLAIM)), "ATTEST_LOG_CONFLICT");
    assert!(log(root.path()).is_empty(), "no hole was made");
}

#[test]
fn a_write_ahead_file_that_was_changed_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (tdx, before, _) = interrupted(root.path());
    let path = run(root.path(), ".wal_event_entry");
    let good = fs::read(&path).unwrap();
    for index in [0, 8, 16, 20, 68, 72, good.len() - 1] {
        let mut bad = good.clone();
        bad[index] ^= 1;
        fs::write(&path, bad).unwrap();
        assert_eq!(code(tdx.attester(root.path()).evidence(&CLAIM)), "ATTEST_LOG_CONFLICT", "{index}");
    }
    assert_eq!(tdx.state.lock().unwrap().rtmr, before);
    fs::write(&path, good).unwrap();
    assert_eq!(code(tdx.attester(root.path()).evidence(&CLAIM)), "OK");
}

#[test]
fn evil_host_register_that_does_not_move() {
    let root = tempfile::tempdir().unwrap();
    let tdx = FakeTdx::new();
    tdx.state.lock().unwrap().stuck = true;
    assert_eq!(code(extend(&tdx.attester(root.path()))), "ATTEST_LOG_CONFLICT");
    assert!(log(root.path()).is_empty(), "nothing was logged");
}

#[test]
fn evil_workload_fills_the_log() {
    let root = tempfile::tempdir().unwrap();
    let tdx = FakeTdx::new();
    let attester = tdx.attester(root.path());
    let content = "x".repeat(16 * 1024);
    let full = std::iter::repeat_with(|| attester.extend("example.org", "Test", &content, 17))
        .take(20)
        .find(Result::is_err);
    assert_eq!(full.map(code), Some("ATTEST_LOG_FULL"));
    assert!(log(root.path()).len() <= usize::try_from(MAXIMUM_RUNTIME_LOG_BYTES).unwrap());
    assert_eq!(code(attester.evidence(&CLAIM)), "OK", "what was measured can still be shown");
}

/// A file system that is full; unmounted when this is gone.
struct FullFileSystem<'a>(&'a Path);

impl Drop for FullFileSystem<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

impl<'a> FullFileSystem<'a> {
    /// Only root may make one.
    fn make(path: &'a Path) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        mount("tmpfs", path, "tmpfs", MountFlags::NODEV, c"size=16k").ok()?;
        let made = Self(path);
        let mut file = File::create(path.join("ballast")).unwrap();
        while file.write(&[1; 512]).is_ok() {}
        Some(made)
    }
}

#[test]
fn evil_host_full_run_directory() {
    let root = tempfile::tempdir().unwrap();
    let tdx = FakeTdx::new();
    let attester = tdx.attester(root.path());
    let nothing = || {
        assert_eq!(code(extend(&attester)), "ATTEST_RUN_DIRECTORY");
        assert!(tdx.state.lock().unwrap().rtmr.iter().all(Octets::is_zero), "nothing was extended");
    };
    let directory = root.path().join("run");
    fs::write(&directory, "a file in its place").unwrap();
    nothing();
    assert_eq!(code(attester.evidence(&CLAIM)), "ATTEST_RUN_DIRECTORY");
    assert!(tdx.state.lock().unwrap().asked.is_empty(), "no quote without the lock");
    fs::remove_file(&directory).unwrap();
    fs::create_dir_all(run(root.path(), ".wal_event_entry.draft")).unwrap();
    nothing();
    fs::remove_dir_all(&directory).unwrap();
    if let Some(_full) = FullFileSystem::make(&run(root.path(), "")) {
        nothing();
    }
    fs::remove_dir_all(&directory).unwrap();
    assert_eq!(code(extend(&attester)), "OK", "as soon as there is room");
}

#[test]
fn entries_have_the_bytes_of_upstream() {
    let root = tempfile::tempdir().unwrap();
    let attester = FakeTdx::new().attester(root.path());
    let content =
        format!("{{\"image\":\"registry.example/app:1\", \"digest\":\"sha256:{}\"}}", "ab".repeat(32));
    let _ = attester.extend("github.com/confidential-containers", "PullImage", &content, 17).unwrap();
    let expected = "0400000006000000010000000c00\
        2e57ff0e48247aeee92d40453f333c3ff5852fc5f320d249d32a23a183581799cb5d66d7d5bec87543d5310b54742b15\
        ab000000" /* length of the data */;
    let found = hex::encode(log(root.path()));
    assert!(found.starts_with(expected), "{found}");
    assert_eq!(found.len() / 2, 14 + 48 + 4 + 0xab);
    let register = attester.registers().unwrap().pop().unwrap();
    let expected = "fd3a8f59fad5a70439fbbbb71f7282eb39bf74bcf7ca1d545d252dfbb48968b9\
        8b528f4495ccad9e1bbac04fca6bdfc8";
    assert_eq!(hex::encode(register.value), expected);
}

#[test]
fn evidence_waits_for_whoever_has_the_lock() {
    let root = tempfile::tempdir().unwrap();
    let tdx = FakeTdx::new();
    let directory = RunDirectory::new(root.path().join("run/attestation-agent"));
    let held = directory.lock().unwrap();
    let path = run(root.path(), "lock");
    let other = File::open(path).unwrap();
    let refused = rustix::fs::flock(&other, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    assert_eq!(refused, Err(Errno::AGAIN), "other processes see it");
    let attester = tdx.attester(root.path());
    let waiting = std::thread::spawn(move || attester.evidence(&CLAIM).map(|_| ()));
    assert!(!waiting.is_finished());
    assert!(tdx.state.lock().unwrap().asked.is_empty());
    drop(held);
    waiting.join().unwrap().unwrap();
}
