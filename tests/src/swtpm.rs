//! A TPM of Debian's `swtpm`, where a guest looks for one.

use crate::work::Work;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use attestation_agent::tpm::pcr::PcrIndex;
use attestation_agent::tpm::{Tpm, TpmLocation};

/// A running TPM; dropped, it is killed.
#[derive(Debug)]
pub struct Swtpm {
    process: Child,
    socket: PathBuf,
    state: PathBuf,
}

impl Swtpm {
    /// The TPM whose memory is in the directory `name` of `work`, at `dev/tpm0` below a guest's root.
    #[track_caller]
    pub fn start(work: &Work, name: &str, root: &Path) -> Self {
        let state = work.directory(name);
        let devices = root.join("dev");
        std::fs::create_dir_all(&devices).expect("make a directory for devices");
        let socket = devices.join("tpm0");
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", state.display()))
            .args(["--server", &format!("type=unixio,path={}", socket.display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(state.join("log")).expect("open the TPM's log"))
            .spawn()
            .expect("swtpm is not installed: `cargo xtask setup` installs it");
        let tpm = Self { process, socket, state };
        let start = Instant::now();
        // The socket exists a moment before somebody listens.
        while UnixStream::connect(&tpm.socket).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "swtpm does not listen");
            std::thread::sleep(Duration::from_millis(2));
        }
        tpm
    }

    /// Extends a register, as software does that runs later in a boot.
    pub fn extend(&self, register: u32, digest: &[u8; 32]) {
        let register = PcrIndex::new(register).expect("a register of a TPM");
        let tpm = Tpm::new(TpmLocation::danger_socket(&self.socket));
        tpm.extend(register, digest).expect("extend a register");
    }

    /// Where its memory is.
    pub fn state(&self) -> &Path {
        &self.state
    }
}

/// A running TPM of a machine under QEMU: [`xtask::vm::Spec::tpm`]. Dropped, it is killed.
#[derive(Debug)]
pub struct MachineTpm {
    process: Child,
    control: PathBuf,
}

impl MachineTpm {
    /// The TPM whose memory is in the directory `name` of `work`. It serves one machine, once.
    #[track_caller]
    pub fn start(work: &Work, name: &str) -> Self {
        let state = work.directory(name);
        let control = state.join("control");
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--tpmstate", &format!("dir={}", state.display())])
            .args(["--ctrl", &format!("type=unixio,path={}", control.display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(state.join("log")).expect("open the TPM's log"))
            .spawn()
            .expect("swtpm is not installed: `cargo xtask setup` installs it");
        let tpm = Self { process, control };
        let start = Instant::now();
        while !tpm.control.exists() {
            assert!(start.elapsed() < Duration::from_secs(60), "swtpm does not listen");
            std::thread::sleep(Duration::from_millis(2));
        }
        tpm
    }

    /// Its control socket.
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for MachineTpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
