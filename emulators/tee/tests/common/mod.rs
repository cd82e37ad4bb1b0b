//! Platforms and guests for tests.

use std::any::type_name;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::io::Errno;
use tempfile::TempDir;

pub const EMULATOR: &str = env!("CARGO_BIN_EXE_innerkeep-tee-emulator");
pub const TSM: &str = "sys/kernel/config/tsm/report";
pub const DATA: [u8; 64] = [0x5a; 64];
/// Set in the process that is in a guest: the platform's directory, and which guest.
const PLATFORM: &str = "INNERKEEP_TEST_PLATFORM";
const GUEST: &str = "INNERKEEP_TEST_GUEST";

/// A state directory, and what guests need beside it.
pub struct Platform {
    path: PathBuf,
    _directory: Option<TempDir>,
}

impl Platform {
    /// A new platform with the RSA keys of the test vectors; in a guest, the one that it runs on.
    pub fn new() -> Self {
        if let Some(path) = std::env::var_os(PLATFORM) {
            return Self { path: path.into(), _directory: None };
        }
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("state");
        fs::create_dir(&path).unwrap();
        let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/evidence/keys/insecure-test-");
        for name in ["ark", "ask"] {
            fs::copy(format!("{keys}{name}.pk8"), path.join(format!("snp-{name}.pk8"))).unwrap();
        }
        succeeded(Command::new(EMULATOR).arg("init").arg("--state").arg(&path).output().unwrap());
        Self { path, _directory: Some(directory) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs the body in a guest of this launch: this test begins anew in a process below `run`, and every guest of it
    /// but this one is passed over there.
    pub fn guest<F: FnOnce(&Path)>(&self, launch: &str, plan: &str, body: F) {
        let this = OsString::from(format!("{launch:?} {plan:?}"));
        let root = self.path.with_file_name("root");
        let done = self.path.with_file_name("done");
        if let Some(guest) = std::env::var_os(GUEST) {
            if guest == this {
                body(&root);
                fs::write(done, b"").unwrap();
            }
            return;
        }
        let name = type_name::<F>().split_once("::").unwrap().1.trim_end_matches("::{{closure}}");
        let file = |name: &str, text: &str| {
            let path = self.path.with_file_name(name);
            fs::write(&path, text).unwrap();
            path
        };
        let mut command = Command::new(EMULATOR);
        command.arg("run").arg("--state").arg(&self.path).arg("--root").arg(&root);
        command
            .arg("--launch")
            .arg(file("launch.toml", launch))
            .arg("--fault-plan")
            .arg(file("plan.toml", plan));
        command.arg("--").arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
        succeeded(command.env(PLATFORM, &self.path).env(GUEST, this).output().unwrap());
        fs::remove_file(done).unwrap();
        assert_eq!(fs::read_dir(root.join("sys")).unwrap().count(), 0, "the mount is seen outside");
    }
}

/// What a successful process wrote to standard output.
pub fn succeeded(output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A new entry.
pub fn entry(root: &Path, name: &str) -> PathBuf {
    let path = root.join(TSM).join(name);
    fs::create_dir(&path).unwrap();
    path
}

/// A quote as a careful program gets it: an entry of its own, and nobody else wrote.
pub fn quote(root: &Path, name: &str, data: &[u8; 64]) -> Vec<u8> {
    let path = entry(root, name);
    fs::write(path.join("inblob"), data).unwrap();
    let quote = fs::read(path.join("outblob")).unwrap();
    assert_eq!(fs::read_to_string(path.join("generation")).unwrap(), "1\n");
    fs::remove_dir(&path).unwrap();
    quote
}

/// The number of the error.
pub fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Errno {
    Errno::from_io_error(&result.unwrap_err()).unwrap()
}
