//! A guest's life: its files below ROOT from launch to signal.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use nix::sys::signal::{SigSet, Signal};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::derived::Socket;
use crate::faults::Faults;
use crate::files::Files;
use crate::launch::{Launch, TeeKind};
use crate::log;
use crate::state::{State, now};
use crate::tee::Tee;

/// So many requests are worked on at once.
const THREADS: usize = 4;

/// How to run a guest's TEE.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) state: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) launch: Launch,
    pub(crate) faults: Arc<Faults>,
    pub(crate) collateral_out: Option<PathBuf>,
}

/// A guest whose files are mounted; unmounts when dropped.
#[derive(Debug)]
pub(crate) struct Mounted {
    sys: PathBuf,
    session: Option<BackgroundSession>,
    _socket: Option<Socket>,
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn serve(options: &Options) -> anyhow::Result<()> {
    let signals = termination_signals();
    // Before any thread is started: threads inherit the mask.
    signals.thread_block().context("signals")?;
    let mounted = Mounted::new(options)?;
    let mut out = io::stdout().lock();
    writeln!(out, "ready").and_then(|()| out.flush()).context("standard output")?;
    signals.wait().context("signals")?;
    drop(mounted);
    Ok(())
}

/// The signals that end the emulator.
pub(crate) fn termination_signals() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT])
}

/// The first line of the log.
pub(crate) fn announce(options: &Options) {
    let kind = match options.launch.tee {
        TeeKind::Tdx => "TDX",
        TeeKind::Snp => "SEV-SNP",
    };
    log::note(&format!("INSECURE: EMULATED {kind}, protects nothing and proves nothing"));
    if !options.faults.is_empty() {
        log::note(&format!("{} faults are planned: this TEE misbehaves on purpose", options.faults.len()));
    }
}

impl Mounted {
    /// Launches the guest and mounts its files.
    pub(crate) fn new(options: &Options) -> anyhow::Result<Self> {
        announce(options);
        let root = prepare_root(&options.root)?;
        let now = now()?;
        let state = State::open(&options.state)?;
        state.write_collateral(&options.launch, now, options.collateral_out.as_deref())?;
        let tee = Arc::new(Tee::launch(&state, &options.launch, Arc::clone(&options.faults), now)?);
        let socket = match options.launch.tee {
            TeeKind::Snp => Some(Socket::serve(&root.join("dev/sev-guest.sock"), Arc::clone(&tee))?),
            TeeKind::Tdx => None,
        };
        let (sys, session) = mount(tee, root.join("sys"))?;
        Ok(Self { sys, session: Some(session), _socket: socket })
    }
}

/// Mounts the files of the guest.
pub(crate) fn mount(tee: Arc<Tee>, sys: PathBuf) -> anyhow::Result<(PathBuf, BackgroundSession)> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("innerkeep-tee-emulator".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoDev,
        MountOption::NoExec,
        MountOption::NoSuid,
    ];
    // A process in a user namespace below this one reads the files too.
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    let session = Session::new(Files::new(tee), &sys, &config)
        .and_then(Session::spawn)
        .with_context(|| format!("{}: mounting needs root, or the command `run`", sys.display()))?;
    Ok((sys, session))
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever still has a file open keeps the file system, without its place; it ends with this process.
        if let Err(error) = unmount(&self.sys, UnmountFlags::DETACH) {
            log::note(&format!("{}: {error}", self.sys.display()));
        }
        drop(self.session.take());
    }
}

/// Makes what lies below ROOT and is not served: mount point, `dev`, `run/attestation-agent`; the last one is emptied,
/// as `/run` is by a boot, because the registers begin anew.
fn prepare_root(root: &Path) -> anyhow::Result<PathBuf> {
    make_directory(root)?;
    let root = fs::canonicalize(root).with_context(|| root.display().to_string())?;
    // GUARD: tee-root-of-its-own -> roots_that_are_none_are_refused
    if root == Path::new("/") {
        bail!("--root: expected a directory of its own, found /");
    }
    let sys = root.join("sys");
    // What a process left that was killed: a mount without a server.
    if fs::metadata(&sys).is_err_and(|error| Errno::from_io_error(&error) == Some(Errno::NOTCONN)) {
        unmount(&sys, UnmountFlags::DETACH).with_context(|| sys.display().to_string())?;
    }
    let run = root.join("run/attestation-agent");
    for directory in [&sys, &root.join("dev"), &root.join("run"), &run] {
        make_directory(directory)?;
        // A link would lead the mount, or the emptying, somewhere else.
        // GUARD: tee-root-no-links -> roots_that_are_none_are_refused
        if !fs::symlink_metadata(directory)?.is_dir() {
            bail!("{}: expected a directory", directory.display());
        }
    }
    // GUARD: tee-root-mount-point-empty -> roots_that_are_none_are_refused
    if fs::read_dir(&sys)?.next().is_some() {
        bail!("{}: expected an empty directory; is another emulator running here?", sys.display());
    }
    empty(&run)?;
    Ok(root)
}

/// Removes the files of a directory, as a boot does with those in `/run`.
pub(crate) fn empty(directory: &Path) -> anyhow::Result<()> {
    for file in fs::read_dir(directory)? {
        let file = file?;
        if file.file_type()?.is_file() {
            fs::remove_file(file.path()).with_context(|| file.path().display().to_string())?;
        }
    }
    Ok(())
}

pub(crate) fn make_directory(path: &Path) -> anyhow::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o755).create(path).with_context(|| path.display().to_string())
}
