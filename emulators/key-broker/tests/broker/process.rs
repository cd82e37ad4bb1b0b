//! The broker as a process with a directory of its own.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub(crate) const ADMIN: &str = "a token for tests alone";
pub(crate) const SECRET: &[u8] = b"what only the right guest may read";
pub(crate) const ALLOW: &str = "package policy\ndefault allow = true\n";

/// How to start a broker.
#[derive(Default)]
pub(crate) struct Setup {
    files: Vec<(&'static str, String, String)>,
    flags: Vec<&'static str>,
    state: Option<PathBuf>,
}

pub(crate) struct Broker {
    child: Child,
    pub(crate) directory: TempDir,
    pub(crate) address: String,
}

impl Setup {
    pub(crate) fn flag(mut self, flag: &'static str) -> Self {
        self.flags.push(flag);
        self
    }

    /// A state directory that another broker had.
    pub(crate) fn state(mut self, state: PathBuf) -> Self {
        self.state = Some(state);
        self
    }

    /// A file, given to an option.
    pub(crate) fn file(mut self, option: &'static str, content: impl Into<String>) -> Self {
        let name = format!("file-{}", self.files.len());
        self.files.push((option, name, content.into()));
        self
    }

    /// Sample evidence for everybody, for tests of what comes after it.
    pub(crate) fn sample() -> Self {
        Self::default().flag("--insecure-allow-sample").file("--policy", ALLOW)
    }

    pub(crate) fn faults(self, plan: &str) -> Self {
        self.file("--fault-plan", plan)
    }

    /// Starts the broker and puts [`SECRET`] at `a/b/c`.
    pub(crate) fn start(self) -> Broker {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_innerkeep-key-broker"));
        let state = self.state.unwrap_or_else(|| directory.path().join("state"));
        command.arg("serve").arg("--state").arg(state).args(&self.flags);
        let token = ("--admin-token-file", "token".to_owned(), ADMIN.replace(' ', "-"));
        for (option, name, content) in self.files.iter().chain([&token]) {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            command.arg(option).arg(path);
        }
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("ready http://").unwrap_or_default().to_owned();
        let broker = Broker { child, directory, address };
        assert!(!broker.address.is_empty(), "{}", broker.log());
        let stored = broker.admin("POST", "resource/a/b/c", SECRET);
        assert_eq!((stored.status, stored.body.len()), (200, 0));
        broker
    }
}

impl Broker {
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Ends the broker as a service manager does.
    pub(crate) fn end(mut self) -> (Option<i32>, TempDir) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        (status.code(), directory)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
