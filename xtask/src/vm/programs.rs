//! The programs inside the guest: built static, since its root has no libraries.

use crate::shell::{self, Workspace};
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A program that a guest can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestProgram {
    /// Its package.
    pub package: &'static str,
    /// Its name.
    pub name: &'static str,
}

impl GuestProgram {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self { package: "tests", name: "vm-init" },
        Self { package: "cli", name: "innerkeep" },
        Self { package: "agent", name: "innerkeep-agent" },
        Self { package: "attestation-agent", name: "attestation-agent" },
        Self { package: "tee-emulator", name: "innerkeep-tee-emulator" },
        Self { package: "tests", name: "composefs-guest" },
        Self { package: "tests", name: "engine-guest" },
        Self { package: "tests", name: "test-call" },
        Self { package: "tests", name: "test-consumer" },
        Self { package: "tests", name: "test-guest" },
        Self { package: "tests", name: "chip-suite" },
    ];
}

/// Where the built ones are.
#[derive(Clone, Debug)]
pub struct Programs {
    directory: PathBuf,
}

/// Builds guest programs, all in one go: those of these names, or every one.
///
/// # Errors
///
/// One does not build, or is none.
pub fn build(workspace: &Workspace, names: &[String]) -> anyhow::Result<Programs> {
    for name in names {
        ensure!(
            GuestProgram::ALL.iter().any(|program| program.name == name),
            "no guest program is called {name}"
        );
    }
    let wanted = || {
        GuestProgram::ALL
            .iter()
            .filter(|program| names.is_empty() || names.iter().any(|name| name == program.name))
    };
    let mut cargo = workspace.cargo("build");
    cargo.args(["--quiet", "--locked", "--profile", "ci", "--target", TARGET]);
    let mut packages: Vec<&str> = wanted().map(|program| program.package).collect();
    packages.sort_unstable();
    packages.dedup();
    for package in packages {
        cargo.args(["--package", package]);
    }
    for program in wanted() {
        cargo.args(["--bin", program.name]);
    }
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    shell::run(&mut cargo)?;
    Ok(Programs::beside(&workspace.ci_bin_dir()))
}

impl Programs {
    /// Those that belong to the programs in `ci`, the directory of the profile of that name.
    pub fn beside(ci: &Path) -> Self {
        let target = ci.parent().unwrap_or(ci);
        Self { directory: target.join(TARGET).join("ci") }
    }

    /// A program without symbols: the guest copies every byte of it.
    ///
    /// # Errors
    ///
    /// It was not built.
    pub fn stripped(&self, name: &str) -> anyhow::Result<PathBuf> {
        let built = self.directory.join(name);
        ensure!(
            built.is_file(),
            "{} is not built: `cargo xtask vm build` builds what runs in guests",
            built.display()
        );
        let directory = self.directory.join("stripped");
        std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let stripped = directory.join(name);
        let modified = |path: &Path| std::fs::metadata(path).and_then(|found| found.modified()).ok();
        if modified(&stripped).is_none_or(|stripped| modified(&built).is_none_or(|built| built > stripped)) {
            // Under a name of its own first: tests do this side by side.
            let scratch = tempfile::NamedTempFile::new_in(&directory).context("make a scratch file")?;
            let mut strip = Command::new("strip");
            strip.arg("--strip-all").arg("-o").arg(scratch.path()).arg(&built);
            shell::run(&mut strip)?;
            scratch.persist(&stripped).with_context(|| format!("write {}", stripped.display()))?;
        }
        Ok(stripped)
    }
}
