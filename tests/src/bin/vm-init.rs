//! Process 1 of test guests, never shipped: prepares the machine, starts a witness that takes commands from the host, and then either reaps,
//! or becomes the unchanged `innerkeep-agent`.
//!
//! What it does is in `/etc/vm-init.json` (`xtask::vm::Plan`). A failure is told on the console and switches the machine off.

use anyhow::{Context, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::system::RebootCommand;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use xtask::vm::wire::{self, Exec, Ready};
use xtask::vm::{Init, Plan};

/// What the agent has to mount itself where it is to find an empty machine.
const MOUNTS: [(&str, &str); 3] = [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")];
const AGENT: &str = "/bin/innerkeep-agent";

fn main() {
    let witness = std::env::args().nth(1).as_deref() == Some("witness");
    let outcome = if witness { witness_main() } else { init() };
    if let Err(error) = outcome {
        let _ = writeln!(std::io::stderr(), "vm-init: {error:#}");
    }
    // Also when the witness loses its host: nobody could reach the machine any more.
    rustix::fs::sync();
    let _ = rustix::system::reboot(RebootCommand::PowerOff);
}

fn init() -> anyhow::Result<()> {
    ensure!(rustix::process::getpid() == Pid::INIT, "this program is process 1 of a test guest");
    for (kind, target) in MOUNTS {
        rustix::mount::mount(kind, target, kind, MountFlags::empty(), None)
            .with_context(|| format!("mount {target}"))?;
    }
    let plan: Plan = serde_json::from_slice(&std::fs::read("/etc/vm-init.json").context("read the plan")?)
        .context("the plan")?;
    for module in &plan.modules {
        let file = File::open(module).with_context(|| format!("open {module}"))?;
        rustix::system::finit_module(&file, c"", 0).with_context(|| format!("load {module}"))?;
    }
    if plan.share {
        rustix::mount::mount("out", "/out", "virtiofs", MountFlags::empty(), None).context("mount /out")?;
    }
    for service in &plan.services {
        start_service(&service.argv, Path::new(&service.ready))?;
    }
    let mut witness = Command::new("/proc/self/exe");
    let witness =
        witness.arg("witness").stdin(Stdio::null()).env_clear().spawn().context("start the witness")?;
    match plan.init {
        Init::Run => reap(witness.id()),
        Init::Agent => become_agent(&plan),
    }
}

/// The agent finds no mount but those of the services, if so wished.
fn become_agent(plan: &Plan) -> anyhow::Result<()> {
    if !plan.keep_mounts {
        for (_, target) in MOUNTS.iter().rev() {
            rustix::mount::unmount(*target, UnmountFlags::DETACH)
                .with_context(|| format!("unmount {target}"))?;
        }
    }
    // The environment goes on as the kernel made it: to ignore it is the agent's to do.
    let error = Command::new(AGENT).args(&plan.agent_arguments).exec();
    Err(error).with_context(|| format!("execute {AGENT}"))
}

fn start_service(argv: &[String], ready: &Path) -> anyhow::Result<()> {
    let (program, arguments) = argv.split_first().context("a service without a program")?;
    let mut service = Command::new(program);
    let mut child =
        service.args(arguments).stdin(Stdio::null()).spawn().with_context(|| format!("start {program}"))?;
    let start = Instant::now();
    while !ready.exists() {
        if let Some(status) = child.try_wait()? {
            bail!("{program} ended with {status}");
        }
        ensure!(start.elapsed() < Duration::from_secs(60), "{program} did not make {}", ready.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The port of the harness, found by its name. The driver announces names a moment after the device; and `/sys` and `/dev` are empty
/// between the mounts of this program and those of the agent.
fn port() -> anyhow::Result<File> {
    let start = Instant::now();
    loop {
        if let Some(port) = find_port() {
            return Ok(port);
        }
        ensure!(start.elapsed() < Duration::from_secs(20), "no port {} of the harness", wire::PORT);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn find_port() -> Option<File> {
    std::fs::read_dir("/sys/class/virtio-ports").ok()?.flatten().find_map(|entry| {
        let name = std::fs::read_to_string(entry.path().join("name")).ok()?;
        let device = PathBuf::from("/dev").join(entry.file_name());
        (name.trim() == wire::PORT).then(|| File::options().read(true).write(true).open(device).ok())?
    })
}

/// Process 1: takes the status of whoever ended, until the witness does.
fn reap(witness: u32) -> anyhow::Result<()> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((process, _))) if u32::try_from(process.as_raw_nonzero().get()) == Ok(witness) => {
                return Ok(());
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for processes"),
        }
    }
}

type Stdins = Arc<Mutex<BTreeMap<u32, (u32, Option<ChildStdin>)>>>;

/// Takes commands until the host closes the port.
fn witness_main() -> anyhow::Result<()> {
    // What it says itself goes to the console, and never into the port.
    let mut from = port()?;
    let to = Arc::new(Mutex::new(from.try_clone().context("the port")?));
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let ready = Ready {
        uptime: uptime.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
    };
    send(&to, wire::READY, 0, &serde_json::to_vec(&ready)?);
    let stdins = Stdins::default();
    while let Some(frame) = wire::read(&mut from).context("read from the host")? {
        match frame.kind {
            wire::EXEC => {
                let exec = serde_json::from_slice(&frame.payload).context("a command")?;
                let (to, stdins) = (Arc::clone(&to), Arc::clone(&stdins));
                let id = frame.id;
                match start(id, &exec, &stdins) {
                    Ok(child) => drop(std::thread::spawn(move || attend(child, id, &to, &stdins))),
                    Err(error) => send(&to, wire::FAILED, id, format!("{error:#}").as_bytes()),
                }
            }
            wire::STDIN => feed(&stdins, frame.id, &frame.payload),
            wire::SIGNAL => signal(&stdins, frame.id, &frame.payload),
            wire::POWER_OFF => return Ok(()),
            other => bail!("the host sent a frame of kind {other:#x}"),
        }
    }
    Ok(())
}

fn send(to: &Mutex<File>, kind: u8, id: u32, payload: &[u8]) {
    let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = wire::write(&mut *to, kind, id, payload);
}

fn start(id: u32, exec: &Exec, stdins: &Stdins) -> anyhow::Result<Child> {
    let (program, arguments) = exec.argv.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", "/bin").env("HOME", "/").envs(exec.env.iter().cloned());
    command.stdin(if exec.stdin { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir("/").process_group(0);
    let mut child = command.spawn()?;
    let stdin = child.stdin.take();
    stdins.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (child.id(), stdin));
    Ok(child)
}

/// Hands the output of a command on, then its status.
fn attend(mut child: Child, id: u32, to: &Mutex<File>, stdins: &Stdins) {
    std::thread::scope(|scope| {
        if let Some(mut stderr) = child.stderr.take() {
            scope.spawn(move || hand_on(&mut stderr, wire::STDERR, id, to));
        }
        if let Some(mut stdout) = child.stdout.take() {
            hand_on(&mut stdout, wire::STDOUT, id, to);
        }
    });
    let status = child.wait();
    stdins.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    let status =
        status.map_or(-1, |status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
    send(to, wire::EXIT, id, &status.to_le_bytes());
}

fn hand_on(from: &mut impl Read, kind: u8, id: u32, to: &Mutex<File>) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut piece)
        && count > 0
    {
        send(to, kind, id, piece.get(..count).unwrap_or_default());
    }
}

fn feed(stdins: &Stdins, id: u32, bytes: &[u8]) {
    let mut stdins = stdins.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((_, stdin)) = stdins.get_mut(&id) else { return };
    if bytes.is_empty() {
        *stdin = None;
    } else if let Some(open) = stdin
        && open.write_all(bytes).is_err()
    {
        *stdin = None;
    }
}

fn signal(stdins: &Stdins, id: u32, payload: &[u8]) {
    let stdins = stdins.lock().unwrap_or_else(PoisonError::into_inner);
    let process =
        stdins.get(&id).and_then(|(process, _)| i32::try_from(*process).ok()).and_then(Pid::from_raw);
    let signal = payload.first().and_then(|number| Signal::from_named_raw(i32::from(*number)));
    if let (Some(process), Some(signal)) = (process, signal) {
        // The whole group: a shell's children too.
        let _ = rustix::process::kill_process_group(process, signal);
    }
}
