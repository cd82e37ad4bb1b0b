//! The confidential guest: an emulated TEE of a stated launch, and a command inside.

use super::actors::attempt;
use crate::shell::Workspace;
use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use sha2::{Digest, Sha256, Sha384};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Kinds of guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tee {
    /// Intel TDX.
    Tdx,
    /// AMD SEV-SNP.
    Snp,
}

impl Tee {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tdx => "tdx",
            Self::Snp => "snp",
        }
    }

    /// The digest of initdata that fits its register, in hex: MRCONFIGID has 48 bytes, HOST_DATA 32.
    pub fn initdata_digest(self, document: &[u8]) -> String {
        let bytes = match self {
            Self::Tdx => Sha384::digest(document).to_vec(),
            Self::Snp => Sha256::digest(document).to_vec(),
        };
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The emulated processor: its keys sign everything that its guests show.
pub struct Platform {
    program: PathBuf,
    state: PathBuf,
    work: PathBuf,
    /// What kind of guests it runs.
    pub tee: Tee,
}

/// What the host launches: members of the launch file that differ from the emulator's defaults.
#[derive(Clone)]
pub struct Launch(BTreeMap<&'static str, Vec<(&'static str, String)>>);

impl Launch {
    /// A guest with this initdata.
    pub fn new(tee: Tee, initdata_digest: &str) -> Self {
        Self(BTreeMap::new()).with("", "tee", tee.name()).with("", "initdata_digest", initdata_digest)
    }

    /// With a member that is text.
    pub fn with(self, section: &'static str, member: &'static str, text: &str) -> Self {
        self.with_bare(section, member, &format!("\"{text}\""))
    }

    /// With a member that is a number or a truth value.
    pub fn with_bare(mut self, section: &'static str, member: &'static str, value: &str) -> Self {
        let members = self.0.entry(section).or_default();
        members.retain(|(name, _)| *name != member);
        members.push((member, value.to_owned()));
        self
    }

    fn toml(&self) -> String {
        let mut text = String::new();
        // The nameless section is the first one in order, as TOML wants it.
        for (section, members) in &self.0 {
            if !section.is_empty() {
                let _ = writeln!(text, "[{section}]");
            }
            for (member, value) in members {
                let _ = writeln!(text, "{member} = {value}");
            }
        }
        text
    }
}

/// A guest that is launched anew for each command.
pub struct Guest {
    program: PathBuf,
    state: PathBuf,
    launch: PathBuf,
    faults: Option<PathBuf>,
    tee: Tee,
    /// Where the command finds the TEE.
    pub root: PathBuf,
    /// Its platform's collateral.
    pub collateral: PathBuf,
}

impl Platform {
    /// A new one.
    pub fn create(workspace: &Workspace, work: &Path, tee: Tee) -> anyhow::Result<Self> {
        require_fuse()?;
        let program = workspace.ci_bin_dir().join("innerkeep-tee-emulator");
        ensure!(program.is_file(), "{} is not built", program.display());
        let state = work.join("platform");
        let mut init = Command::new(&program);
        init.args(["init", "--tee", tee.name(), "--state"]).arg(&state);
        let said = attempt(init)?;
        ensure!(said.status == Some(0), "the emulated TEE was not made: {}", said.stderr);
        Ok(Self { program, state, work: work.to_owned(), tee })
    }

    /// The roots that a chip must be told to believe.
    pub fn trust_roots(&self) -> PathBuf {
        self.state.join("trust-roots.json")
    }

    /// The state of the platform: keys and certificates.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Writes what the host launches.
    pub fn write_launch(&self, name: &str, launch: &Launch) -> anyhow::Result<PathBuf> {
        let path = self.work.join(format!("{name}.launch.toml"));
        std::fs::write(&path, launch.toml()).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// A guest; `faults` is a plan of its host's misbehaviour.
    pub fn guest(&self, name: &str, launch: &Launch, faults: Option<&str>) -> anyhow::Result<Guest> {
        let write = |suffix: &str, text: &str| {
            let path = self.work.join(format!("{name}{suffix}"));
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display())).map(|()| path)
        };
        Ok(Guest {
            program: self.program.clone(),
            state: self.state.clone(),
            launch: self.write_launch(name, launch)?,
            faults: faults.map(|plan| write(".faults.toml", plan)).transpose()?,
            tee: self.tee,
            root: self.work.join(name),
            collateral: self.work.join(format!("{name}.collateral.json")),
        })
    }
}

impl Guest {
    /// A program as it runs inside, without arguments.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("run").arg("--state").arg(&self.state).arg("--root").arg(&self.root);
        command.arg("--launch").arg(&self.launch).arg("--collateral-out").arg(&self.collateral);
        if let Some(faults) = &self.faults {
            command.arg("--fault-plan").arg(faults);
        }
        command.arg("--").arg(program);
        command
    }

    /// Whether it is a TDX guest.
    pub fn is_tdx(&self) -> bool {
        self.tee == Tee::Tdx
    }

    /// The arguments by which `innerkeep` finds TEE and collateral.
    pub fn flags(&self) -> [&OsStr; 4] {
        [
            "--insecure-tee-root".as_ref(),
            self.root.as_os_str(),
            "--collateral".as_ref(),
            self.collateral.as_os_str(),
        ]
    }
}

/// The emulated TEE is a FUSE file system.
pub fn require_fuse() -> anyhow::Result<()> {
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => bail!(
            "the demo needs /dev/fuse for the emulated TEE, and this user may not open it: on Debian its mode is 666 (`chmod 666 /dev/fuse`)"
        ),
        Err(error) => bail!(
            "the demo needs /dev/fuse for the emulated TEE: {error}; load the module (`modprobe fuse`), or pass the device to this container (`--device /dev/fuse`)"
        ),
    }
}
