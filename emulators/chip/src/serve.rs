//! The process: state directory, socket, one client after another, end on SIGTERM.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use evidence::verify::roots::{MAXIMUM_BUNDLE_BYTES, Roots, TrustBundle};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::controller::{Controller, Power};
use crate::faults::{Faults, MAX_PLAN_BYTES};
use crate::firmware::Modes;
use crate::identity::StateDirectory;
use crate::log;
use crate::puf::noise::Probability;
use crate::sys::Signals;
use crate::vfio_user::{Connection, Disconnected, Server};

/// How to run the device.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the UNIX socket is made.
    pub socket: PathBuf,
    /// State directory; a chip is made in it when there is none.
    pub state: PathBuf,
    /// Insecure modes.
    pub modes: Modes,
    /// File of emulated trust roots, believed instead of Intel's and AMD's.
    pub trust_roots: Option<PathBuf>,
    /// Fault plan.
    pub fault_plan: Option<PathBuf>,
    /// Bit error rate of the silicon, 0 … 0.5.
    pub puf_noise: f64,
    /// End when the first client is gone.
    pub once: bool,
}

/// Core dumps off, not traceable: the process holds keys.
fn confine() -> anyhow::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).context("RLIMIT_CORE")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("PR_SET_DUMPABLE")
}

/// Makes a chip in an empty directory.
pub fn init(state: &Path) -> anyhow::Result<()> {
    confine()?;
    Ok(StateDirectory::open(state)?.manufacture()?)
}

/// Raises the key epoch: former grants become useless and new certificates are needed. Returns the new epoch.
pub fn raise_epoch(state: &Path) -> anyhow::Result<u64> {
    confine()?;
    Ok(StateDirectory::open(state)?.nvm()?.raise_epoch()?)
}

/// Serves until SIGTERM or SIGINT, or with `once` until the first client is gone.
pub fn serve(options: &Options) -> anyhow::Result<()> {
    confine()?;
    let signals = Signals::block_termination().context("signals")?;
    announce(options.modes, options.trust_roots.is_some());
    let roots = Arc::new(trust_roots(options.trust_roots.as_deref())?);
    let faults = Arc::new(Faults::default());
    if let Some(path) = &options.fault_plan {
        read_plan(path, &faults)?;
    }
    if !faults.is_empty() {
        log::note(&format!("{} faults are planned: this chip misbehaves on purpose", faults.len()));
    }
    if let Some(path) = options.fault_plan.clone() {
        let hangups = Signals::block_hangup().context("signals")?;
        let faults = Arc::clone(&faults);
        std::thread::spawn(move || reread_at_hangup(&hangups, &path, &faults));
    }
    let noise = Probability::new(options.puf_noise).context("the PUF's bit error rate must be 0 to 0.5")?;
    let state = StateDirectory::open(&options.state)?;
    if !state.has_chip() {
        state.manufacture()?;
        log::note(&format!("new chip in {}", options.state.display()));
    }
    let power = Power::new(state.silicon(noise)?, state.helper()?, state.nvm()?, options.modes, roots);
    let listener = listen(&options.socket)?;
    let (controller, workers) = Controller::start(power, faults);
    println_ready()?;
    let result = accept_clients(&listener, &controller, &signals, options.once);
    controller.end();
    for worker in workers {
        let _ = worker.join();
    }
    let _ = std::fs::remove_file(&options.socket);
    result
}

/// One line on standard output tells whoever started the process that the socket listens.
fn println_ready() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready").and_then(|()| out.flush()).context("standard output")
}

fn announce(modes: Modes, emulated_roots: bool) {
    let insecure = [
        (modes.no_evidence, "INSECURE: NO EVIDENCE IS DEMANDED (--insecure-no-evidence)"),
        (modes.emulated_dma, "INSECURE: PRIVATE DMA IS EMULATED (--insecure-emulated-dma)"),
        (emulated_roots, "INSECURE: EMULATED TEES ARE BELIEVED (--insecure-trust-roots)"),
    ];
    let insecure: Vec<&str> = insecure.into_iter().filter(|(on, _)| *on).map(|(_, text)| text).collect();
    let insecure = if insecure.is_empty() { "no insecure mode".to_owned() } else { insecure.join("; ") };
    log::note(&format!("EMULATED CHIP, protects nothing; {insecure}"));
}

/// The roots that evidence has to lead to: built in, or those of the file and no others.
fn trust_roots(path: Option<&Path>) -> anyhow::Result<Roots> {
    let Some(path) = path else { return Ok(Roots::builtin()?) };
    let describe = || path.display().to_string();
    let file = std::fs::File::open(path).with_context(describe)?;
    let mut json = Vec::new();
    let limit = u64::try_from(MAXIMUM_BUNDLE_BYTES)?.saturating_add(1);
    file.take(limit).read_to_end(&mut json).with_context(describe)?;
    Ok(TrustBundle::parse(&json).with_context(describe)?.danger_roots())
}

fn read_plan(path: &Path, faults: &Faults) -> anyhow::Result<()> {
    let describe = || path.display().to_string();
    let file = std::fs::File::open(path).with_context(describe)?;
    if file.metadata()?.len() > MAX_PLAN_BYTES {
        bail!("{}: larger than {MAX_PLAN_BYTES} bytes", path.display());
    }
    let text = std::io::read_to_string(file.take(MAX_PLAN_BYTES))?;
    faults.replace(&text).with_context(describe)
}

/// Lets a test change what goes wrong while a client, which may be a whole virtual machine, stays connected.
fn reread_at_hangup(hangups: &Signals, path: &Path, faults: &Faults) {
    while hangups.wait().is_ok() {
        match read_plan(path, faults) {
            Ok(()) => log::note(&format!("fault plan read again: {} faults", faults.len())),
            Err(e) => log::note(&format!("fault plan as it was: {e:#}")),
        }
    }
}

/// Binds the socket, readable and writable by the owner only. A socket that nobody listens on is replaced.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    let describe = || path.display().to_string();
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            bail!("{}: exists and is not a socket", path.display());
        }
        if UnixStream::connect(path).is_ok() {
            bail!("{}: another process listens here", path.display());
        }
        std::fs::remove_file(path).with_context(describe)?;
    }
    let listener = UnixListener::bind(path).with_context(describe)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(describe)?;
    Ok(listener)
}

fn accept_clients(
    listener: &UnixListener,
    controller: &Arc<Controller>,
    signals: &Signals,
    once: bool,
) -> anyhow::Result<()> {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("waiting for a client"),
        }
        let [client, ending] = &fds;
        if !ending.revents().is_empty() {
            return Ok(());
        }
        if client.revents().is_empty() {
            continue;
        }
        let (stream, _) = listener.accept().context("accepting a client")?;
        let connection = Connection::new(OwnedFd::from(stream), Some(signals.as_fd()));
        let mut server = Server::new(Arc::clone(controller));
        match server.serve(&connection) {
            Disconnected::Ending => return Ok(()),
            Disconnected::Broken => log::note("a client sent a message without a usable size"),
            Disconnected::Closed => {}
        }
        if once && server.has_negotiated() {
            return Ok(());
        }
    }
}
