//! The Python suites in `tests/compat/`: readers and clients that were written from the specs alone.

use super::LONG;
use crate::shell::{self, Workspace};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};

/// Where a suite finds `innerkeep` and the emulators.
const BIN_DIR: &str = "INNERKEEP_BIN_DIR";

/// Runs every `tests/compat/test_*.py`; the first failure ends the stage after all have run.
pub fn run(workspace: &Workspace, long: bool) -> anyhow::Result<()> {
    let suites = suites(&workspace.path("tests/compat"))?;
    if suites.is_empty() {
        eprintln!("no tests/compat/test_*.py yet");
        return Ok(());
    }
    let python = environment(workspace)?;
    let mut failed = Vec::new();
    for suite in suites {
        eprintln!("--- {}", suite.display());
        let mut command = workspace.command(&python);
        command.arg("-B").arg(&suite).env(BIN_DIR, workspace.ci_bin_dir());
        if long {
            command.env(LONG, "1");
        }
        if let Err(error) = shell::run(&mut command) {
            eprintln!("{error:#}");
            failed.push(suite);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {failed:?}");
    }
    Ok(())
}

fn suites(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut suites = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("test_") && name.ends_with(".py") {
            suites.push(path);
        }
    }
    suites.sort();
    Ok(suites)
}

/// The interpreter of a virtual environment in the cache that holds exactly the pinned requirements.
///
/// The environment records what it was made from; another Python or other pins make it anew.
fn environment(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let pins = workspace.path("tests/compat/requirements.txt");
    let wanted = std::fs::read_to_string(&pins).with_context(|| format!("read {}", pins.display()))?;
    let version = shell::output(workspace.command("python3").args(["-c", "import sys; print(sys.version)"]))?;
    let made_from = format!("{version}{wanted}");
    let dir = shell::cache_dir()?.join("compat-venv");
    let stamp = dir.join("made-from.txt");
    let python = dir.join("bin/python");
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == made_from) && python.exists() {
        return Ok(python);
    }
    eprintln!("making a Python environment in {}", dir.display());
    shell::run(workspace.command("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
    let mut pip = workspace.command(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&pins);
    shell::run(&mut pip)?;
    std::fs::write(&stamp, made_from).with_context(|| format!("write {}", stamp.display()))?;
    Ok(python)
}
