//! Confidential guests: an emulated platform, launches on it, and commands inside.

use crate::innerkeep::run_to_end;
use crate::programs::Programs;
use crate::work::Work;
use sha2::{Digest, Sha256, Sha384};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Kinds of guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Intel TDX.
    Tdx,
    /// AMD SEV-SNP.
    Snp,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tdx, Self::Snp];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tdx => "tdx",
            Self::Snp => "snp",
        }
    }

    /// The digest of initdata that fits its register, hex.
    pub fn initdata_digest(self, document: &[u8]) -> String {
        match self {
            Self::Tdx => hex::encode(Sha384::digest(document)),
            Self::Snp => hex::encode(Sha256::digest(document)),
        }
    }
}

/// An emulated processor: its keys sign everything that its guests show.
#[derive(Debug)]
pub struct Platform {
    /// Kind of its guests.
    pub kind: Kind,
    state: PathBuf,
}

/// A guest that is launched anew for each command.
#[derive(Clone, Debug)]
pub struct Guest {
    state: PathBuf,
    launch: PathBuf,
    faults: Option<PathBuf>,
    /// Where a command finds the TEE.
    pub root: PathBuf,
    /// The platform's collateral.
    pub collateral: PathBuf,
}

impl Platform {
    /// A new one, whose state is in the directory `name` of `work`.
    #[track_caller]
    pub fn create(programs: &Programs, work: &Work, name: &str, kind: Kind) -> Self {
        Self::create_in(programs, work, work.join(name), kind)
    }

    /// As [`Platform::create`], with the RSA keys of the test vectors, which every such platform has: making some takes longest.
    #[track_caller]
    pub fn with_keys_of_vectors(programs: &Programs, work: &Work, name: &str, kind: Kind) -> Self {
        let state = work.directory(name);
        let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/evidence/keys");
        for name in ["ark", "ask"] {
            let key = std::fs::read(keys.join(format!("insecure-test-{name}.pk8"))).expect("read a key");
            let copy = work.write(state.join(format!("snp-{name}.pk8")), key);
            work.hand_over(&copy, 0o600);
        }
        work.hand_over(&state, 0o700);
        Self::create_in(programs, work, state, kind)
    }

    #[track_caller]
    fn create_in(programs: &Programs, work: &Work, state: PathBuf, kind: Kind) -> Self {
        let fuse = std::fs::metadata("/dev/fuse");
        assert!(fuse.is_ok(), "the emulated TEE needs /dev/fuse (`modprobe fuse`): {fuse:?}");
        let mut init = programs.command("innerkeep-tee-emulator", &work.join("tmp"));
        init.args(["init", "--tee", kind.name(), "--state"]).arg(&state).stdin(Stdio::null());
        let said = run_to_end(&mut init);
        assert_eq!(said.status, Some(0), "{said:?}");
        Self { kind, state }
    }

    /// The roots that a verifier must be told to believe.
    pub fn trust_roots(&self) -> PathBuf {
        self.state.join("trust-roots.json")
    }

    /// A guest. `launch` is the launch file behind its first line; `faults` is a plan of the host's misbehaviour.
    pub fn guest(&self, work: &Work, name: &str, launch: &str, faults: Option<&str>) -> Guest {
        let launch = format!("tee = \"{}\"\n{launch}", self.kind.name());
        Guest {
            state: self.state.clone(),
            launch: work.write(format!("{name}.launch"), launch),
            faults: faults.map(|plan| work.write(format!("{name}.faults"), plan)),
            root: work.directory(name),
            collateral: work.join(format!("{name}.collateral")),
        }
    }
}

impl Guest {
    /// A program as it runs inside, without arguments.
    pub fn command(&self, programs: &Programs, scratch: &Path, program: &str) -> Command {
        let mut command = programs.command("innerkeep-tee-emulator", scratch);
        command.arg("run").arg("--state").arg(&self.state).arg("--root").arg(&self.root);
        command.arg("--launch").arg(&self.launch).arg("--collateral-out").arg(&self.collateral);
        if let Some(faults) = &self.faults {
            command.arg("--fault-plan").arg(faults);
        }
        command.arg("--").arg(programs.path(program)).stdin(Stdio::null());
        command
    }

    /// The arguments by which a command finds TEE and collateral.
    pub fn flags(&self) -> Vec<OsString> {
        crate::args!["--insecure-tee-root", &self.root, "--collateral", &self.collateral]
    }
}
