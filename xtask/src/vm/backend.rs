//! Programs beside QEMU that serve a device each.

use super::tools::Tools;
use anyhow::{Context, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The guest's address.
pub const GUEST_CID: u32 = 3;
/// Sockets and logs, below the guest's scratch directory.
pub(super) const VSOCK_SOCKET: &str = "vhost-vsock.sock";
/// Connections of the host go here; a listener of the host is this path with `_PORT` behind it.
pub(super) const VSOCK_PATH: &str = "vm.vsock";
pub(super) const SHARE_SOCKET: &str = "vhost-fs.sock";
/// By this line the back end of vsock tells that a connection will make no progress any more.
pub(super) const STALL: &str = "Failed to re-enable EPOLLOUT";

/// A running back end; dropped, it is killed.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) name: &'static str,
    pub(super) process: Child,
    pub(super) log: PathBuf,
}

impl Backend {
    pub(super) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(super) fn vsock(tools: &Tools, work: &Path) -> anyhow::Result<Backend> {
    let mut command = Command::new(&tools.vsock);
    command.args(["--guest-cid", &GUEST_CID.to_string()]);
    command.arg("--socket").arg(work.join(VSOCK_SOCKET));
    command.arg("--uds-path").arg(work.join(VSOCK_PATH));
    command.env("RUST_LOG", "warn");
    start("vsock", command, work, VSOCK_SOCKET)
}

pub(super) fn share(tools: &Tools, work: &Path, directory: &Path) -> anyhow::Result<Backend> {
    let mut command = tools.program("usr/libexec/virtiofsd");
    command.arg("--socket-path").arg(work.join(SHARE_SOCKET)).arg("--shared-dir").arg(directory);
    command.args(["--sandbox", "none", "--cache", "never", "--log-level", "warn"]);
    start("share", command, work, SHARE_SOCKET)
}

fn start(name: &'static str, mut command: Command, work: &Path, socket: &str) -> anyhow::Result<Backend> {
    let log = work.join(format!("{name}.log"));
    let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let process = command.spawn().with_context(|| format!("start the back end of {name}: {command:?}"))?;
    let mut backend = Backend { name, process, log };
    let (start, socket) = (Instant::now(), work.join(socket));
    while !socket.exists() {
        if let Some(status) = backend.process.try_wait()? {
            bail!("the back end of {name} ended with {status}: {}", backend.said());
        }
        if start.elapsed() > Duration::from_secs(20) {
            bail!("the back end of {name} does not listen: {}", backend.said());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(backend)
}
