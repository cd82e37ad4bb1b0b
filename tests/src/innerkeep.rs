//! The command-line program, run as users run it.

use crate::programs::Programs;
use serde_json::Value;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A command that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(180);

/// `innerkeep --json …`.
#[derive(Clone, Debug)]
pub struct Innerkeep {
    programs: Programs,
    scratch: PathBuf,
}

/// What a run said.
#[derive(Debug)]
pub struct Said {
    /// Exit status; `None`: ended by a signal.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Innerkeep {
    /// The program, with a directory for its temporary files.
    pub fn new(programs: &Programs, scratch: &Path) -> Self {
        Self { programs: programs.clone(), scratch: scratch.to_owned() }
    }

    /// The command without arguments.
    pub fn command(&self) -> Command {
        let mut command = self.programs.command("innerkeep", &self.scratch);
        command.arg("--json").stdin(Stdio::null());
        command
    }

    /// Runs it to the end, success or not.
    pub fn attempt(&self, arguments: &[OsString]) -> Said {
        let mut command = self.command();
        command.args(arguments);
        run_to_end(&mut command)
    }

    /// Runs it to the end and returns its result; anything but success fails the test.
    #[track_caller]
    pub fn run(&self, arguments: &[OsString]) -> Value {
        let said = self.attempt(arguments);
        assert_eq!(
            said.status,
            Some(0),
            "innerkeep {arguments:?}\nstdout: {}\nstderr: {}",
            said.stdout,
            said.stderr
        );
        serde_json::from_str(&said.stdout)
            .unwrap_or_else(|error| panic!("result of innerkeep {arguments:?}: {error} in {:?}", said.stdout))
    }
}

impl Said {
    /// The last JSON object on standard error.
    #[track_caller]
    pub fn report(&self) -> Value {
        let line = self.stderr.lines().rev().find(|line| line.starts_with('{'));
        let line = line.unwrap_or_else(|| panic!("expected a JSON line on standard error, found {self:?}"));
        serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON: {error} in {line}"))
    }

    /// The error code, empty if there is none.
    pub fn code(&self) -> String {
        let line = self.stderr.lines().rev().find(|line| line.starts_with('{')).unwrap_or_default();
        let report: Value = serde_json::from_str(line).unwrap_or_default();
        report["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Asserts that the command failed, with this status, this code and a message, and said nothing on standard output.
    #[track_caller]
    pub fn assert_refused(&self, status: i32, code: &str) {
        assert!(
            self.status == Some(status) && self.code() == code,
            "expected exit status {status} and {code}, found {:?} and {:?}\nstdout: {}\nstderr: {}",
            self.status,
            self.code(),
            self.stdout,
            self.stderr
        );
        let report = self.report();
        assert_eq!(report["error"]["status"], status, "{report}");
        assert!(report["error"]["class"].as_str().is_some_and(|class| !class.is_empty()), "{report}");
        assert!(report["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{report}");
        assert_eq!(self.stdout, "", "a refusal says nothing on standard output");
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }
}

/// Runs a command to its end; one that hangs is killed and fails the test.
pub fn run_to_end(command: &mut Command) -> Said {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    finish(child)
}

/// Waits for a child with piped streams; one that hangs is killed and fails the test.
pub fn finish(mut child: Child) -> Said {
    fn collect(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for a child") {
            break status;
        }
        if start.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("still running after {} s", DEADLINE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let joined = |thread: std::thread::JoinHandle<String>| thread.join().expect("read a stream");
    Said { status: status.code(), stdout: joined(stdout), stderr: joined(stderr) }
}
