//! An emulated chip in its own process.

use crate::programs::Programs;
use crate::work::Work;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A running chip; dropped, it is killed.
#[derive(Debug)]
pub struct Emulator {
    /// Its socket.
    pub socket: PathBuf,
    process: Child,
    log: PathBuf,
}

impl Emulator {
    /// The flags without which an emulated chip serves no guest outside a TEE.
    pub const INSECURE: [&'static str; 2] = ["--insecure-no-evidence", "--insecure-emulated-dma"];

    /// Starts the chip whose silicon and memory are in the directory `name` of `work`, and waits until it listens.
    #[track_caller]
    pub fn start(programs: &Programs, work: &Work, name: &str, arguments: &[OsString]) -> Self {
        let socket = work.join(format!("{name}.sock"));
        let log = work.join(format!("{name}.log"));
        let file =
            std::fs::File::options().create(true).append(true).open(&log).expect("open the chip's log");
        let mut command = programs.command("innerkeep-chip-emulator", &work.join("tmp"));
        command.arg("--socket").arg(&socket).arg("--state").arg(work.join(name)).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut process = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let stdout = process.stdout.take().expect("the chip's standard output");
        let (ready, wait) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.contains("ready") {
                    let _ = ready.send(());
                }
            }
        });
        let chip = Self { socket, process, log };
        if wait.recv_timeout(Duration::from_secs(60)).is_err() {
            panic!("the chip emulator did not become ready: {command:?}\n{}", chip.log());
        }
        chip
    }

    /// What it said on standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has said something so many times on standard error.
    #[track_caller]
    pub fn wait_for_count(&self, text: &str, count: usize) {
        let start = Instant::now();
        while self.log().matches(text).count() < count {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "the chip never said {text:?}: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it at once, as a power cut does.
    pub fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.end();
    }
}
