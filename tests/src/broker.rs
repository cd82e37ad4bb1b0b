//! A key broker in its own process.

use crate::programs::Programs;
use crate::work::Work;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A running broker; dropped, it is killed.
#[derive(Debug)]
pub struct KeyBroker {
    /// Where it listens: plain http on loopback.
    pub url: String,
    process: Child,
    state: PathBuf,
    log: PathBuf,
}

impl KeyBroker {
    /// Starts the broker whose state is in the directory `name` of `work`, and waits until it listens.
    #[track_caller]
    pub fn start(programs: &Programs, work: &Work, name: &str, arguments: &[OsString]) -> Self {
        let (state, log) = (work.join(name), work.join(format!("{name}.log")));
        let file = std::fs::File::options().create(true).append(true).open(&log).expect("open the log");
        let mut command = programs.command("innerkeep-key-broker", &work.join("tmp"));
        command.args(["serve", "--state"]).arg(&state).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut process = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let stdout = process.stdout.take().expect("the broker's standard output");
        let (ready, wait) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(url) = line.strip_prefix("ready ") {
                    let _ = ready.send(url.to_owned());
                }
            }
        });
        let mut broker = Self { url: String::new(), process, state, log };
        match wait.recv_timeout(Duration::from_secs(60)) {
            Ok(url) => broker.url = url,
            Err(_) => panic!("the broker did not become ready: {command:?}\n{}", broker.log()),
        }
        broker
    }

    /// Puts a resource at `kbs:///REPOSITORY/TYPE/TAG`, as its administrator does on its disk.
    pub fn store(&self, resource: &str, content: &[u8]) {
        let path = resource.strip_prefix("kbs:///").expect("a resource of a broker");
        let file = self.state.join("resources").join(path);
        std::fs::create_dir_all(file.parent().expect("a directory of the resource"))
            .expect("make a directory for a resource");
        std::fs::write(&file, content).expect("store a resource");
    }

    /// What it said on standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it writes: state and log.
    pub fn paths(&self) -> [&Path; 2] {
        [&self.state, &self.log]
    }
}

impl Drop for KeyBroker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
