//! The consumer of the end-to-end tests: `test-consumer TASK MARKER PATH`. It leaves the file MARKER to say that it ran, does its task with
//! the landed file PATH, and prints what it saw as one JSON object.

#![expect(clippy::expect_used, reason = "a test program")]

use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::Path;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let mut next = || arguments.next().expect("test-consumer TASK MARKER PATH");
    let (task, marker, path) = (next(), next(), next());
    std::fs::write(marker, "ran").expect("leave the marker");
    let path = Path::new(&path);
    match task.to_str() {
        Some("look") => println!("{}", look(path)),
        Some("attack") => println!("{}", attack(path)),
        Some("fail") => std::process::exit(42),
        Some("hold") => {
            let held = std::fs::read(path).expect("read what is to be held");
            std::thread::sleep(std::time::Duration::from_secs(60));
            drop(std::hint::black_box(held));
        }
        Some("linger") => {
            println!("{}", look(path));
            std::thread::sleep(std::time::Duration::from_secs(600));
        }
        _ => std::process::exit(2),
    }
}

/// What a well-behaved consumer sees.
fn look(path: &Path) -> Value {
    let (size, sha256) = digest(path);
    let directory = path.parent().expect("a file is in a directory");
    let mut files = serde_json::Map::new();
    for entry in std::fs::read_dir(directory).expect("list the landing") {
        let entry = entry.expect("list the landing");
        let (size, sha256) = digest(&entry.path());
        files.insert(
            entry.file_name().to_string_lossy().into_owned(),
            json!({ "size": size, "sha256": sha256 }),
        );
    }
    json!({
        "path": path,
        "size": size,
        "sha256": sha256,
        "files": files,
        "file_variable": std::env::var_os("INNERKEEP_FILE").map(|value| value.to_string_lossy().into_owned()),
        "directory_variable": std::env::var_os("INNERKEEP_DIR").map(|value| value.to_string_lossy().into_owned()),
        "status": std::fs::read_to_string("/proc/self/status").expect("read our status"),
        "limits": std::fs::read_to_string("/proc/self/limits").expect("read our limits"),
        "mountinfo": std::fs::read_to_string("/proc/self/mountinfo").expect("read our mounts"),
        "descriptors": descriptors(),
    })
}

/// What an ill-behaved one tries. Each attempt must say how it failed; `null` is success.
fn attack(path: &Path) -> Value {
    let directory = path.parent().expect("a file is in a directory");
    let room = directory.parent().expect("the landing is in a directory");
    let tried = |result: std::io::Result<()>| result.err().map(|error| format!("{:?}", error.kind()));
    let called = |result: rustix::io::Result<()>| tried(result.map_err(Into::into));
    let mut attempts = serde_json::Map::new();
    let mut note = |name: &str, outcome: Option<String>| {
        attempts.insert(name.to_owned(), outcome.map_or(Value::Null, Value::String));
    };
    note("open for writing", tried(OpenOptions::new().write(true).open(path).map(drop)));
    note("open for appending", tried(OpenOptions::new().append(true).open(path).map(drop)));
    note("truncate", tried(OpenOptions::new().write(true).truncate(true).open(path).map(drop)));
    note("write beside", tried(File::create(directory.join("beside")).map(drop)));
    note("write above", tried(File::create(room.join("above")).map(drop)));
    note("remove", tried(std::fs::remove_file(path)));
    note("rename", tried(std::fs::rename(path, directory.join("renamed"))));
    note("link", tried(std::fs::hard_link(path, directory.join("linked"))));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    note("change mode", tried(std::fs::set_permissions(path, mode)));
    note("remount", called(rustix::mount::mount_remount(directory, MountFlags::BIND, "")));
    note("remount the superblock", called(rustix::mount::mount_remount(directory, MountFlags::empty(), "")));
    note("unmount", called(rustix::mount::unmount(directory, UnmountFlags::DETACH)));
    note("unmount above", called(rustix::mount::unmount(room, UnmountFlags::DETACH)));
    note("mount over", called(rustix::mount::mount("none", directory, "tmpfs", MountFlags::empty(), None)));
    note("bind elsewhere", called(rustix::mount::mount_bind(directory, "/tmp")));
    note("mount namespace", tried(run(&["unshare", "--mount", "true"])));
    note("enter the parent's mounts", tried(run(&["nsenter", "--target", &parent(), "--mount", "true"])));
    note("parent's memory", tried(File::open(format!("/proc/{}/mem", parent())).map(drop)));
    note("parent's environment", tried(File::open(format!("/proc/{}/environ", parent())).map(drop)));
    note("parent's descriptors", tried(any_descriptor(&format!("/proc/{}/fd", parent()))));
    let (size, sha256) = digest(path);
    json!({ "attempts": attempts, "size": size, "sha256": sha256 })
}

fn run(command: &[&str]) -> std::io::Result<()> {
    let (program, arguments) = command.split_first().expect("a program");
    let output = std::process::Command::new(program).args(arguments).output()?;
    if output.status.success() { Ok(()) } else { Err(std::io::ErrorKind::PermissionDenied.into()) }
}

/// Opens any of the descriptors in a directory of `/proc`. That they exist is no secret to the same user; what they lead to is.
fn any_descriptor(directory: &str) -> std::io::Result<()> {
    let mut outcome = Err(std::io::ErrorKind::NotFound.into());
    for entry in std::fs::read_dir(directory)? {
        outcome = std::fs::read_link(entry?.path()).map(drop);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn parent() -> String {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get()).to_string()
}

/// The open descriptors and what they lead to, but for the one that lists them.
fn descriptors() -> Value {
    let mut found = serde_json::Map::new();
    for entry in std::fs::read_dir("/proc/self/fd").expect("list our descriptors") {
        let entry = entry.expect("list our descriptors");
        if let Ok(target) = std::fs::read_link(entry.path()) {
            let target = target.to_string_lossy().into_owned();
            if !target.starts_with("/proc/") {
                found.insert(entry.file_name().to_string_lossy().into_owned(), Value::String(target));
            }
        }
    }
    Value::Object(found)
}

fn digest(path: &Path) -> (u64, String) {
    let mut file = File::open(path).expect("open a landed file");
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let count = file.read(&mut buffer).expect("read a landed file");
        if count == 0 {
            return (size, hex::encode(hash.finalize()));
        }
        hash.update(buffer.get(..count).expect("what was read"));
        size += u64::try_from(count).expect("64 bits");
    }
}
