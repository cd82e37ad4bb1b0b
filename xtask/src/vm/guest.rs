//! A running guest, and how it ends.

use super::backend::{self, Backend};
use super::control::{Control, Running, Said};
use super::monitor::{Watch, kill, monitor, pidfd};
use super::qmp::Qmp;
use super::spec::Spec;
use super::wire::{Exec, Ready};
use anyhow::{Context, anyhow, bail};

use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long one command may take unless said otherwise.
const COMMAND: Duration = Duration::from_secs(120);

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest switched it off.
    PoweredOff,
    /// The guest asked for a reset, as a kernel that panicked does here.
    Reset,
    /// A process that serves one of its devices died, and the machine was ended.
    BackendDied(String),
    /// It took longer than it may.
    TimedOut,
    /// QEMU ended otherwise.
    Qemu(String),
}

/// A machine that runs; dropped, it is killed.
#[derive(Debug)]
pub struct Guest {
    control: Control,
    qmp: Qmp,
    qemu: u32,
    watch: Arc<Mutex<Watch>>,
    monitor: Option<std::thread::JoinHandle<()>>,
    backends: Arc<Mutex<Vec<Backend>>>,
    serial_copy: Option<PathBuf>,
    /// Connections to the guest's vsock so far; `None` after one that nobody answered.
    connections: Mutex<Option<u32>>,
    work: TempDir,
    /// From the start of QEMU until commands were accepted.
    pub boot: Duration,
    /// What the witness said first.
    pub ready: Ready,
}

pub(super) fn start(
    spec: &Spec,
    mut qemu: Command,
    backends: Vec<Backend>,
    work: TempDir,
) -> anyhow::Result<Guest> {
    let listen =
        |name: &str| UnixListener::bind(work.path().join(name)).with_context(|| format!("listen on {name}"));
    let (qmp, control) = (listen("qmp.sock")?, listen("control.sock")?);
    let log = work.path().join("qemu.log");
    let file = File::create(&log).context("create QEMU's log")?;
    qemu.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let watched = spec.watched.iter().map(|(name, process)| Ok((name.clone(), pidfd(*process)?)));
    let watched = watched.collect::<anyhow::Result<Vec<_>>>()?;
    let started = Instant::now();
    let child = qemu.spawn().context("start QEMU")?;
    let process = child.id();
    let watch: Arc<Mutex<Watch>> = Arc::default();
    let backends = Arc::new(Mutex::new(backends));
    let monitor = {
        let (watch, backends, timeout) = (Arc::clone(&watch), Arc::clone(&backends), spec.timeout);
        std::thread::spawn(move || monitor(child, &watch, &backends, &watched, started + timeout))
    };
    let gone = || watch.lock().unwrap_or_else(PoisonError::into_inner).ended.is_some();
    let streams = accept(&qmp, started, spec, &gone)
        .and_then(|qmp| Ok((Qmp::new(qmp)?, Control::new(accept(&control, started, spec, &gone)?)?)));
    let outcome = streams.and_then(|(qmp, control)| {
        let deadline = started + spec.boot_timeout;
        loop {
            if let Some(ready) = control.ready(Duration::from_millis(50)) {
                return Ok((qmp, control, ready));
            }
            if gone() {
                bail!("QEMU ended before the guest accepted commands");
            }
            if Instant::now() > deadline {
                bail!("the guest accepted no command within {} s", spec.boot_timeout.as_secs());
            }
        }
    });
    match outcome {
        Ok((qmp, control, ready)) => Ok(Guest {
            control,
            qmp,
            qemu: process,
            watch,
            monitor: Some(monitor),
            backends,
            serial_copy: spec.serial_copy.clone(),
            connections: Mutex::new(Some(0)),
            work,
            boot: started.elapsed(),
            ready,
        }),
        Err(error) => {
            kill(process, &watch);
            let _ = monitor.join();
            let why = watch.lock().unwrap_or_else(PoisonError::into_inner).killed.clone();
            let serial = tail(&work.path().join("serial.log"));
            keep_serial(work.path(), spec.serial_copy.as_deref());
            let error = error.context(format!("QEMU said: {}\nserial log:\n{serial}", tail(&log)));
            Err(match why {
                Some(why) => error.context(format!("the machine ended: {why:?}")),
                None => error,
            })
        }
    }
}

/// Asks the back end of a guest's vsock for a port, once. `socket` is [`Guest::vsock_path`].
///
/// # Errors
///
/// Nobody listens there, or not yet.
pub fn connect_vsock(socket: &Path, port: u32) -> anyhow::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut byte = [0; 1];
    while answer.last() != Some(&b'\n') {
        if answer.len() > 32 || stream.read(&mut byte)? == 0 {
            bail!("the back end refused: {:?}", String::from_utf8_lossy(&answer));
        }
        answer.extend_from_slice(&byte);
    }
    if !answer.starts_with(b"OK ") {
        bail!("the back end answered {:?}", String::from_utf8_lossy(&answer));
    }
    stream.set_read_timeout(None)?;
    Ok(stream)
}

impl Guest {
    /// Runs a command to its end, for at most two minutes.
    ///
    /// # Errors
    ///
    /// It could not be started, or did not end; not its status.
    pub fn exec<S: AsRef<str>>(&self, argv: &[S]) -> anyhow::Result<Said> {
        self.spawn(argv)?.wait(COMMAND)
    }

    /// Runs a line of shell.
    ///
    /// # Errors
    ///
    /// As [`Guest::exec`].
    pub fn sh(&self, line: &str) -> anyhow::Result<Said> {
        self.exec(&["/bin/sh", "-c", line])
    }

    /// Runs a line of shell that has to succeed, and returns what it printed.
    ///
    /// # Errors
    ///
    /// As [`Guest::exec`], and a status other than 0.
    pub fn shell(&self, line: &str) -> anyhow::Result<String> {
        let said = self.sh(line)?;
        if said.status != 0 {
            bail!("`{line}` ended with {}: {}{}", said.status, said.stdout, said.stderr);
        }
        Ok(said.stdout)
    }

    /// Starts a command.
    ///
    /// # Errors
    ///
    /// The machine is gone.
    pub fn spawn<S: AsRef<str>>(&self, argv: &[S]) -> anyhow::Result<Running> {
        self.control.start(&Exec {
            argv: argv.iter().map(|word| word.as_ref().to_owned()).collect(),
            ..Exec::default()
        })
    }

    /// Starts a command with variables or standard input.
    ///
    /// # Errors
    ///
    /// The machine is gone.
    pub fn spawn_with(&self, exec: &Exec) -> anyhow::Result<Running> {
        self.control.start(exec)
    }

    /// A command of QEMU's machine protocol.
    ///
    /// # Errors
    ///
    /// QEMU refuses, or is gone.
    pub fn qmp(&mut self, command: &str, arguments: &Value) -> anyhow::Result<Value> {
        self.qmp.call(command, arguments)
    }

    /// Waits for an event of QEMU.
    ///
    /// # Errors
    ///
    /// It did not come in time.
    pub fn wait_event(&self, name: &str, timeout: Duration) -> anyhow::Result<Value> {
        self.qmp.wait_event(name, timeout)
    }

    /// Connects to a vsock port of the guest, as a host does.
    ///
    /// # Errors
    ///
    /// Nobody listens there within `timeout`.
    pub fn vsock(&self, port: u32, timeout: Duration) -> anyhow::Result<UnixStream> {
        let deadline = Instant::now() + timeout;
        loop {
            // Until the guest listens the back end closes the connection without a word.
            match self.vsock_once(port) {
                Ok(stream) => return Ok(stream),
                Err(error) if Instant::now() > deadline => {
                    let stalls = self.vsock_stalls();
                    return Err(error.context(format!("vsock port {port} ({stalls} stalls of the back end)")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// As [`Guest::vsock`], once somebody listens; with the port that the guest sees the connection come from.
    ///
    /// The back end's answer names the guest's own port in that place; but it numbers connections from 0 on, in their order.
    ///
    /// # Errors
    ///
    /// Nobody listens there; an earlier connection was not answered, so that the number is not known.
    pub fn vsock_from(&self, port: u32) -> anyhow::Result<(UnixStream, u32)> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let from = connections.context("a connection before this one was not answered")?;
        *connections = None;
        let stream = connect_vsock(&self.vsock_path(), port)?;
        *connections = Some(from + 1);
        Ok((stream, from))
    }

    fn vsock_once(&self, port: u32) -> anyhow::Result<UnixStream> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let before = connections.take();
        let stream = connect_vsock(&self.vsock_path(), port)?;
        *connections = before.map(|count| count + 1);
        Ok(stream)
    }

    /// The socket at which the back end of vsock takes `CONNECT PORT`; with `_PORT` behind it, where the host listens for the guest.
    pub fn vsock_path(&self) -> PathBuf {
        self.work.path().join(backend::VSOCK_PATH)
    }

    /// How often the back end of vsock said that a connection stalled: its known defect, never the guest's.
    pub fn vsock_stalls(&self) -> usize {
        let backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        backends.iter().map(|backend| backend.said().matches(backend::STALL).count()).sum()
    }

    /// The serial console so far.
    pub fn serial(&self) -> String {
        let bytes = std::fs::read(self.work.path().join("serial.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the console shows a text.
    ///
    /// # Errors
    ///
    /// It did not in time; the end of the console is in the error.
    pub fn wait_serial(&self, text: &str, timeout: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            let serial = self.serial();
            if serial.contains(text) {
                return Ok(serial);
            }
            if Instant::now() > deadline {
                bail!("the console never showed {text:?}:\n{}", tail(&self.work.path().join("serial.log")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// QEMU's process.
    pub fn process(&self) -> u32 {
        self.qemu
    }

    /// Switches the machine off from inside and waits for it.
    ///
    /// # Errors
    ///
    /// It ended otherwise.
    pub fn power_off(mut self) -> anyhow::Result<()> {
        self.control.power_off()?;
        match self.wait_end(Duration::from_secs(30))? {
            End::PoweredOff => Ok(()),
            other => Err(anyhow!("the machine did not switch off in order: {other:?}")),
        }
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// The machine still runs after `timeout`.
    pub fn wait_end(&mut self, timeout: Duration) -> anyhow::Result<End> {
        let deadline = Instant::now() + timeout;
        loop {
            {
                let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(status) = &watch.ended {
                    // What the machine announced comes first: its back ends end with it, sometimes before it.
                    return Ok(match (self.qmp.shutdown_reason().as_deref(), &watch.killed) {
                        (Some("guest-shutdown"), _) => End::PoweredOff,
                        (Some("guest-reset" | "guest-panic"), _) => End::Reset,
                        (_, Some(killed)) => killed.clone(),
                        _ => End::Qemu(status.clone()),
                    });
                }
            }
            if Instant::now() > deadline {
                bail!(
                    "the machine still runs after {} s; console:\n{}",
                    timeout.as_secs(),
                    tail(&self.work.path().join("serial.log"))
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        kill(self.qemu, &self.watch);
        if let Some(monitor) = self.monitor.take() {
            let _ = monitor.join();
        }
        keep_serial(self.work.path(), self.serial_copy.as_deref());
        let stalls = self.vsock_stalls();
        if stalls > 0 {
            eprintln!("note: the back end of vsock reported {stalls} stalled connections");
        }
    }
}

fn accept(
    listener: &UnixListener,
    started: Instant,
    spec: &Spec,
    gone: &dyn Fn() -> bool,
) -> anyhow::Result<UnixStream> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("wait for QEMU"),
        }
        if gone() {
            bail!("QEMU did not start");
        }
        if started.elapsed() > spec.boot_timeout {
            bail!("QEMU did not connect within {} s", spec.boot_timeout.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn keep_serial(work: &Path, copy: Option<&Path>) {
    if let Some(copy) = copy {
        let _ = std::fs::copy(work.join("serial.log"), copy);
    }
}

fn tail(file: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
}
